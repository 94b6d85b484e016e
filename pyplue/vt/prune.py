"""Removes sessions that have ended, and nothing that is not theirs."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import time

from pyplue.vt.errors import SessionDataError, VtError
from pyplue.vt.session import Session

# What a forwarder and VibeTunnel's server leave in a session's directory.
_FILES = re.compile(
    r"session\.json|session\.json\.tmp|\.session\.json\.\d+\.\d+\.tmp|stdout|stdin|ipc\.sock"
    r"|activity\.json"
)
_LAST_MOMENT_S = 0.5


def remove(session: Session) -> None:
    """Removes the directory of a session that has ended, with its recording.

    Raises VtError when it runs, SessionDataError when there is a file of somebody else in it: then
    nothing is removed.
    """
    if session.info.running:
        raise VtError(f"session {session.id} is running: kill it first")
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open(session.path, flags)
    try:
        _lock(directory, session)
        names = os.listdir(directory)
        foreign = [name for name in names if not _is_ours(name, directory)]
        if foreign:
            raise SessionDataError(
                f"{session.path} has something that no session leaves there, {foreign[0]!a}: "
                "remove it by hand"
            )
        for name in sorted(names, key=lambda name: name == "session.json"):
            os.unlink(name, dir_fd=directory)
        os.rmdir(session.path)
    finally:
        os.close(directory)


def _lock(directory: int, session: Session) -> None:
    """A forwarder holds this lock from its first moment to its last, which comes a moment after
    session.json says that the session has ended."""
    give_up = time.monotonic() + _LAST_MOMENT_S
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise VtError(f"session {session.id} is being started: kill it first") from None
        time.sleep(0.005)


def _is_ours(name: str, directory: int) -> bool:
    is_file = not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode)
    return is_file and _FILES.fullmatch(name) is not None
