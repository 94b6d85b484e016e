"""Turns a recording into text, asciicast v3, or a picture of its screen."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from pyplue.vt.cast import CastReader, Event
from pyplue.vt.errors import MissingExtraError
from pyplue.vt.printable import printable
from pyplue.vt.screen import Screen
from pyplue.vt.transcript import Transcript

# How many events are worked on before progress is told.
_BATCH = 500

# Called now and then with the part that is done, 0 to 1.
Progress = Callable[[float], None]


def to_text(cast: CastReader, progress: Progress) -> Iterator[str]:
    """What the terminal showed, line by line, without colours; what full-screen programs painted
    is left out."""
    transcript = Transcript()
    for events in _batches(cast, progress):
        for line in transcript.feed(events):
            yield f"{line}\n"
    for line in transcript.flush():
        yield f"{line}\n"


def to_v3(cast: CastReader, progress: Progress) -> Iterator[str]:
    """The same recording as asciicast v3, the format of asciinema 3: times are intervals there."""
    cols, rows = cast.initial_size
    header: dict[str, Any] = {
        "version": 3,
        "term": {"cols": cols, "rows": rows, "type": "xterm-256color"},
    }
    for key in ("timestamp", "idle_time_limit", "command", "title", "env"):
        if cast.header.get(key):
            header[key] = cast.header[key]
    yield json.dumps(header, ensure_ascii=False) + "\n"
    last_us = 0
    for events in _batches(cast, progress):
        for event in events:
            now_us = max(last_us, round(event.time * 1e6))
            interval, last_us = (now_us - last_us) / 1e6, now_us
            line = json.dumps([interval, event.code, event.data], ensure_ascii=False)
            yield f"{line}\n"


def to_svg(
    cast: CastReader, progress: Progress, *, title: str = "", at: float | None = None
) -> Iterator[str]:
    """The screen at its end, or `at` so many seconds, as an SVG picture; needs pyte and rich."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError as error:
        raise MissingExtraError("a picture needs rich: pip install 'pyplue[vt-svg]'") from error
    screen = Screen(*cast.initial_size)
    for events in _batches(cast, progress):
        screen.play(event for event in events if at is None or event.time <= at)
        if at is not None and events[-1].time > at:
            break
    console = Console(
        width=screen.cols, file=io.StringIO(), record=True, force_terminal=True,
        color_system="truecolor", legacy_windows=False, highlight=False, markup=False,
    )  # fmt: skip
    for row in screen.cells():
        line = Text(no_wrap=True, end="\n")
        for style, cells in groupby(row, _style):
            line.append("".join(cell.data for cell in cells), style)
        console.print(line, crop=True, overflow="crop")
    picture = console.export_svg(title=printable(title) or "pyplue")
    # No fonts from the network: whoever looks at the picture has a monospaced one.
    yield re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


def _batches(cast: CastReader, progress: Progress) -> Iterator[list[Event]]:
    size, before = cast.size or 1, 0
    while events := cast.read():
        for first in range(0, len(events), _BATCH):
            yield events[first : first + _BATCH]
            done = min((first + _BATCH) / len(events), 1.0)
            progress(min((before + done * (cast.position - before)) / size, 1.0))
        before = cast.position
        if events[-1].code == "x":
            break


def _style(cell: Any) -> str:
    words = [
        name
        for name, on in [
            ("bold", cell.bold), ("italic", cell.italics), ("underline", cell.underscore),
            ("strike", cell.strikethrough), ("reverse", cell.reverse), ("blink", cell.blink),
        ]
        if on
    ]  # fmt: skip
    words.append(_colour(cell.fg))
    return " ".join([*words, "on", _colour(cell.bg)])


# pyte's names for the sixteen colours, where rich has others.
_COLOURS = {"brown": "yellow", "brightbrown": "bright_yellow", "bfightmagenta": "bright_magenta"}


def _colour(name: str) -> str:
    if len(name) == 6 and all(digit in "0123456789abcdef" for digit in name):
        return f"#{name}"
    name = _COLOURS.get(name, name)
    return f"bright_{name[6:]}" if name.startswith("bright") and "_" not in name else name
