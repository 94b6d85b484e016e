"""Reads a recording, asciicast v2, while it grows: whole lines only, from any line on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyplue.vt.control_dir import open_regular
from pyplue.vt.errors import CastError

_CHUNK_BYTES = 1 << 20
_LONGEST_LINE = 16 << 20
_BEGINNING_BYTES = 4096
# No recording is longer, in seconds: 30,000 years.
_LONGEST_S = 1e12
_SURROGATE = re.compile("[\ud800-\udfff]")
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")


class Event(NamedTuple):
    """One event of a recording. `code` is asciicast's:

    "o"  the program's output, `data` is its text
    "i"  what was typed
    "r"  the terminal was resized to `data`, such as "80x24"
    "m"  a marker with the label `data`
    "x"  the end: `data` is the exit code, such as "0"
    """

    # Seconds since the recording began.
    time: float
    code: str
    data: str

    @property
    def size(self) -> tuple[int, int] | None:
        """Columns and rows of a resize."""
        match = _SIZE.fullmatch(self.data) if self.code == "r" else None
        return (int(match[1]), int(match[2])) if match else None


class CastReader:
    """An open recording. `read` gives the events that are there and were not given yet."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        """Starts at the line that begins at or after `offset`, in bytes. Raises FileNotFoundError,
        SessionDataError for what is no regular file."""
        self.path = path
        self._descriptor = open_regular(path)
        # In bytes, what was read of the file; `_partial` is its end and has no end of line yet.
        self.position = offset
        self._partial = b""
        # The lines that were read and not looked at yet, where the next of them begins, and what is
        # wrong with the one before it.
        self._lines: Iterator[bytes] = iter(())
        self._offset = offset
        self._error: CastError | None = None
        self._skip_line = offset > 0 and os.pread(self._descriptor, 1, offset - 1) != b"\n"
        self._header: dict[str, Any] | None = None
        self._time = 0.0
        self._first = self.beginning()

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return os.fstat(self._descriptor).st_size

    @property
    def cut(self) -> int:
        """How many bytes at the end belong to a line that is not whole (so far)."""
        return len(self._partial)

    @property
    def replaced(self) -> bool:
        """Another session took its place: the file is shorter than what was read, or has another
        header."""
        now = self.beginning()
        self._first = self._first or now
        return self.size < self.position or now != self._first

    def beginning(self) -> bytes:
        """The header, or as much of it as tells recordings apart; empty when it is not there."""
        data = os.pread(self._descriptor, _BEGINNING_BYTES, 0)
        line, newline, _ = data.partition(b"\n")
        return line if newline or len(data) == _BEGINNING_BYTES else b""

    @property
    def header(self) -> dict[str, Any]:
        """The first line. Raises CastError when it is none, or is not there yet."""
        if self._header is None:
            first = os.pread(self._descriptor, _CHUNK_BYTES, 0)
            line, newline, _ = first.partition(b"\n")
            if not newline:
                raise CastError(f"{self.path} is empty or has no header: it is no recording (yet)")
            self._header = self._parse_header(line)
        return self._header

    @property
    def initial_size(self) -> tuple[int, int]:
        """Columns and rows of the header; 80x24 where it does not say."""
        sizes = self.header.get("width"), self.header.get("height")
        cols, rows = (n if isinstance(n, int) and n > 0 else 0 for n in sizes)
        return (cols, rows) if cols and rows else (80, 24)

    def read(self) -> list[Event]:
        """The next events, about a megabyte of them at a time; none when there are no more now.

        Raises CastError for a line that is no event; the next call goes on after that line.
        """
        while True:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if events := self._parse():
                return events
            if self._error is None and not self._fill():
                return []

    def _fill(self) -> bool:
        """Reads on in the file; False at its end."""
        data = os.pread(self._descriptor, _CHUNK_BYTES, self.position)
        self.position += len(data)
        whole, newline, rest = data.rpartition(b"\n")
        if newline:
            lines = (self._partial + whole).split(b"\n")
            self._offset = self.position - len(data) - len(self._partial)
            self._lines, self._partial = iter(lines), rest
        else:
            self._partial += data
            if len(self._partial) > _LONGEST_LINE:
                self._partial, self._skip_line = b"", True
                raise CastError(f"{self.path} has a line of over {_LONGEST_LINE} bytes")
        return bool(data)

    def __iter__(self) -> Iterator[Event]:
        """All events up to the end of the file as it is now."""
        while events := self.read():
            yield from events

    def _parse(self) -> list[Event]:
        """The events up to a line that is none: `_error` is about that one."""
        events = []
        for line in self._lines:
            begin, self._offset = self._offset, self._offset + len(line) + 1
            if self._skip_line:
                self._skip_line = False
            elif line and not line.startswith(b"{"):
                try:
                    events.append(self._event(line))
                except (ValueError, TypeError, OverflowError, RecursionError):
                    self._error = CastError(
                        f"{self.path} has a line at byte {begin} that is no asciicast event: "
                        f"{line[:60]!r}"
                    )
                    break
        return events

    def _event(self, line: bytes) -> Event:
        time, code, data = json.loads(line)
        if time == "exit":
            return Event(self._time, "x", str(int(code)))
        if not isinstance(code, str) or not isinstance(data, str) or not abs(time) < _LONGEST_S:
            raise ValueError
        if code == "x":  # the exit line's alone, whose data is a number
            raise ValueError
        if not data.isascii():
            data = _SURROGATE.sub("\ufffd", data)
        self._time = float(time)
        return Event(self._time, code, data)

    def _parse_header(self, line: bytes) -> dict[str, Any]:
        try:
            header = json.loads(line)
        except (ValueError, RecursionError):
            header = None
        if not isinstance(header, dict) or "version" not in header:
            raise CastError(f"{self.path} is no asciicast: its first line is {line[:60]!r}")
        if header["version"] != 2:
            raise CastError(
                f"{self.path} is asciicast version {header['version']!r:.20}; this reads version 2"
            )
        return header

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        if getattr(self, "_descriptor", -1) >= 0:
            self.close()
