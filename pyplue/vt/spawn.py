"""Starts sessions. Each is a vibetunnel-fwd process of its own, as with `tmux new-session -d`."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Literal

from pyplue.vt.control_dir import StrPath, check_id, control_dir
from pyplue.vt.errors import SessionExistsError, SpawnError
from pyplue.vt.executable import forwarder
from pyplue.vt.session import Session

TitleMode = Literal["none", "filter", "static"]
Word = str | bytes | os.PathLike[str]


def spawn(
    argv: Sequence[Word],
    *,
    session_id: str | None = None,
    name: str | None = None,
    cwd: StrPath | None = None,
    env: Mapping[str, str] | None = None,
    cols: int = 80,
    rows: int = 24,
    title_mode: TitleMode = "none",
    record_input: bool = True,
    control_dir: StrPath | None = None,
) -> Session:
    """Runs `argv` on a terminal of its own and returns when it runs.

    The session is no child of this process and goes on when this process ends. It is recorded
    until its program ends or somebody ends it. VibeTunnel's server lists it at once.

    Args:
        argv: The program and its words; a name without a slash is looked for in PATH.
        session_id: 1 to 64 letters, digits, `_` or `-`; chosen by the forwarder when left out.
        name: What people see; made from the command and the folder when left out.
        cwd: As for `subprocess`.
        env: As for `subprocess`; TERM is xterm-256color whatever it says.
        cols: The terminal's width, 1 to 65535.
        rows: Its height.
        title_mode: "filter" and "static" take window titles out of the recording.
        record_input: False leaves what is typed out of the recording (passwords always are).
        control_dir: Where sessions live, else VIBETUNNEL_CONTROL_DIR, else ~/.vibetunnel/control.

    Raises:
        FileNotFoundError: The program is not there.
        PermissionError: It cannot be run.
        SessionExistsError: `session_id` is running.
        SpawnError: (an OSError) Whatever else keeps it from starting.
    """
    words = _words(argv)
    root = _root(control_dir)
    environment = {**(os.environ if env is None else env), "VIBETUNNEL_CONTROL_DIR": str(root)}
    _check_program(words[0], environment, cwd)
    options: list[str] = ["--detach", "--size", f"{cols:d}x{rows:d}", "--title-mode", title_mode]
    if session_id is not None:
        options += ["--session-id", check_id(session_id)]
    if name is not None:
        options += ["--name", name]
    if not record_input:
        options.append("--no-record-input")
    started = subprocess.run(
        [forwarder(), *options, "--", *words],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    if started.returncode != 0:
        raise _failure(started.stderr.decode(errors="replace"), session_id)
    return Session(root, started.stdout.decode().strip())


# The parameter of `spawn` has the function's name.
_root = control_dir


def _words(argv: Sequence[Word]) -> list[bytes]:
    if isinstance(argv, str | bytes):
        raise TypeError('argv is a list of words: ["ls", "-l"], or ["sh", "-c", "ls | wc"]')
    words = [os.fsencode(word) for word in argv]
    if not words:
        raise ValueError("argv is empty: name the program to run")
    if any(b"\0" in word for word in words):
        raise ValueError("a word of argv has a NUL character")
    return words


def _check_program(word: bytes, environment: Mapping[str, str], cwd: StrPath | None) -> None:
    """Says what execve would say, as `subprocess` does; the session would only show it."""
    name = os.fsdecode(word)
    if "/" in name:
        path = os.path.join(cwd or "", name)
        if not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if os.path.isdir(path) or not os.access(path, os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    elif shutil.which(name, path=environment.get("PATH", os.defpath)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _failure(message: str, session_id: str | None) -> Exception:
    text = message.strip().removeprefix("[ERROR] ").removeprefix("vibetunnel-fwd: ")
    if "is running" in text and session_id is not None:
        return SessionExistsError(f"a session with the id {session_id} is running: choose another")
    return SpawnError(f"the session was not started: {text or 'vibetunnel-fwd failed'}")
