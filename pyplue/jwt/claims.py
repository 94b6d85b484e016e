"""The types that registered claims have (RFC 7519, 4.1), checked before a token is signed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pyplue.jwt.exceptions import (
    DecodeError,
    InvalidAudienceError,
    InvalidIssuedAtError,
    InvalidJTIError,
    InvalidSubjectError,
    InvalidTokenError,
)


def is_numeric_date(value: object) -> bool:
    """Whether a time claim is a JSON number (RFC 7519, 2: NumericDate)."""
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def refuse_unverifiable(claims: Mapping[str, Any], headers: Mapping[str, Any] | None) -> None:
    """Raises what `decode` would raise at any time, whatever it is asked to expect.

    Raises:
        InvalidTokenError: The subclass that `decode` raises for this claim or header.
    """
    for name in ("exp", "nbf", "iat"):
        if name in claims and not is_numeric_date(claims[name]):
            error = InvalidIssuedAtError if name == "iat" else DecodeError
            raise error(
                f"{name} must be a number of seconds or a datetime, not"
                f" {type(claims[name]).__name__} {claims[name]!r:.40}"
            )
    if not isinstance(claims.get("sub", ""), str):
        raise InvalidSubjectError("Subject must be a string: write str(sub)")
    if not isinstance(claims.get("jti", ""), str):
        raise InvalidJTIError("JWT ID must be a string: write str(jti)")
    audience = claims.get("aud") or []
    if not isinstance(audience, str) and not (
        isinstance(audience, (list, tuple)) and all(isinstance(name, str) for name in audience)
    ):
        raise InvalidAudienceError("Audience must be a string or a list of strings")
    if headers and "crit" in headers:
        raise InvalidTokenError("No critical header extension is supported: leave out 'crit'")
    if headers and not isinstance(headers.get("typ") or "", str):
        raise InvalidTokenError("The header's typ must be a string")
