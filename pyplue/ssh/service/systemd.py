"""Tells systemd how the service is doing: sd_notify(3) without a library."""

from __future__ import annotations

import os
import socket
import time


def notify(*assignments: str) -> None:
    """Sends "READY=1" and the like to $NOTIFY_SOCKET; does nothing where there is none."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or address[0] not in "/@":
        return
    if address[0] == "@":  # an abstract socket, see unix(7)
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto("\n".join(assignments).encode(), address)
    except OSError:
        pass  # as sd_notify(3) advises: the service is well even when nobody hears it


def reloading() -> None:
    """ "RELOADING=1" with the time that Type=notify-reload asks for; READY=1 must follow."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
