"""One secret for the whole process and tokens that last a while: `init`, `sign`, `verify`.

This is what a server needs for its session cookies: the issue time and the end are set, and a
token is either valid or not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pyplue.jwt import native
from pyplue.jwt.api_jws import MAX_TOKEN_BYTES, token_bytes
from pyplue.jwt.api_jwt import encode
from pyplue.jwt.duration import seconds
from pyplue.jwt.exceptions import InvalidKeyError, InvalidTokenError
from pyplue.jwt.json_text import loads
from pyplue.jwt.key import Key, KeySet, Secret

_key: Key | KeySet | None = None


def init(secret: Secret | KeySet) -> None:
    """Sets the secret of this process, or replaces it for all threads at once.

    A `KeySet` keeps the tokens of an older secret valid: `init(KeySet([new, old]))`. One made from
    a map goes by `kid`, as in `decode`.

    Raises:
        InvalidKeyError: The secret cannot be an HMAC key; the earlier one stays.
    """
    global _key
    _key = secret if isinstance(secret, (Key, KeySet)) else Key(secret)


def sign(payload: Mapping[str, Any], expires_in: str | float | timedelta | None = "7d") -> str:
    """Signs claims, with `iat` set to now and `exp` to the end of `expires_in`.

    Args:
        payload: The claims. `iat` and `exp` among them are replaced.
        expires_in: How long the token is valid, such as "7d", "2 hours", "1y" (365.25 days), a
            number of seconds, or a timedelta. None: for ever, without `exp`.

    Raises:
        InvalidKeyError: `init` was not called.
        ValueError: `expires_in` is no span of time.
        InvalidTokenError: A claim that `verify` would refuse.
    """
    now = int(time.time())
    claims = {**payload, "iat": now}
    if expires_in is None:
        claims.pop("exp", None)
    else:
        claims["exp"] = now + seconds(expires_in)
    return encode(claims, _current_key())


def verify(token: str | bytes) -> dict[str, Any] | None:
    """The claims of a valid token, or None for every other token.

    `aud`, `iss` and `sub` are left to the caller: a token for another audience passes. To learn why
    a token is refused use `decode`.

    Raises:
        InvalidKeyError: `init` was not called.
    """
    key = _current_key()
    if type(key) is Key and type(token) is str and token.isascii() and "\0" not in token:
        claims = native.verify_text(key.handle, token.encode())
        if claims is not None:
            return loads(claims)  # type: ignore[no-any-return]
    try:
        text = token_bytes(token, MAX_TOKEN_BYTES)
    except InvalidTokenError:
        return None
    keys = key.at_hand(text) if isinstance(key, KeySet) else key
    if keys is None:
        return None
    payload = native.verify_any(text, keys.handles)
    if payload is None and native.last_error() == native.UNKNOWN_KEY:
        raise InvalidKeyError("The key was wiped.")
    return None if payload is None else loads(payload)


def _current_key() -> Key | KeySet:
    if _key is None:
        raise InvalidKeyError("There is no secret yet: call pyplue.jwt.init(secret) first.")
    return _key
