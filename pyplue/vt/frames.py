"""The messages of a session's socket: a type, a big-endian length, a payload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from pyplue.vt.errors import FrameTooLongError

STDIN_DATA = 1
CONTROL_CMD = 2
HEARTBEAT = 4

# What vibetunnel-fwd accepts; it hangs up on longer ones.
MAX_INPUT_BYTES = 16 << 20
MAX_PAYLOAD_BYTES = 1 << 20
# Every forwarder takes frames of this size.
_INPUT_PIECE_BYTES = 256 << 10


def encode(kind: int, payload: bytes = b"") -> bytes:
    """One frame. Raises FrameTooLongError for what the other side would not accept."""
    longest = MAX_INPUT_BYTES if kind == STDIN_DATA else MAX_PAYLOAD_BYTES
    if len(payload) > longest:
        raise FrameTooLongError(
            f"a frame of type {kind} has at most {longest} bytes, this one {len(payload)}: split it"
        )
    return struct.pack(">BI", kind, len(payload)) + payload


def control(command: str, **members: Any) -> bytes:
    """A control message, such as `control("resize", cols=80, rows=24)`."""
    return encode(CONTROL_CMD, json.dumps({"cmd": command, **members}).encode())


def typed(data: bytes) -> Iterator[bytes]:
    """Frames for typed text of any length. No UTF-8 character is cut, so that the recording of
    the input shows it as it was typed."""
    start = 0
    while start < len(data):
        end = min(start + _INPUT_PIECE_BYTES, len(data))
        for shorter in range(end, max(start, end - 4), -1):
            if shorter == len(data) or data[shorter] & 0xC0 != 0x80:
                end = shorter
                break
        yield encode(STDIN_DATA, data[start:end])
        start = end
