"""The person's own terminal while a session is shown on it: raw, and as it was on every way out."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import termios
import tty
from types import FrameType
from typing import TYPE_CHECKING, Any

from pyplue.vt.replay import note_modes, reset_modes
from pyplue.vt.sequences import SEQUENCE, SequenceBuffer

if TYPE_CHECKING:
    from typing_extensions import Self

# What a program may leave behind besides private modes, and what takes it back.
_LEFT_BEHIND = [
    (re.compile(r"\x1b="), "\x1b>"),  # keypad
    (re.compile(r"\x1b\[[>=][0-9;]*u"), "\x1b[<99u\x1b[=0u"),  # kitty's keyboard protocol
    (re.compile(r"\x1b\[>4;[0-9]+m"), "\x1b[>4;0m"),  # xterm's modifyOtherKeys
    (re.compile(r"\x1b\[[0-9]* q"), "\x1b[0 q"),  # the cursor's form
]
# Colours, character sets and the scroll region need no watching: setting them back is harmless.
# Then a line of its own for what comes next.
_ALWAYS = "\x1b[0m\x0f\x1b(B\x1b7\x1b[r\x1b8\r\n\x1b[J"

_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


class OuterTerminal:
    """Use it in a `with` block on the main thread. SIGTERM and its like become SystemExit there."""

    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        self.stdin = stdin
        self._stdout = stdout
        self._saved_modes: list[Any] = []
        self._saved_handlers: dict[signal.Signals, Any] = {}
        self._sequences = SequenceBuffer()
        self._modes: dict[int, bool] = {}
        self._left_behind: dict[str, None] = {}
        self._wake_read, self._wake_write = -1, -1
        self._is_ending = False
        # Set by signals, cleared by who looks: the size may be another one; we were stopped.
        self.resized = False
        self.continued = False

    def __enter__(self) -> Self:
        self._saved_modes = termios.tcgetattr(self.stdin)
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        handlers = dict.fromkeys(_ENDING, self._end)
        handlers[signal.SIGWINCH] = handlers[signal.SIGCONT] = self._note
        for number, handler in handlers.items():
            self._saved_handlers[number] = signal.signal(number, handler)
        try:
            tty.setraw(self.stdin, termios.TCSANOW)
        except BaseException:  # a signal's SystemExit, too
            self._restore()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def fileno(self) -> int:
        """Readable when a signal came."""
        return self._wake_read

    def size(self) -> tuple[int, int]:
        """Columns and rows; 80x24 when the terminal does not know."""
        try:
            size = os.get_terminal_size(self._stdout)
        except OSError:
            return 80, 24
        return (size.columns, size.lines) if size.columns and size.lines else (80, 24)

    def signals(self) -> None:
        """After `fileno` was readable. A shell that stopped us has set the modes to its own."""
        try:
            while os.read(self._wake_read, 64):
                pass
        except BlockingIOError:
            pass
        if self.continued:
            tty.setraw(self.stdin, termios.TCSANOW)

    def write(self, text: str) -> None:
        """Shows a program's output and remembers what has to be taken back at the end."""
        whole = self._sequences.feed(text)
        if "\x1b" in whole:
            self._note_left_behind(whole)
        self._write(text)

    def _note_left_behind(self, text: str) -> None:
        for match in SEQUENCE.finditer(text):
            csi = match["csi"]
            if csi and csi[0] == "?" and csi[-1] in "hl":
                numbers = csi[1:-1].split(";")
                if all(number.isdecimal() for number in numbers):
                    note_modes(self._modes, numbers, csi[-1] == "h")
            elif csi or match["escape"]:
                for pattern, back in _LEFT_BEHIND:
                    if pattern.fullmatch(match[0]):
                        self._left_behind[back] = None

    def _write(self, text: str) -> None:
        rest = memoryview(text.encode("utf-8", "replace"))
        while rest:
            try:
                rest = rest[os.write(self._stdout, rest) :]
            except BlockingIOError:  # somebody who shares it has made it so
                poll = select.poll()
                poll.register(self._stdout, select.POLLOUT)
                poll.poll(1000)

    def _restore(self) -> None:
        # The modes first: a second signal, or output that blocks, must not keep them.
        for number in self._saved_handlers:
            signal.signal(number, signal.SIG_IGN)
        self._restore_modes()
        for number, handler in self._saved_handlers.items():
            signal.signal(number, handler)
        self._saved_handlers.clear()
        try:
            self._write(reset_modes(self._modes) + "".join(self._left_behind) + _ALWAYS)
        except OSError:
            pass  # the terminal is gone, and its modes with it
        finally:
            with contextlib.suppress(termios.error):  # as above
                # What the terminal answered to the program is not for the shell.
                termios.tcflush(self.stdin, termios.TCIFLUSH)
            for end in (self._wake_read, self._wake_write):
                os.close(end)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGCONT:
            self.continued = True
        self.resized = True
        with contextlib.suppress(BlockingIOError):  # it is full: whoever waits is awake
            os.write(self._wake_write, b"\0")

    def _restore_modes(self) -> None:
        with contextlib.suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(self.stdin, termios.TCSANOW, self._saved_modes)

    def _end(self, number: int, _frame: FrameType | None) -> None:
        # A signal may come at any line, also on the way to `_restore` and in it: the first one has
        # set the modes back before anything else can go wrong, and the others change nothing.
        if not self._is_ending:
            self._is_ending = True
            self._restore_modes()
            raise SystemExit(128 + number)
