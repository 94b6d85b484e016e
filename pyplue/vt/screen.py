"""The screen of a session as a person sees it, through the terminal emulator pyte.

pyte is at about the VT220. Of what today's programs use beyond that, emulator.py adds some, and
the rest is translated into sequences that it knows, or left out, here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pyplue.vt.cast import Event
from pyplue.vt.errors import MissingExtraError
from pyplue.vt.replay import ALTERNATE
from pyplue.vt.sequences import SEQUENCE, SequenceBuffer, number

# A recording may say anything; VibeTunnel's server allows up to these.
_MAX_COLS = _MAX_ROWS = 1000

# Private modes that pyte knows and that people's terminals obey.
_MODES = frozenset({5, 6, 7, 25, *ALTERNATE})
# Also one that another control character breaks off.
_SEQUENCE = re.compile(rf"{SEQUENCE.pattern}|\x1b(?:\[[0-?]*)?[ -/]*")
# Longer ones are nobody's; pyte would give up at their numbers.
_PLAIN_CSI = re.compile(r"[0-9;]{0,256}[@-~]")
_COLON_COLOUR = re.compile(r"([34]8):(?:(5):(\d+)|(2):(?:\d*:)?(\d+):(\d+):(\d+))[^;m]*")
_UNDERLINE_COLOUR = re.compile(r"(?<![0-9])58;(?:5;\d+|2;\d+;\d+;\d+);?")
# SO and SI choose characters for what follows, as sequences do.
_NOT_A_COLOUR = re.compile(r"[\x0e\x0f]|\x1b(?!\[[0-9;]*m)")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Screen:
    """A terminal of `cols` x `rows` that shows what it is fed."""

    def __init__(self, cols: int, rows: int) -> None:
        try:
            from pyplue.vt import emulator
        except ImportError as error:
            raise MissingExtraError("the screen needs pyte: pip install 'pyplue[vt]'") from error
        self._buffer = SequenceBuffer()
        self._width = emulator.wcwidth
        self._screen = emulator.Terminal(*_possible(cols, rows))
        self._stream = emulator.Stream(self._screen)

    @property
    def cols(self) -> int:
        return int(self._screen.columns)

    @property
    def rows(self) -> int:
        return int(self._screen.lines)

    @property
    def cursor(self) -> tuple[int, int]:
        """Column and row of the cursor, from 0."""
        return min(int(self._screen.cursor.x), self.cols - 1), int(self._screen.cursor.y)

    @property
    def lines(self) -> list[str]:
        """Every row, without spaces at its end."""
        buffer = self._screen.buffer
        return [self._row(buffer[y]) if y in buffer else "" for y in range(self.rows)]

    def text(self) -> str:
        """The rows, without empty ones at the end."""
        return "\n".join(self.lines).rstrip("\n")

    def cells(self) -> list[list[Any]]:
        """Every row's characters with their colours: pyte's `Char`."""
        blank = self._screen.default_char
        rows = [
            [self._screen.buffer[y].get(x, blank) for x in range(self.cols)]
            for y in range(self.rows)
        ]
        if not self._screen.reversed:
            return rows
        return [[cell._replace(reverse=not cell.reverse) for cell in row] for row in rows]

    def feed(self, text: str) -> None:
        """What the program wrote; sequences may be cut anywhere."""
        text = _SEQUENCE.sub(_for_pyte, self._buffer.feed(text))
        self._stream.feed(self._without_scrolled(text))

    def play(self, events: Iterable[Event]) -> None:
        """Output and resizes of a recording."""
        output: list[str] = []
        for event in events:
            if event.code == "o":
                output.append(event.data)
            elif size := event.size:
                self.feed("".join(output))
                output.clear()
                self.resize(*size)
        self.feed("".join(output))

    def resize(self, cols: int, rows: int) -> None:
        cols, rows = _possible(cols, rows)
        self._screen.resize(rows, cols)

    def _row(self, line: Any) -> str:
        if not line:
            return ""
        text = []
        # pyte keeps what was pushed out at the right.
        x, end = 0, min(max(line) + 1, self.cols)
        while x < end:
            data = line[x].data or " "
            text.append(data)
            x += 2 if self._width(data[0]) == 2 else 1
        return "".join(text).rstrip(" ")

    def _without_scrolled(self, text: str) -> str:
        """Leaves out lines that only scroll through: pyte takes a second for each megabyte."""
        screen = self._screen
        if screen.margins is not None or text.count("\n") < 2 * screen.lines:
            return text
        begin = 0
        for other in _NOT_A_COLOUR.finditer(text):
            sequence = SEQUENCE.match(text, other.start())
            begin = sequence.end() if sequence else other.end()
        cut = len(text)
        for _ in range(screen.lines + 2):
            cut = text.rfind("\n", begin, cut)
            if cut < 0:
                return text
        if text[cut - 1 : cut] != "\r" or cut - 1 < begin:
            return text
        self._stream.feed(text[:begin])
        if screen.margins is not None:
            return text[begin:]
        colours = "".join(_COLOUR.findall(text, begin, cut)[-64:])
        return colours + "\n" * screen.lines + "\r" + text[cut + 1 :]


def _possible(cols: int, rows: int) -> tuple[int, int]:
    return min(max(cols, 1), _MAX_COLS), min(max(rows, 1), _MAX_ROWS)


def _for_pyte(match: re.Match[str]) -> str:
    """A sequence in the form that pyte knows; "" for one that does not change its screen."""
    csi = match["csi"]
    if csi is not None:
        if csi[-1] == "m":
            return _colour(csi)
        if csi[0] == "?":
            return _private(csi)
        return match[0] if _PLAIN_CSI.fullmatch(csi) else ""
    escape = match["escape"]
    if escape == "E":
        return "\r\n"
    known = escape is not None and (escape in "cDMH78" or escape in ("(0", "(B", ")0", ")B", "#8"))
    return match[0] if known else ""


def _private(csi: str) -> str:
    if csi[-1] in "JK":
        return f"\x1b[{csi[1:]}"
    numbers = csi[1:-1].split(";")
    if csi[-1] not in "hl" or not all(digits.isdecimal() for digits in numbers):
        return ""
    known = [digits for digits in numbers if number(digits) in _MODES]
    return f"\x1b[?{';'.join(known)}{csi[-1]}" if known else ""


def _colour(csi: str) -> str:
    """SGR with colons becomes SGR with semicolons; the colour of underlines is left out."""
    if ":" in csi:
        csi = _COLON_COLOUR.sub(
            lambda m: ";".join(part for part in m.groups() if part is not None), csi
        )
        csi = re.sub(r"\b4:0\b", "24", csi)
        csi = re.sub(r"\b4:\d+\b", "4", csi)
    if "58" in csi:
        csi = _UNDERLINE_COLOUR.sub("", csi)
    return f"\x1b[{csi}" if _PLAIN_CSI.fullmatch(csi) else ""
