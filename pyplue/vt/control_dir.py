"""Where sessions live, and what a session may be called: the rules of vibetunnel-fwd.

Everything in a session's directory is opened without following symbolic links and only when it is
a regular file, so that a prepared directory cannot make us read or wait elsewhere.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from pyplue.vt.errors import InvalidSessionIdError, SessionDataError, SessionNotFoundError

StrPath = str | os.PathLike[str]

# What vibetunnel-fwd starts; the Node server may choose longer ones.
MAX_ID_BYTES = 64
# What connect(2) accepts everywhere.
MAX_SOCKET_PATH_BYTES = 103
# A session.json larger than this is not read.
MAX_JSON_BYTES = 1 << 20

_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")


def control_dir(chosen: StrPath | None = None) -> Path:
    """`chosen`, else VIBETUNNEL_CONTROL_DIR, else below HOME, else below the current directory."""
    if chosen is not None:
        return Path(os.path.abspath(chosen))
    configured = os.environ.get("VIBETUNNEL_CONTROL_DIR")
    if configured:
        return Path(os.path.abspath(configured))
    home = os.environ.get("HOME") or "."
    return Path(os.path.abspath(os.path.join(home, ".vibetunnel", "control")))


def check_id(session_id: str) -> str:
    """`session_id`, or InvalidSessionIdError."""
    if not _ID.fullmatch(session_id):
        raise InvalidSessionIdError(
            f"{session_id[:80]!a} is no session id: it has letters, digits, '_' and '-' only"
        )
    return session_id


def session_dir(root: Path, session_id: str) -> Path:
    """The directory of a session that exists."""
    path = root / check_id(session_id)
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise SessionNotFoundError(
            f"there is no session {session_id} in {root}: python -m pyplue.vt list shows them"
        ) from None
    if stat.S_ISLNK(mode):
        raise SessionDataError(f"{path} is a symbolic link: a session is a directory of its own")
    if not stat.S_ISDIR(mode):
        raise SessionDataError(f"{path} is no directory: a session is one")
    return path


def open_regular(path: Path) -> int:
    """A descriptor of a regular file, for reading; FileNotFoundError when there is none."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SessionDataError(f"{path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SessionDataError(f"{path} is no regular file: remove it, or the session")
    return descriptor
