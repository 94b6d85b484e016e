"""JSON Web Keys of type `oct`, the only ones that HS256 has (RFC 7518, 6.4)."""

from __future__ import annotations

import json
from typing import Any

from pyplue.jwt.base64url import base64url_decode
from pyplue.jwt.exceptions import InvalidKeyError, PyJWKError
from pyplue.jwt.key import Key
from pyplue.jwt.types import JWKDict

HS256 = "HS256"


class PyJWK:
    """A symmetric key in JSON Web Key form, which names the algorithm it is for.

    `decode` needs no `algorithms` beside it.

    Args:
        jwk_data: The parsed JWK: `kty` "oct" and `k`; optional `alg`, `kid` and `use`.
        algorithm: Replaces the JWK's own `alg`.

    Raises:
        InvalidKeyError: `kty` or `k` is missing, or `k` is no base64url or empty.
        PyJWKError: The key is for another algorithm than HS256.
    """

    def __init__(self, jwk_data: JWKDict, algorithm: str | None = None) -> None:
        kty = jwk_data.get("kty")
        if not kty:
            raise InvalidKeyError("kty is not found in the JWK")
        self.algorithm_name: str = algorithm or jwk_data.get("alg") or HS256
        if kty != "oct" or self.algorithm_name != HS256:
            raise PyJWKError(
                f"Unable to use a JWK of type {kty!r} for {self.algorithm_name!r}:"
                " pyplue.jwt has HS256 only, whose keys are of type 'oct'."
            )
        self._jwk_data = jwk_data
        try:
            self.key: bytes = base64url_decode(jwk_data["k"])
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise InvalidKeyError(f"Unable to construct key from JWK: {error}") from error
        self.prepared = Key(self.key)

    @staticmethod
    def from_dict(obj: JWKDict, algorithm: str | None = None) -> PyJWK:
        """The key of a parsed JWK."""
        return PyJWK(obj, algorithm)

    @staticmethod
    def from_json(data: str, algorithm: str | None = None) -> PyJWK:
        """The key of a JWK in JSON text."""
        obj: Any = json.loads(data)
        return PyJWK(obj, algorithm)

    @property
    def key_type(self) -> str | None:
        """`kty`, always "oct"."""
        return self._jwk_data.get("kty")

    @property
    def key_id(self) -> str | None:
        """`kid`, if the JWK has one."""
        return self._jwk_data.get("kid")

    @property
    def public_key_use(self) -> str | None:
        """`use`, if the JWK has one."""
        return self._jwk_data.get("use")
