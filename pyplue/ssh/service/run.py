"""Runs a server until a signal ends it. For the main thread of a process."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType

from pyplue.ssh.events import logger
from pyplue.ssh.server import GitServer
from pyplue.ssh.service import systemd

_STOPPED = 0


class Signals:
    """Takes SIGTERM, SIGINT and SIGHUP from now on, one after the other.

    The second that asks to stop calls `at_end` and ends the process at once, with status 1 and
    whatever the threads are waiting for.
    """

    def __init__(self, at_end: Callable[[], None]) -> None:
        # Python writes each signal's number into it at once. A lock or a queue would not do: a
        # signal that comes just before the wait for it begins does not end that wait.
        self._arrived, self._arriving = socket.socketpair()
        self._arriving.setblocking(False)
        signal.set_wakeup_fd(self._arriving.fileno(), warn_on_full_buffer=False)
        self._at_end = at_end
        self._asked_to_stop = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._take)

    def next(self) -> int:
        """Waits for one; `_STOPPED` once `stopped` was called."""
        return self._arrived.recv(1)[0]

    def stopped(self) -> None:
        self._arriving.send(bytes([_STOPPED]))

    def _take(self, number: int, _: FrameType | None) -> None:
        if number != signal.SIGHUP:
            if self._asked_to_stop:
                self._at_end()
                os._exit(1)
            self._asked_to_stop = True


def run(server: GitServer, signals: Signals, reload: Callable[[], None]) -> int:
    """Returns 0 when the server, which runs already, was told to stop and has drained.

    SIGHUP calls `reload`.
    """
    systemd.notify("READY=1", f"STATUS=port {server.port}")
    while signals.next() == signal.SIGHUP:
        systemd.reloading()
        try:
            reload()
        except Exception:
            logger.exception("not reloaded")
        systemd.notify("READY=1")
    systemd.notify("STOPPING=1")
    running = server.counters()["gits_running"]
    threading.Thread(target=_stop, args=(server, signals), daemon=True).start()
    # After that, for nobody may read the log any more.
    logger.info("stopping: %d git at work may finish; a second signal ends it at once", running)
    while signals.next() != _STOPPED:
        pass  # SIGHUP: too late
    return 0


def _stop(server: GitServer, signals: Signals) -> None:
    try:
        server.stop()
    finally:
        signals.stopped()
