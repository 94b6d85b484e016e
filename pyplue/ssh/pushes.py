"""What has been pushed, handed to the application by one thread, in order and one at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyplue import ffi
from pyplue.ssh.events import RECORD_MAX, log_failure, logger

_LONGEST_WAIT_S = 1.0


@dataclass(frozen=True)
class Update:
    """One reference that was updated: `old` and `new` are object ids, zeros for "not there"."""

    ref: str
    """Its full name, such as "refs/heads/main". Bytes that are no UTF-8 as in `os.fsdecode`."""
    old: str
    new: str

    @property
    def created(self) -> bool:
        return not self.old.strip("0")

    @property
    def deleted(self) -> bool:
        return not self.new.strip("0")


@dataclass(frozen=True)
class Push:
    """A push that has updated something."""

    repository: str
    """Its name, such as "alice/repo"."""
    path: Path
    """Its Git directory."""
    principal: str
    updates: tuple[Update, ...]
    """Exactly the references that git reported as updated, unless not `confirmed`."""
    confirmed: bool
    """False: git was killed before its report was heard, or its client wanted none. `updates` are
    then all that git was asked for and did not refuse: compare with the repository."""
    address: str
    fingerprint: str
    """Of the key that pushed, "SHA256:..."."""
    connection: int
    time: float
    """When git had ended, in seconds since 1970."""


OnPush = Callable[[Push], object]


class PushFeed:
    """Takes notices from the library and calls `on_push` for each, until `finish`."""

    def __init__(self, on_push: OnPush) -> None:
        self._on_push = on_push
        self._arrived = threading.Event()
        self._stop_at: float | None = None
        self._record = ffi.buffer(RECORD_MAX)
        # On a server thread: only wakes ours.
        self._notify = ffi.callback((), "void", self._arrived.set)
        self._thread = threading.Thread(target=self._run, name="pyplue-ssh-pushes", daemon=True)

    def start(self) -> None:
        ffi.ssh.plue_ssh_set_push_notify(self._notify)
        self._arrived.set()  # there may be some from before the last stop
        self._thread.start()

    def finish(self, within_s: float) -> None:
        """No more will come: the thread hands over what is left, for so long, and ends."""
        ffi.ssh.plue_ssh_set_push_notify(None)
        # What the last gits have said is on its way: a moment for it even where nothing is drained.
        self._stop_at = time.monotonic() + max(within_s, _LONGEST_WAIT_S)
        self._arrived.set()

    def join(self) -> None:
        """Waits for the thread, unless this is it: `on_push` may stop the server."""
        if threading.current_thread() is self._thread:
            return
        assert self._stop_at is not None  # noqa: S101 (`finish` comes first)
        self._thread.join(max(0.0, self._stop_at - time.monotonic()) + _LONGEST_WAIT_S)
        if self._thread.is_alive():
            logger.error("the server has stopped, but on_push has still not returned")

    def _run(self) -> None:
        while True:
            self._arrived.wait(_LONGEST_WAIT_S)
            self._arrived.clear()
            last_round = self._stop_at is not None
            while (notice := self._next()) is not None:
                if self._stop_at is not None and time.monotonic() >= self._stop_at:
                    logger.error(
                        "the server has stopped before on_push was told of all pushes: the others "
                        "come at its next start in this process"
                    )
                    return
                try:
                    self._on_push(_push(notice))
                except BaseException:  # no sys.exit() or cancelled task may end this thread
                    log_failure(
                        "on_push failed for a push to %s; it is not repeated", notice["repository"]
                    )
                ffi.ssh.plue_ssh_push_done(notice["id"])
            if last_round:
                return

    def _next(self) -> dict[str, Any] | None:
        while True:
            length = ffi.ssh.plue_ssh_push_next(self._record, len(self._record))
            if length == 0:
                return None
            if length < len(self._record):
                notice: dict[str, Any] = json.loads(self._record.raw[:length])
                return notice
            self._record = ffi.buffer(length + 1)


def _push(notice: dict[str, Any]) -> Push:
    updates = tuple(Update(u["ref"], u["old"], u["new"]) for u in notice["updates"])
    return Push(
        repository=notice["repository"],
        path=Path(notice["path"]),
        principal=notice["principal"],
        updates=updates,
        confirmed=notice["confirmed"],
        address=notice["address"],
        fingerprint=notice["fingerprint"],
        connection=notice["connection"],
        time=notice["time"],
    )
