"""Where to begin in a long recording, so that the screen is soon there and right.

Short recordings are replayed whole. In long ones the last sequence that clears the screen is looked
for near the end; where none is found, session.json's lastClearOffset counts, if it is near the end.
What was set before that point and still holds (size, alternate screen, modes) is looked up in a few
megabytes before it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pyplue.vt.cast import CastReader
from pyplue.vt.control_dir import open_regular
from pyplue.vt.sequences import number

# How far back the state is looked up.
_LOOK_BACK_BYTES = 8 << 20

# As JSON writes them: the sequences at which vibetunnel-fwd and the VibeTunnel server cut.
_CLEARS = re.compile(
    rb"\\u001[bB](?:\[(?:2J|3J|H\\u001[bB]\[2?J|\?(?:1049|1047|47)[hl])|c)",
)
_MODES = re.compile(rb"\\u001[bB](?:\[\?([0-9;]{1,40})([hl])|(c))")
_RESIZE = re.compile(rb'\n\[[^",\n]{1,40},\s?"r",\s?"(\d{1,5})x(\d{1,5})"\]')

ALTERNATE = (1049, 1047, 47)
# Private modes that a viewer has to know: cursor keys, wrap, cursor, mouse, focus, paste.
_KEPT_MODES = (1, 7, 25, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 2004, *ALTERNATE)
# Those that are on in a fresh terminal.
_ON_AT_FIRST = (7, 25)


@dataclass
class Start:
    """A place in a recording, and the terminal's state there."""

    offset: int
    cols: int
    rows: int
    modes: dict[int, bool] = field(default_factory=dict)

    def restore(self) -> str:
        """What brings a fresh terminal into that state."""
        return "".join(
            f"\x1b[?{mode}{'h' if on else 'l'}"
            for mode, on in self.modes.items()
            if on != (mode in _ON_AT_FIRST)
        )


def find_start(path: Path, last_clear_offset: int = 0, whole: int = 1 << 20) -> Start:
    """Recordings of up to `whole` bytes are replayed from their beginning, longer ones from their
    last clear, or from `whole` bytes before their end where that is nearer."""
    reader = CastReader(path)
    try:
        size, (cols, rows) = reader.size, reader.initial_size
    finally:
        reader.close()
    if size <= whole:
        return Start(0, cols, rows)
    descriptor = open_regular(path)
    try:
        floor = size - whole
        tail = os.pread(descriptor, whole, floor)
        found = _last_clear(tail)
        if found is not None:
            offset = floor + found
        elif floor <= last_clear_offset <= size:
            offset = last_clear_offset
        else:
            offset = floor + tail.find(b"\n") + 1
        behind = min(offset, _LOOK_BACK_BYTES)
        return _state(os.pread(descriptor, behind, offset - behind), offset, cols, rows)
    finally:
        os.close(descriptor)


def _last_clear(tail: bytes) -> int | None:
    """The beginning of the last line of output that clears the screen."""
    refused = len(tail)
    for match in reversed(list(_CLEARS.finditer(tail))):
        if match.start() >= refused:
            continue  # of the same line
        refused = begin = tail.rfind(b"\n", 0, match.start()) + 1
        end = tail.find(b"\n", match.end())
        if begin and end >= 0 and _is_output(tail[begin:end]):
            return begin
    return None


def _is_output(line: bytes) -> bool:
    try:
        event = json.loads(line)
    except ValueError:
        return False
    return isinstance(event, list) and len(event) == 3 and event[1] == "o"


def _state(before: bytes, offset: int, cols: int, rows: int) -> Start:
    for match in _RESIZE.finditer(before):
        cols, rows = int(match[1]), int(match[2])
    start = Start(offset, cols, rows)
    for match in _MODES.finditer(before):
        if match[3]:
            start.modes.clear()
        else:
            note_modes(start.modes, match[1].decode().split(";"), match[2] == b"h")
    return start


def note_modes(modes: dict[int, bool], numbers: Iterable[str], on: bool) -> None:
    """Keeps what viewers have to know of a DECSET (`on`) or DECRST."""
    for digits in numbers:
        mode = number(digits)
        if mode in _KEPT_MODES:
            modes.pop(mode, None)
            modes[mode] = on


def reset_modes(modes: dict[int, bool]) -> str:
    """What brings a terminal back from `modes` to the state of a fresh one."""
    return "".join(
        f"\x1b[?{mode}{'l' if on else 'h'}"
        for mode, on in reversed(modes.items())
        if on != (mode in _ON_AT_FIRST)
    )
