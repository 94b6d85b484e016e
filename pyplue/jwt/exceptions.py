"""What pyplue.jwt raises: PyJWT's names and hierarchy.

Every class also derives from `pyplue.errors.PlueError` and from the built-in that fits, so that
`except jwt.PyJWTError`, `except PlueError` and `except ValueError` all do what they say.
"""

from __future__ import annotations

from pyplue.errors import PlueError


class PyJWTError(PlueError):
    """The base of all errors of this package."""


class InvalidTokenError(PyJWTError, ValueError):
    """The token is refused. Each reason is a subclass."""


class DecodeError(InvalidTokenError):
    """The token is malformed: its segments, its header, its payload or the type of a claim."""


class InvalidSignatureError(DecodeError):
    """No key given to `decode` made this signature."""


class ExpiredSignatureError(InvalidTokenError):
    """The current time is on or after `exp` (RFC 7519, 4.1.4)."""


class ImmatureSignatureError(InvalidTokenError):
    """The current time is before `nbf`, or before `iat` (RFC 7519, 4.1.5 and 4.1.6)."""


class InvalidIssuedAtError(InvalidTokenError):
    """`iat` is not a number (RFC 7519, 4.1.6)."""


class InvalidAudienceError(InvalidTokenError):
    """`aud` does not name the expected audience (RFC 7519, 4.1.3)."""


class InvalidIssuerError(InvalidTokenError):
    """`iss` is not the expected issuer (RFC 7519, 4.1.1)."""


class InvalidSubjectError(InvalidTokenError):
    """`sub` is not a string, or not the expected subject (RFC 7519, 4.1.2)."""


class InvalidJTIError(InvalidTokenError):
    """`jti` is not a string (RFC 7519, 4.1.7)."""


class InvalidAlgorithmError(InvalidTokenError):
    """The header's `alg` is missing, is not HS256, or is not among the algorithms allowed."""


class MissingRequiredClaimError(InvalidTokenError):
    """A claim that the caller asked for is not in the token. `claim` is its name."""

    def __init__(self, claim: str) -> None:
        super().__init__(claim)
        self.claim = claim

    def __str__(self) -> str:
        return f'Token is missing the "{self.claim}" claim'


class InvalidKeyError(PyJWTError, ValueError):
    """The secret is unfit for HMAC: empty, an asymmetric key, a certificate, or a JWK's text."""


class UnsupportedAlgorithmError(InvalidAlgorithmError, NotImplementedError):
    """`encode` was asked for an algorithm other than HS256 (PyJWT: NotImplementedError)."""


class PyJWKError(PyJWTError, ValueError):
    """A JSON Web Key that this package cannot use: it is not an HS256 key."""
