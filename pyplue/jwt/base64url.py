"""Base64url as RFC 7515 has it: no padding, and one spelling for each value."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode

_ALPHABET = re.compile(rb"[A-Za-z0-9_-]*")


def base64url_encode(data: bytes) -> bytes:
    """`data` in base64url without padding (RFC 7515, 2)."""
    return urlsafe_b64encode(data).rstrip(b"=")


def base64url_decode(text: bytes | str) -> bytes:
    """The bytes that `text` stands for.

    Raises:
        ValueError: for padding, white space, a character outside the alphabet, an impossible
            length or a last character whose unused bits are not zero (RFC 4648, 3.5).
    """
    segment = text.encode() if isinstance(text, str) else text
    if len(segment) % 4 == 1 or not _ALPHABET.fullmatch(segment):
        raise ValueError("not base64url without padding")
    decoded = urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
    if base64url_encode(decoded) != segment:
        raise ValueError("not base64url without padding: the last character is not canonical")
    return decoded
