"""Terminal sessions that are recorded, can be watched in a browser, and driven from Python.

    >>> from pyplue import vt
    >>> session = vt.spawn(["python3", "-q"])  # on a terminal of its own, in the background
    >>> session.send("6 * 7", key="enter")
    >>> print(session.wait("42"))  # the screen, once it shows 42
    >>> 6 * 7
    42
    >>> session.send("exit()", key="enter")
    >>> session.wait()  # the exit code
    0

Sessions are those of vibetunnel-fwd and of VibeTunnel's server, whoever started them: `sessions()`
lists them, `Session.open(id)` takes one up. `python -m pyplue.vt` does the same in a shell.
"""

from __future__ import annotations

from pyplue.vt.block import BlockRecording
from pyplue.vt.cast import CastReader, Event
from pyplue.vt.errors import (
    CastError,
    FrameTooLongError,
    InvalidSessionIdError,
    MissingExtraError,
    SessionDataError,
    SessionExistsError,
    SessionExitedError,
    SessionLostError,
    SessionNotFoundError,
    SessionUnreachableError,
    SpawnError,
    VtError,
    WaitTimeoutError,
)
from pyplue.vt.events import Events
from pyplue.vt.info import SessionInfo
from pyplue.vt.keys import KEYS
from pyplue.vt.printable import printable
from pyplue.vt.recorder import record
from pyplue.vt.screen import Screen
from pyplue.vt.session import Session, sessions
from pyplue.vt.spawn import spawn

__all__ = [
    "KEYS",
    "BlockRecording",
    "CastError",
    "CastReader",
    "Event",
    "Events",
    "FrameTooLongError",
    "InvalidSessionIdError",
    "MissingExtraError",
    "Screen",
    "Session",
    "SessionDataError",
    "SessionExistsError",
    "SessionExitedError",
    "SessionInfo",
    "SessionLostError",
    "SessionNotFoundError",
    "SessionUnreachableError",
    "SpawnError",
    "VtError",
    "WaitTimeoutError",
    "printable",
    "record",
    "sessions",
    "spawn",
]
