"""The typed options of `decode`, `encode` and `PyJWT`."""

from __future__ import annotations

from typing import Any, TypedDict

JWKDict = dict[str, Any]


class SigOptions(TypedDict, total=False):
    """What a `PyJWS` object can be told."""

    verify_signature: bool
    enforce_minimum_key_length: bool
    max_token_bytes: int


class Options(TypedDict, total=False):
    """What `decode`, `encode` and a `PyJWT` object can be told.

    The `verify_` options are on unless `verify_signature` is off: then each is off unless it is
    asked for. A claim that is absent passes its check, unless a value for it is given to `decode`;
    `require` is for those that must be there.
    """

    verify_signature: bool
    """Check the signature. Without it nothing in the token can be trusted."""
    verify_exp: bool
    """Refuse the token on and after `exp`."""
    verify_nbf: bool
    """Refuse the token before `nbf`."""
    verify_iat: bool
    """Refuse an `iat` that lies in the future."""
    verify_aud: bool
    """Compare `aud` with the argument `audience`."""
    verify_iss: bool
    """Compare `iss` with the argument `issuer`."""
    verify_sub: bool
    """`sub` is a string, and the one given as `subject`."""
    verify_jti: bool
    """`jti` is a string."""
    require: list[str]
    """Claims that must be present and not null. Default: none."""
    strict_aud: bool
    """`aud` and `audience` are one string each, and the same. Default: off."""
    enforce_minimum_key_length: bool
    """A secret under 32 bytes is an InvalidKeyError instead of a warning. Default: off."""
    max_token_bytes: int
    """Longer tokens are refused before they are looked at. Default: 65536; at most 16 MiB."""
    strict_times: bool
    """`exp`, `nbf` and `iat` are JSON numbers (RFC 7519, 2: NumericDate). Off: also a string of
    digits or a boolean, as PyJWT takes them. Default: on for the functions of the module, off for
    a `PyJWT()` that is made without options."""
    strict_sub: bool
    """Where `subject` is given, a token without `sub` is refused, as one without `aud` or `iss` is
    where these are given. Off: it passes, as in PyJWT. Default: as `strict_times`."""
    strict_encode: bool
    """`encode` refuses claims and headers which `decode` would always refuse. Default: as
    `strict_times`."""


class FullOptions(TypedDict):
    """`Options` with every value filled in."""

    verify_signature: bool
    verify_exp: bool
    verify_nbf: bool
    verify_iat: bool
    verify_aud: bool
    verify_iss: bool
    verify_sub: bool
    verify_jti: bool
    require: list[str]
    strict_aud: bool
    enforce_minimum_key_length: bool
    max_token_bytes: int
    strict_times: bool
    strict_sub: bool
    strict_encode: bool
