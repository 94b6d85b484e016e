"""Keeps a running server as fresh as the database: one thread, one snapshot, one clock."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict

from pyplue.ssh.errors import SshDatabaseError
from pyplue.ssh.events import logger
from pyplue.ssh.store.changes import Changes
from pyplue.ssh.store.snapshot import Snapshot

_STOP_WAIT_S = 1.0
_REFRESH_WAIT_S = 5.0

ApplyKeys = Callable[[Mapping[str, Sequence[str]]], None]


class StoreStatus(TypedDict):
    """What `GitServer.store_status` tells."""

    available: bool
    """Whether the last question to the database was answered."""
    age_s: float
    """Seconds since the database last confirmed what is in force."""
    in_force: bool
    """False once `age_s` is over `max_stale_s`: everybody is refused."""
    users: int
    """Users with a key that can log in."""
    keys: int
    repositories: int
    error: str
    """Why it is not available, otherwise empty."""


class Watch:
    """Asks every `poll_s` seconds whether the database has changed, and passes on what it says.

    While the database is away the last snapshot goes on for `max_stale_s` seconds; then everybody
    is refused until it is back.
    """

    def __init__(self, changes: Changes, poll_s: float, max_stale_s: float) -> None:
        self._changes = changes
        self._poll_s = poll_s
        self._max_stale_s = max_stale_s
        self._snapshot = Snapshot()
        # What the server has, which is not the snapshot's while there is no `apply`, or it fails.
        self._applied: Mapping[str, Sequence[str]] = {}
        self._error = ""
        self._away_since = 0.0
        self._refusing = False
        self._confirmed_at = time.monotonic()
        self._polling = threading.Lock()
        # Never held while the database is asked: what is in force changes in one step.
        self._deciding = threading.Lock()
        self._stopping = threading.Event()
        self._apply: ApplyKeys | None = None
        self._thread: threading.Thread | None = None

    def load(self) -> Mapping[str, Sequence[str]]:
        """The keys to begin with. Raises SshDatabaseError: nothing starts without a database."""
        with self._polling:
            self._changes.close()
            asked_at = time.monotonic()
            self._snapshot = self._changes.poll() or Snapshot()
            self._confirmed_at, self._error, self._refusing = asked_at, "", False
            self._applied = self._snapshot.keys
            return self._applied

    def start(self, apply: ApplyKeys) -> None:
        """Goes on in the background: `apply` gets the keys whenever they change."""
        self._apply = apply
        self._stopping = threading.Event()
        run = threading.Thread(
            target=self._run, args=(self._stopping,), name="pyplue-ssh-store", daemon=True
        )
        self._thread = run
        run.start()

    def stop(self) -> None:
        """Ends the thread. One that waits for a silent database ends when that has failed."""
        self._stopping.set()
        thread, self._apply = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(_STOP_WAIT_S)

    def refresh(self) -> None:
        """Asks the database now; raises SshDatabaseError when it is away or silent."""
        asking = threading.Thread(target=self._poll, name="pyplue-ssh-refresh", daemon=True)
        asking.start()
        asking.join(_REFRESH_WAIT_S)  # whoever asks may have to stop the server meanwhile
        if asking.is_alive():
            raise SshDatabaseError(f"the database has not answered in {_REFRESH_WAIT_S:g} s")
        if self._error:
            raise SshDatabaseError(self._error)

    def allows(self, principal: str, repository: str, write: bool) -> bool:
        """The server's question for every command. Says no when the answer would be too old,
        even while the thread waits for a database that neither answers nor fails."""
        if not self._fresh():
            self._refuse_everybody_unless_fresh()
            return False
        return self._snapshot.allows(principal, repository, write)

    def status(self) -> StoreStatus:
        """For people and metrics."""
        snapshot = self._snapshot
        return {
            "available": not self._error,
            "age_s": time.monotonic() - self._confirmed_at,
            "in_force": self._fresh(),
            "users": len(snapshot.keys),
            "keys": sum(map(len, snapshot.keys.values())),
            "repositories": len(snapshot.repositories),
            "error": self._error,
        }

    def _fresh(self) -> bool:
        return time.monotonic() - self._confirmed_at <= self._max_stale_s

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._poll_s):
            # Only what says that it failed can fail here, and it does not end the watching.
            with contextlib.suppress(Exception):
                self._poll()
        with self._polling:
            self._changes.close()

    def _poll(self) -> None:
        with self._polling:
            asked_at = time.monotonic()
            try:
                snapshot = self._changes.poll() or self._snapshot
                if time.monotonic() - asked_at > self._max_stale_s:
                    raise SshDatabaseError("the database answers too late")
                with self._deciding:
                    self._put_in_force(snapshot)
                    self._confirmed_at = asked_at
                    self._succeeded()
            except Exception as error:  # whatever it is, the thread must go on
                self._changes.close()  # and read everything again
                self._failed(error)

    def _put_in_force(self, snapshot: Snapshot) -> None:
        apply, keys = self._apply, snapshot.keys
        if apply and keys is not self._applied and keys != self._applied:
            apply(keys)
            self._applied = keys
        self._snapshot = snapshot

    def _failed(self, error: Exception) -> None:
        if not self._error:
            self._away_since = time.monotonic()
            age_s = self._away_since - self._confirmed_at
            logger.error(
                "%s; what was read %.1f s ago goes on for %g s, then everybody is refused",
                error,
                age_s,
                self._max_stale_s,
            )
        self._error = str(error) or type(error).__name__
        self._refuse_everybody_unless_fresh()

    def _refuse_everybody_unless_fresh(self) -> None:
        with self._deciding:
            if self._refusing or self._fresh():
                return
            if apply := self._apply:
                apply({})
                self._applied = {}
            self._refusing = True
            logger.error(
                "everybody is refused until the database is back: %s",
                self._error or "it is silent",
            )

    def _succeeded(self) -> None:
        if self._error:
            away_s = time.monotonic() - self._away_since
            logger.warning("the database is back after %.1f s", away_s)
        elif self._refusing:
            logger.warning("the database is back")
        self._error, self._refusing = "", False
