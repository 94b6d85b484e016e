"""`Session`: a terminal session on this machine, whoever started it."""

from __future__ import annotations

import contextlib
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from operator import index
from pathlib import Path
from signal import NSIG, Signals
from typing import overload

from pyplue.processes import is_alive
from pyplue.vt import frames
from pyplue.vt.cast import CastReader, Event
from pyplue.vt.connection import Connection
from pyplue.vt.control_dir import StrPath, control_dir, open_regular, session_dir
from pyplue.vt.errors import (
    CastError,
    SessionDataError,
    SessionExitedError,
    SessionLostError,
    SessionNotFoundError,
    SessionUnreachableError,
    VtError,
    WaitTimeoutError,
)
from pyplue.vt.events import Events
from pyplue.vt.executable import forwarder
from pyplue.vt.info import SessionInfo, read_info
from pyplue.vt.keys import key_bytes
from pyplue.vt.replay import find_start
from pyplue.vt.screen import Screen

_FIRST_LOOK_S, _LAST_LOOK_S = 0.001, 0.03
# How long the exit line may follow "exited" in session.json.
_EXIT_LINE_S = 1.0
_END_BYTES = 512
# A session whose process has gone, and whose forwarder does not say how, is lost after this.
_LOST_S = 1.0


class Session:
    """A session; made by `spawn`, `sessions` and `Session.open`.

    The object holds nothing open and owns nothing: the session goes on without it. `send` and its
    like connect to the session's socket, and return when the session has done what was asked, or
    after two seconds, when it has that before it and its program does not read. They raise
    SessionExitedError after its end and SessionUnreachableError (both ConnectionErrors) when nobody
    listens there.
    """

    def __init__(self, root: Path, session_id: str) -> None:
        self.id = session_id
        self.path = session_dir(root, session_id)
        self._screen: _LiveScreen | None = None
        self._lock = threading.Lock()
        self._pid: int | None = None

    @classmethod
    def open(cls, session_id: str, *, control_dir: StrPath | None = None) -> Session:
        """The session with this id, running or not. Raises SessionNotFoundError (a LookupError),
        InvalidSessionIdError and SessionDataError (ValueErrors)."""
        session = cls(_root(control_dir), session_id)
        session._pid = session.info.pid
        return session

    def __repr__(self) -> str:
        return f"<pyplue.vt.Session {self.id}>"

    # ---- what is known of it ----

    @property
    def info(self) -> SessionInfo:
        """What session.json says now."""
        info = read_info(self.path)
        self._pid = info.pid or self._pid
        return info

    @property
    def exit_code(self) -> int | None:
        """The program's exit code, 128 + n when signal n ended it; None while it runs, and when
        the forwarder was killed and nobody knows."""
        return self.info.exit_code

    @property
    def cast_path(self) -> Path:
        """The recording, an asciicast v2 that grows: `asciinema play` plays it."""
        return self.path / "stdout"

    # ---- input ----

    def send(
        self, data: str | bytes = b"", *, key: str | Iterable[str] = (), timeout: float = 10.0
    ) -> None:
        """Types `data`, then the named keys: "enter", "ctrl+c", "arrow_up", see pyplue.vt.KEYS.

        Raises ValueError for a name that is no key, WaitTimeoutError (a TimeoutError) when the
        program does not read its input for `timeout` seconds.
        """
        keys = (key,) if isinstance(key, str) else key
        typed = data.encode() if isinstance(data, str) else bytes(data)
        typed += b"".join(key_bytes(name) for name in keys)
        if typed:
            self._tell(frames.typed(typed), timeout)

    def resize(self, cols: int, rows: int) -> None:
        """Gives the terminal another size, 1 to 65535 each; the program gets SIGWINCH."""
        cols, rows = int(index(cols)), int(index(rows))
        for number in (cols, rows):
            if not 1 <= number <= 65535:
                raise ValueError(f"a terminal has 1 to 65535 columns and rows, not {number}")
        self._tell([frames.control("resize", cols=cols, rows=rows)])

    def reset_size(self) -> None:
        """Gives it the size of the terminal that the session was started on, if there is one."""
        self._tell([frames.control("reset-size")])

    def kill(self, signal: int | str = "SIGTERM") -> None:
        """Sends a signal to the program's process group; does not wait, see `wait`. Raises
        ValueError for what is neither a name ("SIGTERM", "term") nor a number that this system
        has: 1 to 64, on macOS to 31."""
        self._tell([frames.control("kill", signal=_signal(signal))])

    def rename(self, name: str) -> None:
        """Gives the session another name; it loses control characters and what is beyond 256."""
        if "\0" in name:
            raise ValueError("a name has no NUL character")
        done = subprocess.run(
            [forwarder(), "--session-id", self.id, "--update-title", name],
            env={**os.environ, "VIBETUNNEL_CONTROL_DIR": str(self.path.parent)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            _ = self.info  # says it better when the session is gone
            message = done.stderr.decode(errors="replace").strip().removeprefix("[ERROR] ")
            raise SessionDataError(message or "vibetunnel-fwd failed")

    def connect(self) -> Connection:
        """A connection to the session's socket; see the class for what is raised."""
        try:
            return Connection(self.path / "ipc.sock")
        except SessionUnreachableError:
            if not self.info.running:
                raise self._exited() from None
            raise

    def _tell(self, messages: Iterable[bytes], timeout: float = 10.0) -> None:
        with self.connect() as connection:
            connection.send(messages, timeout)
            # Other forwarders than ours need not hang up: what was sent has arrived all the same.
            connection.finish(min(timeout, 2.0))

    def _exited(self) -> SessionExitedError:
        code = self.exit_code
        how = "its forwarder was killed" if code is None else f"with exit code {code}"
        return SessionExitedError(f"session {self.id} has ended ({how}): start another one")

    # ---- output ----

    def events(self, follow: bool = True, *, offset: int = 0) -> Events:
        """The recording's events from the line at byte `offset` on, and with `follow` those to
        come: an iterator and an async iterator. Raises CastError when there is no recording."""
        with self._recording():
            return Events(self.cast_path, follow, self._is_over, offset)

    def text(self) -> str:
        """The screen as a person sees it now, rows without spaces at their end; needs pyte.

        Of a long recording, what came before the last clear is not looked at, nor what is more
        than 1 MiB back.
        """
        return self.screen().text()

    def screen(self) -> Screen:
        """The screen now, with its size, cursor and colours; it does not change any more when the
        session goes on, until this is called again."""
        with self._lock, self._recording():
            if self._screen is None or self._screen.replaced:
                self._screen = _LiveScreen(self.cast_path, self.info.last_clear_offset)
            self._screen.update()
            return self._screen.screen

    @contextlib.contextmanager
    def _recording(self) -> Iterator[None]:
        """Says what it means when the file is not there."""
        try:
            yield
        except FileNotFoundError:
            _ = self.info  # the session may be gone as a whole
            raise CastError(f"{self.cast_path} is missing: the session has no recording") from None

    def _is_over(self) -> bool:
        try:
            return not self.info.running
        except (SessionNotFoundError, SessionDataError):
            # Somebody removed the directory; the session may go on.
            return self._pid is None or not is_alive(self._pid)

    # ---- waiting ----

    @overload
    def wait(self, *, timeout: float | None = None) -> int: ...
    @overload
    def wait(self, wanted: str, *, timeout: float | None = None) -> str: ...
    @overload
    def wait(self, wanted: re.Pattern[str], *, timeout: float | None = None) -> re.Match[str]: ...
    @overload
    def wait(self, *, quiet: float, timeout: float | None = None) -> str: ...

    def wait(
        self,
        wanted: str | re.Pattern[str] | None = None,
        *,
        quiet: float | None = None,
        timeout: float | None = None,
    ) -> int | str | re.Match[str]:
        """Waits for the end, for something on the screen, or for silence; in seconds.

            code = session.wait()                     # the program has ended; its exit code
            text = session.wait("Password:")          # the text is on the screen; the screen
            match = session.wait(re.compile("(\\\\d+)%"))
            text = session.wait(quiet=0.5)            # no output for half a second; the screen

        The screen is looked at every 30 ms or sooner: what scrolls by faster is in `events` only.

        Raises WaitTimeoutError (a TimeoutError), which shows the screen; SessionExitedError when
        the session ends before the text is there; SessionLostError when its forwarder was killed.
        """
        for seconds in (timeout, quiet):
            if seconds is not None and math.isnan(seconds):
                raise ValueError("seconds are a number, not NaN")
        end = None if timeout is None else time.monotonic() + timeout
        if wanted is not None:
            return self._wait_screen(wanted, end)
        if quiet is not None:
            return self._wait_quiet(quiet, end)
        return self._wait_exit(end)

    def _wait_exit(self, end: float | None) -> int:
        gone_since: float | None = None
        for _ in self._looks(end, lambda: f"the end of session {self.id}"):
            info = self.info
            if info.exit_code is not None:
                self._wait_exit_line()
                return info.exit_code
            if not info.running:
                # VibeTunnel's server says how it ended a moment after the process has gone.
                gone_since = gone_since or time.monotonic()
                if time.monotonic() - gone_since > _LOST_S:
                    break
        raise SessionLostError(
            f"the forwarder of session {self.id} was killed: nobody knows the exit code"
        )

    def _wait_screen(self, wanted: str | re.Pattern[str], end: float | None) -> str | re.Match[str]:
        pattern = wanted if isinstance(wanted, re.Pattern) else re.compile(re.escape(wanted))
        for _ in self._looks(end, lambda: f"{pattern.pattern!r} on the screen"):
            over = self._is_over()
            text = self.text()
            if match := pattern.search(text):
                return text if isinstance(wanted, str) else match
            if over and not self._exit_line_is_due():
                raise SessionExitedError(
                    f"session {self.id} ended without {pattern.pattern!r} on its screen:\n"
                    f"{_frame(text)}"
                )
        raise AssertionError("unreachable")

    def _wait_quiet(self, quiet: float, end: float | None) -> str:
        size, since = -1, time.monotonic()
        for _ in self._looks(end, lambda: f"{quiet:g} s without output"):
            now, before = time.monotonic(), size
            with self._recording():
                size = self.cast_path.stat().st_size
            if size != before:
                since = now
            elif now - since >= quiet:
                break
        return self.text()

    def _looks(self, end: float | None, what: Callable[[], str]) -> Iterator[None]:
        """Yields until `end`, more and more seldom, then raises WaitTimeoutError."""
        pause = _FIRST_LOOK_S
        while True:
            yield
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise WaitTimeoutError(f"waited in vain for {what()}\n{_frame(self._shown())}")
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.3, _LAST_LOOK_S)

    def _shown(self) -> str:
        """The screen for a message: whatever is wrong with it is not the message's subject."""
        try:
            return self.text()
        except (VtError, OSError) as error:
            return f"(no screen: {error})"

    def _exit_line_is_due(self) -> bool:
        """The session has ended, but its recording has no exit line yet."""
        self._wait_exit_line()
        return self._screen is not None and self._screen.behind

    def _wait_exit_line(self) -> None:
        """The recording is complete when this returns; it follows session.json at once."""
        give_up = time.monotonic() + _EXIT_LINE_S
        while time.monotonic() < give_up:
            try:
                descriptor = open_regular(self.cast_path)
            except (FileNotFoundError, SessionDataError):
                return  # what is no recording gets no exit line
            try:
                end = os.fstat(descriptor).st_size
                data = os.pread(descriptor, _END_BYTES, max(0, end - _END_BYTES))
            finally:
                os.close(descriptor)
            last = data.rstrip(b"\n").rpartition(b"\n")[2]
            if last.startswith(b'["exit"'):
                return
            time.sleep(0.005)


class _LiveScreen:
    """A screen, and how much of a recording it has shown."""

    def __init__(self, path: Path, last_clear_offset: int) -> None:
        start = find_start(path, last_clear_offset)
        self.screen = Screen(start.cols, start.rows)
        self.screen.feed(start.restore())
        self._path = path
        self._position = start.offset
        self._beginning = b""

    @property
    def replaced(self) -> bool:
        """The recording is shorter than it was, or has another header: it is another session's."""
        with contextlib.closing(CastReader(self._path)) as reader:
            return reader.size < self._position or reader.beginning() != self._beginning

    @property
    def behind(self) -> bool:
        return self._path.stat().st_size > self._position

    def update(self) -> None:
        reader = CastReader(self._path, self._position)
        try:
            while True:
                try:
                    events: list[Event] = reader.read()
                except CastError:
                    continue  # a line that is no event shows nothing
                if not events:
                    break
                self.screen.play(events)
            self._position = reader.position - reader.cut
            self._beginning = reader.beginning()
        finally:
            reader.close()


def sessions(*, control_dir: StrPath | None = None) -> list[Session]:
    """All sessions, the oldest first. What is no session, or has no valid session.json, is left
    out, as VibeTunnel's server does."""
    root = _root(control_dir)
    found: list[tuple[str, Session]] = []
    try:
        names = os.listdir(root)
    except FileNotFoundError:
        return []
    for name in names:
        try:
            session = Session.open(name, control_dir=root)
            started = session.info.started_at
        except (VtError, OSError):
            continue
        found.append((f"{started.isoformat() if started else ''} {name}", session))
    return [session for _, session in sorted(found, key=lambda pair: pair[0])]


def _signal(signal: int | str) -> int | str:
    """As every forwarder knows it; they ignore what they do not know."""
    if isinstance(signal, str):
        name = f"SIG{signal.upper().removeprefix('SIG')}"
        if name in Signals.__members__:
            return name
    elif 1 <= signal < NSIG:
        return int(signal)
    raise ValueError(
        f"{signal!r} is no signal: use a name such as SIGTERM, or a number to {NSIG - 1}"
    )


# The parameters have the function's name.
_root = control_dir


def _frame(text: str) -> str:
    """A screen in an error message."""
    rule = "-" * max((len(line) for line in text.split("\n")), default=0)
    return f"the screen:\n{rule}\n{text}\n{rule}"
