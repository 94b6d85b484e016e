"""A connection to a session's socket. What the other side sends is read and dropped."""

from __future__ import annotations

import math
import os
import select
import socket
import stat
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from pyplue.vt.control_dir import MAX_SOCKET_PATH_BYTES
from pyplue.vt.errors import SessionUnreachableError, WaitTimeoutError

if TYPE_CHECKING:
    from typing_extensions import Self


# What poll(2) takes everywhere; whoever waits longer asks again.
_LONGEST_POLL_S = 3600.0


class Connection:
    """Connects to `path`; SessionUnreachableError when nobody listens there."""

    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        name = os.fsencode(path)
        if len(name) > MAX_SOCKET_PATH_BYTES:
            raise SessionUnreachableError(
                f"the socket path {path} has {len(name)} bytes, the system allows "
                f"{MAX_SOCKET_PATH_BYTES}: use a shorter VIBETUNNEL_CONTROL_DIR"
            )
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise SessionUnreachableError(f"{path} is no socket: the session takes no input")
            self._socket.settimeout(timeout)
            self._socket.connect(name)
        except SessionUnreachableError:
            self._socket.close()
            raise
        except OSError as error:
            self._socket.close()
            reason = error.strerror or str(error)
            raise SessionUnreachableError(
                f"nobody listens at {path} ({reason}): the session has ended, or its forwarder "
                "was killed"
            ) from error
        self._socket.setblocking(False)
        self._hung_up = False

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def hung_up(self) -> bool:
        """Whether the other side has closed the connection."""
        self._drop_received()
        return self._hung_up

    def send(self, frames: Iterable[bytes], timeout: float) -> None:
        """Sends whole frames; WaitTimeoutError when the session does not take them in time. The
        connection is closed then if a frame was cut: the session would take what follows for its
        rest."""
        if math.isnan(timeout):
            raise ValueError("a timeout is a number of seconds, not NaN")
        if self._socket.fileno() < 0:
            raise SessionUnreachableError("this connection is closed: connect again")
        end = time.monotonic() + timeout
        for frame in frames:
            rest = memoryview(frame)
            while rest:
                left = end - time.monotonic()
                readable, writable = self._ready(max(0.0, left), to_write=True)
                if readable:
                    self._drop_received()
                if writable:
                    rest = rest[self.send_some(rest) :]
                elif left <= 0:
                    if len(rest) < len(frame):
                        self.close()
                    raise WaitTimeoutError(
                        f"the session did not take all input in {timeout:g} s: its program does "
                        "not read"
                    )

    def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """Sends what the session takes at once; how many bytes that was."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise SessionUnreachableError(
                "the session hung up: it has ended, or did not accept what was sent"
            ) from error

    def finish(self, timeout: float) -> bool:
        """Says that nothing more comes, and waits until the session has done all that was asked.
        False when it does not say so in time."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            return True  # it hung up: the session has ended meanwhile
        end = time.monotonic() + timeout
        while not self._hung_up:
            left = end - time.monotonic()
            if left <= 0:
                return False
            self._ready(left)
            self._drop_received()
        return True

    def _ready(self, timeout: float, to_write: bool = False) -> tuple[bool, bool]:
        # Not select(), which knows descriptors up to 1023 only.
        wanted = (0 if self._hung_up else select.POLLIN) | (select.POLLOUT if to_write else 0)
        poll = select.poll()
        poll.register(self, wanted)
        events = next((found for _, found in poll.poll(min(timeout, _LONGEST_POLL_S) * 1000)), 0)
        return bool(events & select.POLLIN), bool(events & ~select.POLLIN)

    def _drop_received(self) -> None:
        try:
            while data := self._socket.recv(65536):
                del data
            self._hung_up = True
        except BlockingIOError:
            pass
        except OSError:
            self._hung_up = True

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
