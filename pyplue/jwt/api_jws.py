"""JSON Web Signatures (RFC 7515) with HS256: any bytes in, a signed token out, and back."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, cast

from pyplue.jwt import native
from pyplue.jwt.api_jwk import HS256, PyJWK
from pyplue.jwt.base64url import base64url_decode, base64url_encode
from pyplue.jwt.exceptions import (
    DecodeError,
    InvalidAlgorithmError,
    InvalidKeyError,
    InvalidSignatureError,
    InvalidTokenError,
    UnsupportedAlgorithmError,
)
from pyplue.jwt.key import Key, KeySet, Secret, prepare_secret
from pyplue.jwt.types import SigOptions
from pyplue.jwt.warnings import RemovedInPyjwt3Warning

AnyKey = Secret | PyJWK | KeySet | Sequence[Secret | PyJWK] | Mapping[str, Secret | PyJWK]
"""What `encode` and `decode` take as a key: a secret, a prepared key, or several of them."""

ALGORITHM_UNSET = cast("str | None", object())

_OTHER_ALGORITHMS = frozenset(
    ["none", "EdDSA", "Ed25519", "Ed448", "ES256K"]
    + [kind + size for kind in ("HS", "RS", "PS", "ES") for size in ("256", "384", "512")]
)

MAX_TOKEN_BYTES = 65536
"""The longest token that is taken apart, unless the option `max_token_bytes` says otherwise."""


class Verified(NamedTuple):
    """What is known of a token whose signature is right."""

    payload: bytes
    matched_key: str | int | None
    """With several keys: the `kid` of the one that matched, or its index."""
    is_json: bool
    """Whether the library has found the payload to be one JSON object (RFC 8259, UTF-8)."""


class PyJWS:
    """Signs and verifies bytes. For JSON Web Tokens use `PyJWT` or the module's functions."""

    header_typ = "JWT"

    def __init__(
        self, algorithms: Sequence[str] | None = None, options: SigOptions | None = None
    ) -> None:
        self._algorithms = [name for name in (HS256,) if algorithms is None or name in algorithms]
        self.options: SigOptions = {
            "verify_signature": True,
            "enforce_minimum_key_length": False,
            "max_token_bytes": MAX_TOKEN_BYTES,
        }
        if options is not None:
            self.options = {**self.options, **options}
        checked_size(self.options)

    def get_algorithms(self) -> list[str]:
        """The algorithms of this object: HS256, unless it was left out when it was made."""
        return list(self._algorithms)

    def encode(
        self,
        payload: bytes,
        key: AnyKey,
        algorithm: str | None = ALGORITHM_UNSET,
        headers: Mapping[str, Any] | None = None,
        json_encoder: type[json.JSONEncoder] | None = None,
        is_payload_detached: bool = False,
        sort_headers: bool = True,
    ) -> str:
        """Signs `payload` and returns the token.

        Args:
            payload: Any bytes.
            key: A secret, `Key` or `PyJWK`; of several the first one signs.
            algorithm: "HS256" or nothing. An `alg` in `headers` goes before it.
            headers: Further header parameters, such as `kid`.
            json_encoder: The class that writes the header.
            is_payload_detached: Not supported: RFC 7797 tokens are refused everywhere here.
            sort_headers: Write the header's members in alphabetical order.

        Raises:
            UnsupportedAlgorithmError: Another algorithm than HS256 (a NotImplementedError).
            InvalidTokenError: `kid` is not a string, or the payload would be detached.
            InvalidKeyError: The key cannot be an HMAC secret.
        """
        header = self._header(key, algorithm, headers, is_payload_detached)
        header_json = json.dumps(
            header, separators=(",", ":"), cls=json_encoder, sort_keys=sort_headers
        )
        signer = self.signing_key(key)
        signing_input = base64url_encode(header_json.encode()) + b"." + base64url_encode(payload)
        mac = native.mac(signer.handle, signing_input)
        if mac is None:
            raise InvalidKeyError("The key was wiped.")
        return (signing_input + b"." + base64url_encode(mac)).decode()

    def _header(
        self,
        key: AnyKey,
        algorithm: str | None,
        headers: Mapping[str, Any] | None,
        is_payload_detached: bool,
    ) -> dict[str, Any]:
        if algorithm is ALGORITHM_UNSET or (algorithm is None and isinstance(key, PyJWK)):
            algorithm = HS256
        header: dict[str, Any] = {"typ": self.header_typ, "alg": algorithm or "none"}
        if isinstance(key, Mapping):
            header["kid"] = next(iter(key), None)
        elif isinstance(key, KeySet) and key.names is not None:
            header["kid"] = key.names[0]
        if headers:
            header.update(headers)
            self._validate_kid(header)
        if is_payload_detached or header.get("b64") is False:
            raise InvalidTokenError(
                "A detached payload (b64: false, with or without crit, RFC 7797) is not supported"
            )
        header.pop("b64", None)
        if not header["typ"]:
            del header["typ"]
        self._require_supported(header["alg"])
        return header

    def _require_supported(self, algorithm: object) -> None:
        if algorithm in self._algorithms:
            return
        if algorithm in _OTHER_ALGORITHMS:
            raise UnsupportedAlgorithmError(
                f"Algorithm {algorithm!r} is not supported: pyplue.jwt has HS256 only"
            )
        raise UnsupportedAlgorithmError("Algorithm not supported")

    def signing_key(self, key: AnyKey) -> Key:
        """The key that signs: the only one, or the first of several."""
        keys = self._prepare(key, self.options)
        return keys.keys[0] if isinstance(keys, KeySet) else keys

    @staticmethod
    def _prepare(key: AnyKey, options: SigOptions) -> Key | KeySet:
        enforce = options.get("enforce_minimum_key_length", False)

        def prepared(one: Secret | PyJWK) -> Key:
            return prepare_secret(
                one.prepared if isinstance(one, PyJWK) else one, enforce_length=enforce
            )

        if isinstance(key, (Key, PyJWK, str, bytes)):
            return prepared(key)
        if isinstance(key, KeySet):
            for one in key.keys:
                prepared(one)
            return key
        if isinstance(key, Mapping):
            return KeySet({name: prepared(one) for name, one in key.items()})
        if isinstance(key, (list, tuple)):
            return KeySet([prepared(one) for one in key])
        raise TypeError("Expected a string or bytes value, a Key, or several of them")

    def decode_complete(
        self,
        jwt: str | bytes,
        key: AnyKey = "",
        algorithms: Sequence[str] | None = None,
        options: SigOptions | None = None,
        detached_payload: bytes | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Verifies a token and returns its `payload` (bytes), `header` and `signature`.

        With several keys the result also has `matched_key`: the `kid` of the key that made the
        signature, or its index in the list.

        Raises:
            DecodeError: The token is malformed.
            InvalidSignatureError: No key made this signature.
            InvalidAlgorithmError: `alg` is not HS256 or not in `algorithms`.
            InvalidKeyError: The key cannot be an HMAC secret.
        """
        warn_unsupported("decode_complete", kwargs)
        merged: SigOptions = self.options if options is None else {**self.options, **options}
        checked_size(merged)
        matched_key = None
        if merged["verify_signature"]:
            matched_key = self.verify(jwt, key, algorithms, merged).matched_key
        payload, header, signature = self._load(jwt, merged)
        self._validate_header(header)
        if detached_payload is not None:
            raise DecodeError(
                'It is only valid to pass "detached_payload" when the protected header has "b64"'
                " set to false, and such tokens are not supported."
            )
        decoded: dict[str, Any] = {"payload": payload, "header": header, "signature": signature}
        if matched_key is not None:
            decoded["matched_key"] = matched_key
        return decoded

    def decode(
        self,
        jwt: str | bytes,
        key: AnyKey = "",
        algorithms: Sequence[str] | None = None,
        options: SigOptions | None = None,
        detached_payload: bytes | None = None,
        **kwargs: Any,
    ) -> bytes:
        """Verifies a token and returns its payload. Raises what `decode_complete` raises."""
        warn_unsupported("decode", kwargs)
        decoded = self.decode_complete(jwt, key, algorithms, options, detached_payload)
        return cast(bytes, decoded["payload"])

    def get_unverified_header(self, jwt: str | bytes) -> dict[str, Any]:
        """The token's header, of which nothing has been verified.

        Raises:
            InvalidTokenError: The token is malformed, or its `kid` or `crit` is.
        """
        header = self._load(jwt, self.options)[1]
        self._validate_header(header)
        return header

    def verify(
        self,
        jwt: str | bytes,
        key: AnyKey,
        algorithms: Sequence[str] | None,
        options: SigOptions,
        *,
        as_claims: bool = False,
    ) -> Verified:
        """Verifies a token in one native call, for all keys.

        With `as_claims` the payload must be acceptable as claims: not nested too deep, no
        registered claim twice. Whether it is strict JSON shows in the result's `is_json`, so that
        the caller can look for the exact reason before it refuses the token.

        Raises: what `decode_complete` raises.
        """
        if not algorithms and not _is_for_hs256(key):
            raise DecodeError(
                'It is required that you pass in a value for the "algorithms" argument when'
                " calling decode()."
            )
        token = token_bytes(jwt, options["max_token_bytes"])
        if token.find(b".") > native.MAX_HEADER_CHARACTERS:
            raise DecodeError(f"The header is larger than {native.MAX_HEADER_BYTES} bytes")
        try:
            keys = self._prepare(key, options)
            if isinstance(keys, KeySet) and keys.names is not None:
                keys = keys.narrowed_to(self._load(token, options)[1].get("kid"))
            if not (HS256 in self._algorithms and self._is_allowed(HS256, algorithms)):
                raise InvalidAlgorithmError("The specified alg value is not allowed")
        except (InvalidKeyError, TypeError, ValueError):
            # What is wrong with the token itself goes first.
            self._explain(token, algorithms, options)
            raise
        code, payload, index = native.verify(
            token,
            keys.handles,
            options["max_token_bytes"],
            as_claims=as_claims,
        )
        matched_key = keys.label(index) if isinstance(keys, KeySet) else None
        if code == native.OK:
            return Verified(payload, matched_key, is_json=as_claims)
        if code == native.PAYLOAD_JSON:
            return Verified(self._load(token, options)[0], matched_key, is_json=False)
        if code in native.PLAIN_REASONS:
            raise DecodeError(f"Invalid token: {native.explain(code)}")
        self._explain(token, algorithms, options)
        if code in (native.SIGNATURE, native.SIGNATURE_ENCODING):
            raise InvalidSignatureError("Signature verification failed")
        if code == native.UNKNOWN_KEY:
            raise InvalidKeyError("The key was wiped.")
        raise DecodeError(f"Invalid token: {native.explain(code)}")

    def _explain(self, token: bytes, algorithms: Sequence[str] | None, options: SigOptions) -> None:
        """Raises what is wrong with a token's form and header, in the order of RFC 7515, 5.2."""
        header = self._load(token, options)[1]
        self._validate_header(header)
        if "alg" not in header:
            raise InvalidAlgorithmError("Algorithm not specified")
        if not self._is_allowed(header["alg"], algorithms):
            raise InvalidAlgorithmError("The specified alg value is not allowed")
        if header["alg"] not in self._algorithms:
            raise InvalidAlgorithmError("Algorithm not supported")

    @staticmethod
    def _is_allowed(algorithm: object, algorithms: Sequence[str] | None) -> bool:
        if not isinstance(algorithm, str):
            return False
        if algorithms is None or isinstance(algorithms, str):
            return algorithms is None or algorithm == algorithms
        return algorithm in algorithms

    def _load(self, jwt: str | bytes, options: SigOptions) -> tuple[bytes, dict[str, Any], bytes]:
        """Takes a token apart: payload, header and signature. Nothing is verified."""
        segments = token_bytes(jwt, options["max_token_bytes"]).split(b".")
        if len(segments) != 3:
            raise DecodeError("Not enough segments" if len(segments) < 3 else "Too many segments")
        header_json = self._decode_base64url_segment(segments[0], "header")
        try:
            header = json.loads(header_json.decode())
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"Invalid header string: {error}") from error
        if not isinstance(header, dict):
            raise DecodeError("Invalid header string: must be a json object")
        payload = self._decode_base64url_segment(segments[1], "payload")
        return payload, header, self._decode_base64url_segment(segments[2], "crypto")

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        try:
            return base64url_decode(segment)
        except ValueError as error:
            raise DecodeError(f"Invalid {name} padding") from error

    def _validate_header(self, header: dict[str, Any]) -> None:
        self._validate_kid(header)
        if "crit" in header:
            self._refuse_crit(header)
        if header.get("b64", True) is not True:
            raise InvalidTokenError(
                "A detached payload (b64: false, with or without crit, RFC 7797) is not supported"
            )

    @staticmethod
    def _validate_kid(header: Mapping[str, Any]) -> None:
        if not isinstance(header.get("kid", ""), str):
            raise InvalidTokenError("Key ID header parameter must be a string")

    @staticmethod
    def _refuse_crit(header: Mapping[str, Any]) -> NoReturn:
        """No extension is understood here, so that any `crit` is refused (RFC 7515, 4.1.11)."""
        crit = header["crit"]
        if not isinstance(crit, list) or not crit:
            raise InvalidTokenError("Invalid 'crit' header: must be a non-empty list")
        for name in crit:
            if not isinstance(name, str):
                raise InvalidTokenError("Invalid 'crit' header: values must be strings")
            if name not in header:
                raise InvalidTokenError(
                    f"Unsupported critical extension: {name}, which is missing from headers"
                )
        raise InvalidTokenError(f"Unsupported critical extension: {crit[0]}")


def _is_for_hs256(key: AnyKey) -> bool:
    """Whether a key says which algorithm it is for, so that `algorithms` is not needed."""
    if isinstance(key, (list, tuple)):
        return all(isinstance(each, (Key, PyJWK)) for each in key)
    return isinstance(key, (Key, KeySet, PyJWK))


def token_bytes(jwt: str | bytes, limit: int) -> bytes:
    """The token as bytes, of which there may be `limit`.

    Raises:
        DecodeError: It is neither str nor bytes, is no valid text, or is larger.
    """
    if not isinstance(jwt, (str, bytes)):
        raise DecodeError("Invalid token type. Token must be str or bytes")
    # No text is shorter in bytes, so that a huge one is never copied.
    if len(jwt) <= limit:
        try:
            token = jwt.encode() if isinstance(jwt, str) else jwt
        except UnicodeEncodeError as error:
            raise DecodeError("Invalid token: it is not valid text") from error
        if len(token) <= limit:
            return token
    raise DecodeError(f"The token is larger than {limit} bytes (option max_token_bytes)")


def checked_size(options: Mapping[str, Any]) -> int:
    """The option `max_token_bytes`. Raises ValueError if it is out of range."""
    size: int = options["max_token_bytes"]
    if not isinstance(size, int) or not 1 <= size <= native.MAX_TOKEN_BYTES:
        raise ValueError(f"max_token_bytes must be 1 to {native.MAX_TOKEN_BYTES}, not {size!r}")
    return size


def warn_unsupported(function: str, arguments: Mapping[str, Any]) -> None:
    """Warns of keyword arguments that PyJWT 2 takes and ignores."""
    if arguments:
        warnings.warn(
            f"{function}() ignores the arguments {tuple(arguments)}; a later version will refuse"
            " them.",
            RemovedInPyjwt3Warning,
            stacklevel=3,
        )
