"""Records what this process writes to standard output and standard error."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pty
import select
import struct
import sys
import termios
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pyplue import ffi
from pyplue.vt.errors import CastError

if TYPE_CHECKING:
    from typing_extensions import Self

# VT_FWD_NOW of the header: the library's own clock.
_NOW = 2**64 - 1
# A background process may keep the terminal open: the end of the block waits this long for it.
_QUIET_MS = 50
# One that goes on writing is not waited for: whatever was written in the block comes before this
# much time has passed in waiting for it, and is among this many bytes. No terminal holds more.
_LONGEST_S = 0.5
_LONGEST_BYTES = 1 << 20


class BlockRecording:
    """Made by `record`; use it in a `with` block."""

    def __init__(self, path: Path, cols: int, rows: int, title: str | None, echo: bool) -> None:
        for number in (cols, rows):
            if not 1 <= number <= 65535:
                raise ValueError(f"a terminal has 1 to 65535 columns and rows, not {number}")
        self.path = path
        self._size = cols, rows
        self._title = title
        self._echo = echo
        self._cast = 0
        self._failed: CastError | None = None
        self._ending = threading.Event()

    def marker(self, label: str) -> None:
        """Marks this moment; players list and jump to markers."""
        self._check(ffi.vt.vt_fwd_cast_marker(self._cast, _NOW, _c_string(label)))

    def __enter__(self) -> Self:
        cols, rows = self._size
        title = None if self._title is None else _c_string(self._title)
        self._cast = ffi.vt.vt_fwd_cast_create(
            os.fsencode(self.path), cols, rows, int(time.time()), None, title, 0
        )
        if not self._cast:
            raise _last_error(self.path)
        try:
            self._redirect()
        except OSError:
            ffi.vt.vt_fwd_cast_end(self._cast, _NOW, 0, None)
            raise
        self._ending.clear()
        self._thread = threading.Thread(target=self._copy, name="pyplue-vt-record", daemon=True)
        self._thread.start()
        return self

    def _redirect(self) -> None:
        """Puts a terminal in the place of standard output and standard error."""
        cols, rows = self._size
        self._master, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))
        self._streams = sys.stdout, sys.stderr
        _flush(*self._streams)
        self._saved = os.dup(1), os.dup(2)
        os.dup2(terminal, 1)
        os.dup2(terminal, 2)
        os.close(terminal)
        # They may not be what descriptor 1 and 2 are, for example under pytest.
        sys.stdout, sys.stderr = _text(1), _text(2)

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        _flush(sys.stdout, sys.stderr)
        sys.stdout, sys.stderr = self._streams
        for number, saved in zip((1, 2), self._saved, strict=True):
            os.dup2(saved, number)
        self._ending.set()
        self._thread.join()
        os.close(self._master)
        for saved in self._saved:
            os.close(saved)
        self._check(ffi.vt.vt_fwd_cast_end(self._cast, _NOW, 0, None))
        self._cast = 0
        if self._failed is not None and kind is None:
            raise self._failed

    def _copy(self) -> None:
        """On a thread of its own: from the terminal to the recording and to the old output."""
        echo = _Echo(self._saved[0]) if self._echo else None
        poll = select.poll()
        poll.register(self._master, select.POLLIN)
        waited, afterwards = 0.0, 0
        while True:
            ending = self._ending.is_set()
            begin = time.monotonic()
            ready = poll.poll(_QUIET_MS)
            if ending:
                # Not the time that the old output takes: it may be slow, and misses nothing.
                waited += time.monotonic() - begin
                if not ready or waited > _LONGEST_S or afterwards > _LONGEST_BYTES:
                    return
            elif not ready:
                continue
            try:
                data = os.read(self._master, 65536)
            except OSError:  # EIO: nobody has the terminal open any more
                return
            if not data:
                return
            afterwards += len(data) if ending else 0
            self._check(ffi.vt.vt_fwd_cast_output(self._cast, _NOW, data, len(data)))
            if echo is not None:
                echo.write(data)

    def _check(self, code: int) -> None:
        if code != 0 and self._failed is None:
            self._failed = _last_error(self.path)


class _Echo:
    """The old standard output: a terminal as it is, anything else without the terminal's \\r."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_terminal = os.isatty(descriptor)
        self._held = b""

    def write(self, data: bytes) -> None:
        if not self._is_terminal:
            data = self._held + data
            self._held = b"\r" if data.endswith(b"\r") else b""
            data = data.removesuffix(b"\r").replace(b"\r\n", b"\n")
        rest = memoryview(data)
        with contextlib.suppress(OSError):  # who does not want it misses nothing of the recording
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def _text(descriptor: int) -> TextIO:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", "replace", line_buffering=True)


def _flush(*streams: TextIO | None) -> None:
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()


def _c_string(text: str) -> bytes:
    if "\0" in text:
        raise ValueError("a title or marker has no NUL character")
    return text.encode("utf-8", "replace")


def _last_error(path: Path) -> CastError:
    message = ffi.vt.vt_fwd_last_message().decode(errors="replace")
    return CastError(f"{path} cannot be recorded to: {message}")
