"""A terminal's output as lines of plain text, as a log to read or to search."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from pyplue.vt.cast import Event
from pyplue.vt.replay import ALTERNATE
from pyplue.vt.sequences import SEQUENCE, SequenceBuffer, number

# A line is given at its end; one without an end is given in pieces of this many characters.
_LONGEST_LINE = 1 << 20
# No terminal is wider: the cursor does not go further.
_WIDEST = 1000
# In longer lines nothing is moved or erased any more: it would take for ever.
_LONGEST_EDITED = 10_000
_SCREEN = re.compile(r"\x1b\[\?([0-9;]+)([hl])")


class Transcript:
    """Gives finished lines. Within a line, what was overwritten (progress bars, corrections) is
    left out, and so is all that full-screen programs show on the alternate screen."""

    def __init__(self) -> None:
        self._sequences = SequenceBuffer()
        # Of the unfinished line, and their length: to join them at every event would take for ever.
        self._pieces: list[str] = []
        self._length = 0
        self._alternate = False

    def feed(self, events: Iterable[Event]) -> Iterator[str]:
        """The lines that these events finish, without their ends."""
        for event in events:
            if event.code == "o":
                yield from self._output(event.data)
            elif event.code == "x":
                yield from self.flush()

    def flush(self) -> Iterator[str]:
        """The unfinished line, if there is one."""
        line = self._joined()
        if line:
            yield _edited(line)

    def _output(self, text: str) -> Iterator[str]:
        for shown in self._main_screen(self._sequences.feed(text)):
            *ends, rest = shown.split("\n")
            for end in ends:
                self._append(end)
                yield _edited(self._joined())
            self._append(rest)
        if self._length > _LONGEST_LINE:
            yield from self.flush()

    def _append(self, piece: str) -> None:
        self._pieces.append(piece)
        self._length += len(piece)

    def _joined(self) -> str:
        line = "".join(self._pieces)
        self._pieces.clear()
        self._length = 0
        return line

    def _main_screen(self, text: str) -> Iterator[str]:
        """`text` without what is painted on the alternate screen."""
        start = 0
        for match in _SCREEN.finditer(text):
            if not {number(n) for n in match[1].split(";")}.intersection(ALTERNATE):
                continue
            if not self._alternate:
                yield text[start : match.start()]
            self._alternate = match[2] == "h"
            start = match.end()
        if not self._alternate:
            yield text[start:]


_STYLE = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROL = re.compile("[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_PIECE = re.compile(rf"{SEQUENCE.pattern}|(?P<control>[\r\b])|(?P<text>[^\x1b\r\b]+)|.")


def _edited(line: str) -> str:
    """What is left of a line after carriage returns, backspaces and erasing."""
    line = _STYLE.sub("", line).rstrip("\r")
    if "\r" not in line and "\b" not in line and "\x1b" not in line:
        return _CONTROL.sub("", line)
    cells: list[str] = []
    at = 0
    for piece in _PIECE.finditer(line):
        if piece["control"]:
            at = 0 if piece["control"] == "\r" else max(0, at - 1)
        elif piece["text"]:
            text = _CONTROL.sub("", piece["text"])
            cells.extend(" " * (at - len(cells)))
            cells[at : at + len(text)] = text
            at += len(text)
        elif piece["csi"]:
            at = _edit(cells, at, piece["csi"])
    return "".join(cells).rstrip(" ")


def _edit(cells: list[str], at: int, csi: str) -> int:
    """Obeys what shells and progress bars use within a line; gives the new column."""
    given = number(csi[:-1]) if csi[:-1].isdecimal() else 0
    count = min(max(given, 1), _WIDEST)
    match csi[-1]:
        case "C":
            return max(at, min(at + count, _WIDEST))
        case "D":
            return max(0, at - count)
        case "G":
            return count - 1
    if len(cells) > _LONGEST_EDITED:
        return at
    match csi[-1]:
        case "K":
            if given in (0, 2):
                del cells[at:]
            if given in (1, 2):
                cells[:at] = " " * len(cells[:at])
        case "P":
            del cells[at : at + count]
        case "@":
            cells[at:at] = " " * count
            del cells[_LONGEST_EDITED:]
        case "X":
            cells[at : at + count] = " " * len(cells[at : at + count])
    return at
