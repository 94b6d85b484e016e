"""A network link with a delay: two network namespaces joined by packets that wait on the way.

What `tc qdisc add ... netem delay` does, for kernels that were built without netem: each namespace
has a TUN device, and `carry` moves packets between the two, each after half of the round trip.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
MTU = 9000
SERVER_ADDRESS, CLIENT_ADDRESS = "10.213.0.1", "10.213.0.2"


def permitted() -> str | None:
    """None when namespaces and TUN devices can be made here, else why not."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    probe = f"plue-probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if made.returncode != 0:
        return f"ip netns add: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


class DelayedLink:
    """Namespaces `server` and `client`, `round_trip_ms` apart."""

    def __init__(self, round_trip_ms: float) -> None:
        self.server, self.client = f"plue-s-{os.getpid()}", f"plue-c-{os.getpid()}"
        self._delay_s = round_trip_ms / 2000
        self._stopping = False
        self._devices: list[int] = []
        self._carrier: threading.Thread | None = None

    def start(self) -> None:
        ends = ((self.server, SERVER_ADDRESS, "pls"), (self.client, CLIENT_ADDRESS, "plc"))
        for namespace, address, name in ends:
            _ip("netns", "add", namespace)
            device = f"{name}{os.getpid() % 100000}"
            self._devices.append(_tun(device))
            _ip("link", "set", device, "netns", namespace)
            _ip("-n", namespace, "addr", "add", f"{address}/24", "dev", device)
            for link in ("lo", device):
                _ip("-n", namespace, "link", "set", link, "up")
            _ip("-n", namespace, "link", "set", device, "mtu", str(MTU), "txqueuelen", "20000")
        self._carrier = threading.Thread(target=self._carry, daemon=True)
        self._carrier.start()

    def stop(self) -> None:
        self._stopping = True
        if self._carrier is not None:
            self._carrier.join()
        for device in self._devices:
            os.close(device)
        for namespace in (self.server, self.client):
            _ip("netns", "del", namespace)

    def _carry(self) -> None:
        first, second = self._devices
        waiting: deque[tuple[float, int, bytes]] = deque()
        with selectors.DefaultSelector() as selector:
            selector.register(first, selectors.EVENT_READ, second)
            selector.register(second, selectors.EVENT_READ, first)
            while not self._stopping:
                due = waiting[0][0] - time.monotonic() if waiting else 0.02
                for key, _ in selector.select(max(0, due)):
                    self._take(key.fd, key.data, waiting)
                now = time.monotonic()
                while waiting and waiting[0][0] <= now:
                    _, target, packet = waiting.popleft()
                    os.write(target, packet)

    def _take(self, source: int, target: int, waiting: deque[tuple[float, int, bytes]]) -> None:
        arrives = time.monotonic() + self._delay_s
        try:
            while True:
                waiting.append((arrives, target, os.read(source, MTU + 64)))
        except BlockingIOError:
            pass


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


@contextmanager
def delayed_link(round_trip_ms: float) -> Iterator[DelayedLink]:
    link = DelayedLink(round_trip_ms)
    try:
        link.start()
        yield link
    finally:
        link.stop()
