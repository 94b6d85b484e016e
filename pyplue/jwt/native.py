"""libplue_jwt as this package calls it: bytes in, bytes or an error code out.

The rest of the package knows keys, tokens and claims; only this file knows the C functions, whose
contracts are in plue_jwt.h.
"""

from __future__ import annotations

import array
import struct
from collections.abc import Callable, Sequence
from typing import Any

from pyplue import ffi

_lib = ffi.jwt

MAX_KEYS_PER_CALL = 64
MAX_TOKEN_BYTES = 16 * 1024 * 1024
MAX_HEADER_BYTES = 8192
MAX_HEADER_CHARACTERS = (MAX_HEADER_BYTES * 4 + 2) // 3
"""The same in base64url."""
MAC_BYTES = 32

OK = 0
EMPTY_SECRET = -3
SECRET_TOO_LARGE = -4
ASYMMETRIC_KEY = -5
UNKNOWN_KEY = -6
KEY_COUNT = -7
OPTIONS = -10
HEADER_JSON = -31
HEADER_DUPLICATE = -32
TYP = -37
SIGNATURE_ENCODING = -40
SIGNATURE = -41
PAYLOAD_JSON = -51
PAYLOAD_DEPTH = -52
DUPLICATE_CLAIM = -53

PLAIN_REASONS = frozenset((HEADER_DUPLICATE, PAYLOAD_DEPTH, DUPLICATE_CLAIM))
"""What Python's own parser would not notice."""

_EXPLANATIONS = {
    PAYLOAD_DEPTH: "the payload is nested deeper than 128 levels",
    DUPLICATE_CLAIM: "a registered claim is given twice",
    HEADER_JSON: "the header is not strict JSON in UTF-8 (RFC 8259), or nested too deep",
    HEADER_DUPLICATE: "a header parameter is given twice",
    TYP: "the header's typ is not a string",
}

sign_text: Callable[[int, bytes], bytes | None] = _lib.unchecked("jwt_sign_text")
"""(key handle, payload): the token, or None."""

verify_text: Callable[[int, bytes], bytes | None] = _lib.unchecked("jwt_verify_text")
"""(key handle, token without NUL): the payload of a valid token, or None."""

last_error: Callable[[], int] = _lib.jwt_last_error
destroy_key: Callable[[int], bool] = _lib.jwt_key_destroy


def explain(code: int) -> str:
    """What is wrong, in words."""
    return _EXPLANATIONS.get(code) or error_name(code).replace("_", " ")


def error_name(code: int) -> str:
    """The library's name of an error."""
    name: bytes = _lib.jwt_error_name(code)
    return name.decode()


def create_key(secret: bytes) -> int:
    """A handle for a copy of the secret, or 0 and a reason in `last_error`."""
    handle: int = _lib.jwt_key_create(secret, len(secret))
    return handle


def pack_keys(handles: Sequence[int]) -> bytes:
    """Handles as the C functions for several keys take them."""
    return array.array("I", handles).tobytes()


_SYSTEM_CLOCK = -(2**63)
_CHECK_ALL_TIMES = 7
_DEFAULT_SIZE = 0


def verify_any(token: bytes, keys: bytes) -> bytes | None:
    """As `verify_text`, but with the first of several keys that matches."""
    code, payload, _ = verify(token, keys, _DEFAULT_SIZE, as_claims=True, checks=_CHECK_ALL_TIMES)
    return payload if code == OK else None


def verify(
    token: bytes, keys: bytes, max_token_bytes: int, *, as_claims: bool, checks: int = 0
) -> tuple[int, bytes, int]:
    """Verifies a token with the first key that matches.

    Returns:
        OK and the payload, or an error code and nothing; and the index of the matching key, which
        is -1 if there is none.
    """
    function = _lib.jwt_verify_with if as_claims else _lib.jwt_jws_verify
    options = struct.pack("=qqII", _SYSTEM_CLOCK, 0, checks, max_token_bytes)
    payload = ffi.buffer(len(token))
    index = ffi.buffer(4)
    length: int = function(
        token, len(token), keys, len(keys) // 4, options, payload, len(token), index
    )
    if length < 0:
        return length, b"", _signed(index)
    return OK, payload[:length], _signed(index)


def _signed(buffer: Any) -> int:
    number: int = struct.unpack("=i", buffer)[0]
    return number


def mac(key: int, data: bytes) -> bytes | None:
    """HMAC-SHA256 of any bytes, or None for a key that is no longer alive."""
    out = ffi.buffer(MAC_BYTES)
    return out[:MAC_BYTES] if _lib.jwt_mac(key, data, len(data), out) else None
