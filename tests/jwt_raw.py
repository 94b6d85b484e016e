"""Calls of the raw C functions of libplue_jwt that several tests make."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator

from pyplue import ffi

SYSTEM_CLOCK = -(2**63)
CHECK_ALL = 7


def error() -> str:
    """The name of this thread's last error."""
    return ffi.jwt.jwt_error_name(ffi.jwt.jwt_last_error()).decode()


@contextlib.contextmanager
def key(secret: bytes) -> Iterator[int]:
    """A key handle that is destroyed at the end."""
    handle = ffi.jwt.jwt_key_create(secret, len(secret))
    assert handle, error()
    try:
        yield handle
    finally:
        assert ffi.jwt.jwt_key_destroy(handle)


def verify_with(
    token: bytes,
    handles: list[int],
    *,
    now_s: int = SYSTEM_CLOCK,
    leeway_s: int = 0,
    checks: int = CHECK_ALL,
    function: str = "jwt_verify_with",
) -> tuple[bytes | str, int]:
    """The payload or the name of the error, and the index of the key that matched."""
    options = struct.pack("=qqII", now_s, leeway_s, checks, 0)
    keys = struct.pack(f"={len(handles)}I", *handles)
    out = ffi.buffer(len(token) + 1)
    index = ffi.buffer(4)
    length = getattr(ffi.jwt, function)(
        token, len(token), keys, len(handles), options, out, len(token) + 1, index
    )
    position = struct.unpack("=i", index.raw)[0]
    if length < 0:
        assert length == ffi.jwt.jwt_last_error()
        return error(), position
    return out.raw[:length], position


def owned(pointer: int | None) -> bytes | None:
    """A result of jwt_sign or jwt_verify as bytes, which is freed."""
    if pointer is None:
        return None
    try:
        return ffi.text(pointer)
    finally:
        ffi.jwt.jwt_free(pointer)
