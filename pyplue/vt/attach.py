"""A live view of a session on the person's terminal, with their keyboard."""

from __future__ import annotations

import contextlib
import os
import re
import select
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pyplue.vt import frames
from pyplue.vt.cast import CastReader, Event
from pyplue.vt.connection import Connection
from pyplue.vt.errors import CastError, SessionUnreachableError, VtError
from pyplue.vt.keys import key_bytes
from pyplue.vt.outer_terminal import OuterTerminal
from pyplue.vt.replay import find_start
from pyplue.vt.sequences import SequenceBuffer, without_queries
from pyplue.vt.session import Session

DETACH_KEY = "ctrl+\\"

# How much of a long recording is shown again, at most.
_REPLAY_BYTES = 512 << 10
# How often the recording is looked at: while something comes, and later.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.003, 0.03
# Between the two changes of the size: long enough for the program to see both.
_REPAINT_S = 0.06
# The exit line follows the end of the connection at once.
_EXIT_LINE_S = 1.0
# What was typed and not taken by the session: with more than this, the keyboard has to wait.
_MOST_WAITING_BYTES = 16 << 20
# Whoever leaves waits this long for the session to take it.
_LEAVE_S = 1.0


@dataclass(frozen=True)
class Ended:
    """How a view came to its end: `exit_code` is None when the person left a running session."""

    exit_code: int | None


def attach(session: Session, *, detach_key: str = DETACH_KEY, read_only: bool = False) -> Ended:
    """Shows `session` on this process's terminal until the detach key is typed or it ends.

    The screen is there at once, however long the recording is; then a change of the size makes the
    program paint it anew. The session gets this terminal's size, and goes back to the size of the
    terminal that it was started on. What is typed waits for a program that does not read, and the
    view goes on meanwhile. With `read_only` nothing is typed and no size is changed.

    Only on the main thread, with a terminal at standard input and output. Raises what
    `Session.send` raises; the terminal is as it was on every way out, also on SIGTERM, SIGHUP and
    exceptions.
    """
    detach = _DetachKey(detach_key)
    connection = session.connect()
    try:
        return _View(session, connection, detach, read_only).run()
    finally:
        connection.close()


class _DetachKey:
    """Ctrl and another key, as a byte and as terminals say it in their newer protocols."""

    def __init__(self, name: str) -> None:
        typed = key_bytes(name)
        if len(typed) != 1 or typed[0] >= 0x20:
            raise ValueError(f"{name!r} cannot be the detach key: use ctrl and another key")
        code = ord(chr(typed[0] | 0x40).lower())
        self._pattern = re.compile(
            rb"%b|\x1b\[%d(?::\d*)*;5(?::1)?u|\x1b\[27;5;%d~" % (re.escape(typed), code, code)
        )

    def split(self, typed: bytes) -> tuple[bytes, bool]:
        """What comes before the key, and whether it is there."""
        match = self._pattern.search(typed)
        return (typed[: match.start()], True) if match else (typed, False)


class _View:
    def __init__(
        self, session: Session, connection: Connection, detach: _DetachKey, read_only: bool
    ) -> None:
        self._session = session
        self._connection = connection
        self._detach = detach
        self._read_only = read_only
        # Frames, the first of them perhaps cut, that the session has not taken yet.
        self._waiting = bytearray()
        self._start = find_start(
            session.cast_path, session.info.last_clear_offset, whole=_REPLAY_BYTES
        )
        self._reader = CastReader(session.cast_path, self._start.offset)
        self._exit_code: int | None = None
        self._repaint_at: float | None = None
        self._hung_up_at: float | None = None

    def run(self) -> Ended:
        try:
            with OuterTerminal() as outer:
                self._replay(outer)
                self._repaint(outer)
                self._follow(outer)
            return Ended(self._exit_code)
        finally:
            self._reader.close()
            self._leave()

    # ---- output ----

    def _replay(self, outer: OuterTerminal) -> None:
        outer.write("\x1b[H\x1b[2J" + self._start.restore())
        sequences = SequenceBuffer()
        while text := self._output():
            outer.write(without_queries(sequences.feed(text)))
            if self._exit_code is not None:
                break

    def _output(self) -> str:
        """What the recording has got since the last call."""
        pieces = []
        for event in self._events():
            if event.code == "o":
                pieces.append(event.data)
            elif event.code == "x":
                self._exit_code = int(event.data)
        return "".join(pieces)

    def _events(self) -> Iterator[Event]:
        while True:
            try:
                yield from self._reader.read()
            except CastError:
                continue  # a line that is no event shows nothing
            return

    # ---- the loop ----

    def _follow(self, outer: OuterTerminal) -> None:
        pause = _SHORTEST_PAUSE_S
        while self._exit_code is None:
            keyboard = [outer.stdin] if len(self._waiting) < _MOST_WAITING_BYTES else []
            session = [self._connection] if self._waiting else []
            # Not poll(), which macOS has for some terminals only.
            ready, writable, _ = select.select([*keyboard, outer.fileno()], session, [], pause)
            if ready or writable:
                pause = _SHORTEST_PAUSE_S
            if writable:
                self._send_waiting()
            if outer.stdin in ready and not self._typed(outer):
                return
            outer.signals()
            if outer.resized:
                self._follow_size(outer)
            self._finish_repaint(outer)
            if text := self._output():
                outer.write(text)
                pause = _SHORTEST_PAUSE_S
            elif self._is_over():
                return
            else:
                pause = min(pause * 1.3, _LONGEST_PAUSE_S)

    def _typed(self, outer: OuterTerminal) -> bool:
        """Passes on what was typed; False when that is the end."""
        try:
            data = os.read(outer.stdin, 65536)
        except OSError:
            return False  # the terminal is gone
        typed, detached = self._detach.split(data)
        if typed and not self._read_only:
            self._tell(*frames.typed(typed))
        return bool(data) and not detached

    def _tell(self, *messages: bytes) -> None:
        """Sends what the session takes now; the rest is sent by the loop."""
        self._waiting += b"".join(messages)
        self._send_waiting()

    def _send_waiting(self) -> None:
        try:
            while self._waiting and (sent := self._connection.send_some(self._waiting)):
                del self._waiting[:sent]
        except SessionUnreachableError:
            # When it ends, `_is_over` notices, after the last output.
            self._waiting.clear()

    def _is_over(self) -> bool:
        """The session hung up and its recording does not get an exit line."""
        if not self._connection.hung_up:
            return False
        now = time.monotonic()
        if self._hung_up_at is None:
            self._hung_up_at = now
        return now - self._hung_up_at > _EXIT_LINE_S

    # ---- the size ----

    def _repaint(self, outer: OuterTerminal) -> None:
        """Makes the program paint its screen: another size, and then the terminal's own."""
        if self._read_only:
            return
        cols, rows = outer.size()
        smaller = (cols, rows - 1) if rows > 1 else (max(cols - 1, 1), rows)
        self._resize(*smaller)
        self._repaint_at = time.monotonic() + _REPAINT_S

    def _finish_repaint(self, outer: OuterTerminal) -> None:
        if self._repaint_at is not None and time.monotonic() >= self._repaint_at:
            self._repaint_at = None
            self._resize(*outer.size())

    def _follow_size(self, outer: OuterTerminal) -> None:
        outer.resized = False
        if outer.continued:
            outer.continued = False
            self._repaint(outer)
        elif not self._read_only:
            self._resize(*outer.size())

    def _resize(self, cols: int, rows: int) -> None:
        self._tell(frames.control("resize", cols=cols, rows=rows))

    def _leave(self) -> None:
        """Passes on what was typed before, and gives the size back."""
        if self._read_only or self._exit_code is not None:
            return
        # What a program does not read, nobody gets.
        with contextlib.suppress(VtError):
            self._connection.send([bytes(self._waiting)], _LEAVE_S)
        self._connection.close()
        # On a new connection: the old one may have stopped within a frame, or before a program that
        # does not read. When this one takes nothing either, the next viewer sets its own size.
        with contextlib.suppress(VtError), self._session.connect() as connection:
            connection.send([frames.control("reset-size")], _LEAVE_S)
