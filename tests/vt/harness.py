"""Runs vibetunnel-fwd as its users do: on a terminal or without one, watched from the outside.

`Home` is a home directory with a control directory of its own, `Process` a forwarder with pipes,
`Terminal` one on a terminal that the test plays, `Client` a peer on its socket, and `Recording`
the strict reader of what it recorded.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STDIN_DATA, CONTROL, STATUS, HEARTBEAT, ERROR = 1, 2, 3, 4, 5
PULSE = b"\x04\0\0\0\0"

codecs.register_error("each-byte", lambda error: ("\ufffd", error.start + 1))  # type: ignore[attr-defined]


def decode(data: bytes) -> str:
    """UTF-8 with U+FFFD for each malformed byte, as the contract says (A3)."""
    return data.decode("utf-8", "each-byte")


def eventually(condition: Callable[[], Any], timeout: float = 10.0, what: str = "") -> Any:
    """The first true value of `condition`; fails when there is none within `timeout` seconds."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        time.sleep(0.002)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def frame(kind: int, payload: bytes | dict[str, Any] = b"") -> bytes:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return struct.pack(">BI", kind, len(body)) + body


# ---- recordings ---------------------------------------------------------------------------------


class EmptyRecording(AssertionError):
    """Not even a header yet."""


class Recording:
    """An asciicast v2 file, read strictly: whatever the contract forbids is an AssertionError."""

    def __init__(self, path: Path, finished: bool = True) -> None:
        self.raw = path.read_bytes()
        if not finished:
            # A reader in mid-write may see part of it: file systems grow a file page by page.
            self.raw = self.raw[: self.raw.rfind(b"\n") + 1]
        if not self.raw:
            raise EmptyRecording(path)
        assert self.raw.endswith(b"\n"), f"the last line is not whole: {self.raw[-80:]!r}"
        lines = self.raw.decode("utf-8").split("\n")[:-1]  # valid UTF-8, or this raises
        self.header: dict[str, Any] = json.loads(lines[0])
        assert self.header["version"] == 2
        assert self.header["width"] > 0
        assert self.header["height"] > 0
        self.events: list[tuple[float, str, str]] = []
        self.offsets: list[int] = []  # of the byte after each event's line
        self.exit: tuple[int, str] | None = None
        offset = len(lines[0].encode()) + 1
        for line in lines[1:]:
            offset += len(line.encode()) + 1
            assert self.exit is None, f"something follows the exit line: {line[:80]}"
            event = json.loads(line)
            assert isinstance(event, list)
            assert len(event) == 3, line[:80]
            if event[0] == "exit":
                self.exit = (event[1], event[2])
                assert isinstance(event[1], int)
                continue
            time_s, kind, text = event
            assert isinstance(time_s, int | float)
            assert kind in ("o", "i", "r", "m"), line[:80]
            assert isinstance(text, str)
            assert text, "an event without text"
            if kind == "r":
                assert re.fullmatch(r"\d+x\d+", text), text
            if self.events:
                assert time_s >= self.events[-1][0], "time runs backwards"
            self.events.append((time_s, kind, text))
            self.offsets.append(offset)
        if finished:
            assert self.exit is not None, f"no exit line: {lines[-1][:80]}"

    def text(self, kind: str = "o") -> str:
        return "".join(text for _, its_kind, text in self.events if its_kind == kind)

    def of_kind(self, kind: str) -> list[str]:
        return [text for _, its_kind, text in self.events if its_kind == kind]


class Session:
    """One session's directory, as a reader sees it."""

    def __init__(self, control: Path, name: str) -> None:
        self.id = name
        self.path = control / name

    @property
    def info(self) -> dict[str, Any]:
        value = json.loads((self.path / "session.json").read_text("utf-8"))
        assert isinstance(value, dict)
        return value

    def status(self) -> str | None:
        try:
            return str(self.info["status"])
        except FileNotFoundError:
            return None

    def recording(self, finished: bool = True) -> Recording:
        return Recording(self.path / "stdout", finished)

    def wait(self, status: str = "running", timeout: float = 10.0) -> Session:
        eventually(lambda: self.status() == status, timeout, f"{self.id} {status}")
        return self

    def wait_output(self, text: str, timeout: float = 10.0) -> str:
        """Until the recording's output contains `text`."""
        what = f"{text!r} in the recording of {self.id}"
        eventually(lambda: text in self._output(), timeout, what)
        return self._output()

    def _output(self) -> str:
        try:
            return self.recording(finished=False).text()
        except (FileNotFoundError, EmptyRecording):
            return ""

    def client(self) -> Client:
        return Client(self.path / "ipc.sock")

    def rename(self, name: str) -> None:
        """As the server does it: the whole object, over a temporary file of the server's name."""
        staged = self.path / "session.json.tmp"
        staged.write_text(json.dumps({**self.info, "name": name}, indent=2), "utf-8")
        staged.rename(self.path / "session.json")


class Client:
    """A peer on ipc.sock."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(str(path))
        self.socket.settimeout(10)

    def send(self, kind: int, payload: bytes | dict[str, Any] = b"") -> Client:
        self.socket.sendall(frame(kind, payload))
        return self

    def type(self, text: bytes) -> Client:
        return self.send(STDIN_DATA, text)

    def control(self, **command: Any) -> Client:
        return self.send(CONTROL, command)

    def raw(self, data: bytes) -> Client:
        self.socket.sendall(data)
        return self

    def receive(self, count: int, timeout: float = 5.0) -> bytes:
        """Up to `count` bytes: fewer at the end of the stream or after `timeout` seconds."""
        data = b""
        end = time.monotonic() + timeout
        while len(data) < count and (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                part = self.socket.recv(count - len(data))
            except (TimeoutError, ConnectionResetError):
                break
            if not part:
                break
            data += part
        return data

    def closed(self, timeout: float = 5.0) -> bool:
        """Whether the forwarder hangs up within `timeout` seconds."""
        self.socket.settimeout(timeout)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except (ConnectionResetError, BrokenPipeError):
            pass
        return True

    def answers(self) -> bool:
        """Whether a heartbeat comes back: this connection is served."""
        self.raw(PULSE)
        return self.receive(5) == PULSE

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- processes ----------------------------------------------------------------------------------


@dataclass
class Result:
    code: int
    out: bytes
    err: bytes


class Process:
    """A forwarder whose stdin, stdout and stderr are pipes, files or nothing."""

    def __init__(self, argv: list[bytes | str], session: Session, **options: Any) -> None:
        self.session = session
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.PIPE)
        self.popen = subprocess.Popen(argv, **options)
        self.pid = self.popen.pid

    def wait(self, timeout: float = 20.0) -> Result:
        out, err = self.popen.communicate(timeout=timeout)
        return Result(self.popen.returncode, out or b"", err or b"")

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):
            self.popen.communicate(timeout=2)
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()


class Terminal:
    """A program on a terminal that the test plays: it types, reads and resizes.

    The test keeps the terminal's own end (`tty`) open, so that its modes can be compared after the
    program has gone, as a shell would find them.
    """

    def __init__(
        self,
        argv: list[bytes | str],
        session: Session | None = None,
        size: tuple[int, int] = (100, 30),
        **options: Any,
    ) -> None:
        self.given = session
        self.master, self.tty = pty.openpty()
        self.resize(*size)
        self.modes_before = self.stty()
        self._output = bytearray()
        self._lock = threading.Condition()
        self.paused = threading.Event()
        options.setdefault("preexec_fn", self._controlling_terminal)
        standard = {"stdin": self.tty, "stdout": self.tty, "stderr": self.tty}
        self.popen = subprocess.Popen(argv, start_new_session=True, **{**standard, **options})
        self.pid = self.popen.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def session(self) -> Session:
        assert self.given is not None
        return self.given

    @staticmethod
    def _controlling_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def _read(self) -> None:
        while True:
            if self.paused.is_set():
                time.sleep(0.01)
                continue
            try:
                ready, _, _ = select.select([self.master], [], [], 0.05)
                data = os.read(self.master, 1 << 16) if ready else None
            except (OSError, ValueError):
                return
            if data is None:
                continue
            with self._lock:
                self._output += data
                self._lock.notify_all()

    @property
    def output(self) -> bytes:
        with self._lock:
            return bytes(self._output)

    def stty(self) -> str:
        """Every mode of the terminal, in the words of `stty -a`."""
        shown = subprocess.run(
            ["stty", "-a"], stdin=self.tty, capture_output=True, check=True, text=True
        ).stdout
        # Not the size, which tests change.
        return shown.split(";", 3)[3] if shown.startswith("speed") else shown

    def restored(self) -> bool:
        return self.stty() == self.modes_before

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self.master, view) :]

    def mark(self) -> int:
        return len(self.output)

    def expect(self, wanted: bytes, timeout: float = 10.0, after: int = 0) -> bytes:
        """Everything shown from `after` on, once it contains `wanted`."""
        end = time.monotonic() + timeout
        with self._lock:
            while wanted not in self._output[after:]:
                left = end - time.monotonic()
                if left <= 0:
                    shown = bytes(self._output[after:][-2000:])
                    raise AssertionError(f"{wanted!r} not shown within {timeout} s: {shown!r}")
                self._lock.wait(left)
            return bytes(self._output[after:])

    def wait(self, timeout: float = 20.0) -> int:
        """The program's exit code, once all that it wrote is in `output`."""
        code = self.popen.wait(timeout)
        before = -1
        while before != len(self.output):
            before = len(self.output)
            time.sleep(0.06)
        return code

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def hang_up(self) -> None:
        """The window is closed: the terminal goes away under the program."""
        os.close(self.tty)
        self.tty = -1
        self.paused.set()
        time.sleep(0.1)
        os.close(self.master)
        self.master = -1

    def close(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait(5)
        for fd in (self.tty, self.master):
            if fd >= 0:
                os.close(fd)
        self.tty = self.master = -1
        self._reader.join(2)


@dataclass
class Home:
    """A home directory, short enough for a socket's path, and what runs in it."""

    command: list[str]
    path: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="vt.", dir="/tmp")))
    running: list[Process | Terminal] = field(default_factory=list)
    count: int = 0

    def __post_init__(self) -> None:
        self.control = self.path / ".vibetunnel" / "control"
        self.work = self.path / "work"
        self.work.mkdir()
        self.env = {
            "HOME": str(self.path),
            "PATH": os.environ["PATH"],
            "SHELL": "/bin/sh",
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
        }

    def session(self, name: str) -> Session:
        return Session(self.control, name)

    def new_id(self) -> str:
        self.count += 1
        return f"s{self.count}"

    def _argv(
        self, session_id: str | None, flags: tuple[str, ...], command: tuple[bytes | str, ...]
    ) -> list[bytes | str]:
        chosen = ["--session-id", session_id] if session_id is not None else []
        return [*self.command, *chosen, *flags, "--", *command]

    def start(
        self,
        *command: bytes | str,
        flags: tuple[str, ...] = (),
        session_id: str | None = None,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Process:
        """A forwarder without a terminal, in the background."""
        name = session_id or self.new_id()
        argv = self._argv(name, flags, command)
        options.setdefault("cwd", self.work)
        process = Process(argv, self.session(name), env={**self.env, **(env or {})}, **options)
        self.running.append(process)
        return process

    def run(self, *command: bytes | str, timeout: float = 20.0, **options: Any) -> Result:
        """The same to its end; the session is `last`."""
        process = self.start(*command, **options)
        self.last = process.session
        return process.wait(timeout)

    def cli(self, *argv: bytes | str, env: dict[str, str] | None = None, **options: Any) -> Result:
        """The bare command line."""
        options.setdefault("cwd", self.work)
        options.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(
            [*self.command, *argv],
            env={**self.env, **(env or {})},
            capture_output=True,
            timeout=20,
            check=False,
            **options,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def terminal(
        self,
        *command: bytes | str,
        flags: tuple[str, ...] = (),
        session_id: str | None = None,
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> Terminal:
        """A forwarder on a terminal."""
        name = session_id or self.new_id()
        argv = self._argv(name, flags, command)
        options.setdefault("cwd", self.work)
        terminal = Terminal(argv, self.session(name), env={**self.env, **(env or {})}, **options)
        self.running.append(terminal)
        return terminal

    def sessions(self) -> list[Session]:
        if not self.control.is_dir():
            return []
        return [
            Session(self.control, entry.name)
            for entry in sorted(self.control.iterdir())
            if (entry / "session.json").exists()
        ]

    def close(self) -> None:
        for process in self.running:
            process.close()
        for session in self.sessions():
            with contextlib.suppress(OSError, ValueError, KeyError, AssertionError):
                if session.info["status"] != "exited":
                    os.kill(session.info["pid"], signal.SIGKILL)
        shutil.rmtree(self.path, ignore_errors=True)


@contextlib.contextmanager
def background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Runs `work` in a thread; its exception, if any, is raised at the end of the block."""
    stop, errors = threading.Event(), []

    def body() -> None:
        try:
            work(stop)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    if errors:
        raise errors[0]
