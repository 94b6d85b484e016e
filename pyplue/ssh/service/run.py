"""Runs a server until a signal ends it. For the main thread of a process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import FrameType

from pyplue.ssh.events import logger
from pyplue.ssh.server import GitServer
from pyplue.ssh.service import systemd

_STOPPED = -1


class Signals:
    """Takes SIGTERM, SIGINT and SIGHUP from now on, one after the other."""

    def __init__(self) -> None:
        # The only queue that a signal handler may put something into.
        self._arrived: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take)

    def next(self) -> int:
        """Waits for one; `_STOPPED` once `stopped` was called."""
        return self._arrived.get()

    def stopped(self) -> None:
        self._arrived.put(_STOPPED)

    def _take(self, number: int, _: FrameType | None) -> None:
        self._arrived.put(number)


def run(
    server: GitServer, signals: Signals, reload: Callable[[], None], at_end: Callable[[], None]
) -> int:
    """Returns 0 when the server, which runs already, was told to stop and has drained.

    SIGHUP calls `reload`. A second SIGTERM or SIGINT calls `at_end` and ends the process at once.
    """
    systemd.notify("READY=1", f"STATUS=port {server.port}")
    while signals.next() == signal.SIGHUP:
        systemd.reloading()
        reload()
        systemd.notify("READY=1")
    systemd.notify("STOPPING=1")
    running = server.counters()["gits_running"]
    logger.info("stopping: %d git at work may finish; a second signal ends it at once", running)
    stopping = threading.Thread(target=_stop, args=(server, signals), daemon=True)
    stopping.start()
    while (number := signals.next()) != _STOPPED:
        if number != signal.SIGHUP:
            logger.warning("stopped at once by a second signal")
            at_end()
            os._exit(1)
    return 0


def _stop(server: GitServer, signals: Signals) -> None:
    try:
        server.stop()
    finally:
        signals.stopped()
