"""The server's structured events, handed to `logging` by one thread."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from typing import Any

from pyplue import ffi

logger = logging.getLogger("pyplue.ssh")
# Silent until the application sets up logging.
logger.addHandler(logging.NullHandler())

# PLUE_SSH_RECORD_MAX of the header.
RECORD_MAX = 32768

_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
# The time is in the log record, the level is its level.
_NOT_IN_TEXT = frozenset({"event", "level", "time"})
_LONGEST_WAIT_S = 1.0


def log_failure(message: str, *arguments: object) -> None:
    """Logs the exception under way, for those who must go on after it: what the host's logging
    handlers raise in turn has nowhere to go."""
    with contextlib.suppress(BaseException):
        logger.exception(message, *arguments)


class EventLog:
    """Takes events from the library as they come, until `finish`."""

    def __init__(self) -> None:
        self._arrived = threading.Event()
        self._stopping = False
        self._record = ffi.buffer(RECORD_MAX)
        # On a server thread: only wakes ours.
        self._notify = ffi.callback((), "void", self._arrived.set)
        self._thread = threading.Thread(target=self._run, name="pyplue-ssh-events", daemon=True)

    def start(self) -> None:
        ffi.ssh.plue_ssh_set_event_notify(self._notify)
        self._thread.start()

    def finish(self) -> None:
        """Nothing more comes: the thread logs what is left and ends."""
        ffi.ssh.plue_ssh_set_event_notify(None)
        self._stopping = True
        self._arrived.set()

    def join(self) -> None:
        """Waits for the thread, unless this is it: a logging handler may stop the server."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._arrived.wait(_LONGEST_WAIT_S)
            self._arrived.clear()
            last_round = self._stopping
            while length := ffi.ssh.plue_ssh_event_next(self._record, RECORD_MAX):
                _log(json.loads(self._record.raw[:length]))
            if last_round:
                return


def _log(event: dict[str, Any]) -> None:
    level = _LEVELS.get(event.get("level", "info"), logging.INFO)
    if logger.isEnabledFor(level):
        logger.log(level, "%s", _text(event), extra={"event": event})


def _text(event: dict[str, Any]) -> str:
    words = [str(event.get("event"))]
    for name, value in event.items():
        if name not in _NOT_IN_TEXT:
            text = value if isinstance(value, str) and value.isidentifier() else json.dumps(value)
            words.append(f"{name}={text}")
    return " ".join(words)
