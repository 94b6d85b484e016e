"""JSON Web Tokens (RFC 7519) with HS256, under PyJWT's names.

`encode` and `decode` do the common case in one native call. What that call refuses goes the long
way, which finds the exact reason, and so does what it does not know: other options, leeway, several
keys. The long way verifies with the library too; no other code here accepts a signature.
"""

from __future__ import annotations

import functools
import json
import math
import time
import warnings
from calendar import timegm
from collections.abc import Container, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, cast

from pyplue.jwt.api_jwk import HS256
from pyplue.jwt.api_jws import (
    ALGORITHM_UNSET,
    MAX_TOKEN_BYTES,
    AnyKey,
    PyJWS,
    checked_size,
    warn_unsupported,
)
from pyplue.jwt.base64url import base64url_encode
from pyplue.jwt.claims import is_numeric_date, refuse_unverifiable
from pyplue.jwt.exceptions import (
    DecodeError,
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAudienceError,
    InvalidIssuedAtError,
    InvalidIssuerError,
    InvalidJTIError,
    InvalidSubjectError,
    InvalidTokenError,
    MissingRequiredClaimError,
)
from pyplue.jwt.json_text import (
    DIGITS_TO_ZERO,
    PERHAPS_BEYOND_64_BITS,
    dumps,
    fast_loads,
    loads,
    standard_dumps,
    standard_loads,
)
from pyplue.jwt.key import Key, KeySet, cached
from pyplue.jwt.native import mac, sign_text, verify_text
from pyplue.jwt.types import FullOptions, Options, SigOptions

_DEFAULTS: FullOptions = {
    "verify_signature": True,
    "verify_exp": True,
    "verify_nbf": True,
    "verify_iat": True,
    "verify_aud": True,
    "verify_iss": True,
    "verify_sub": True,
    "verify_jti": True,
    "require": [],
    "strict_aud": False,
    "enforce_minimum_key_length": False,
    "max_token_bytes": MAX_TOKEN_BYTES,
    "strict_times": False,
    "strict_sub": False,
    "strict_encode": False,
}
_VERIFY_CLAIMS = (
    "verify_exp",
    "verify_nbf",
    "verify_iat",
    "verify_aud",
    "verify_iss",
    "verify_sub",
    "verify_jti",
)
_TIMES = ("exp", "nbf", "iat")
_STRICTER = ("strict_times", "strict_sub", "strict_encode")

STRICT: Options = {"strict_times": True, "strict_sub": True, "strict_encode": True}
"""What the functions of the module add to the options of `PyJWT()`."""


class PyJWT:
    """Signs and verifies tokens with its own options.

    `PyJWT()` behaves as PyJWT's class of this name does; `PyJWT(STRICT)` is what the functions of
    the module use. A subclass may override `_encode_payload`, `_decode_payload` and the
    `_validate_` methods, as with PyJWT.
    """

    def __init__(self, options: Options | None = None) -> None:
        self._options = _merge(_DEFAULTS, options)
        # The one-call way does the default checks. The strict options make no difference to it: it
        # takes nothing that `strict_times` and `strict_encode` would refuse, and `_validate_names`
        # knows `strict_sub`.
        self._is_plain = type(self) is PyJWT and {
            name: value for name, value in self._options.items() if name not in _STRICTER
        } == {name: value for name, value in _DEFAULTS.items() if name not in _STRICTER}
        self._jws = PyJWS(options=_signature_options(self._options))

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of this object, to read. Make another object for other options."""
        return MappingProxyType(self._options)

    def encode(
        self,
        payload: dict[str, Any],
        key: AnyKey,
        algorithm: str | None = ALGORITHM_UNSET,
        headers: Mapping[str, Any] | None = None,
        json_encoder: type[json.JSONEncoder] | None = None,
        sort_headers: bool = True,
    ) -> str:
        """Signs claims and returns the token.

        Args:
            payload: The claims. `exp`, `nbf` and `iat` may be datetimes; they become whole
                seconds since 1970. The dict is not changed.
            key: A secret, `Key` or `PyJWK`. Of several keys the first one signs.
            algorithm: "HS256" or nothing. An `alg` in `headers` goes before it.
            headers: Further header parameters, such as `kid`.
            json_encoder: The class that writes claims and headers.
            sort_headers: Write the header's members in alphabetical order.

        Raises:
            TypeError: `payload` is no dict, `iss` is no string, or a value has no JSON form.
            InvalidTokenError: A claim or header that `decode` would always refuse, as the class
                that `decode` would raise. This is the option `strict_encode`.
            UnsupportedAlgorithmError: Another algorithm than HS256 (a NotImplementedError).
            InvalidKeyError: The key cannot be an HMAC secret.
        """
        if (
            self._is_plain
            and type(payload) is dict
            and (algorithm is ALGORITHM_UNSET or algorithm == HS256)
            and json_encoder is None
            and sort_headers
            and type(payload.get("aud", "")) is str
            and type(payload.get("iss", "")) is str
            and type(payload.get("sub", "")) is str
            and type(payload.get("jti", "")) is str
        ):
            prepared = cached(key) if type(key) is str or type(key) is bytes else key
            kid = None
            if type(prepared) is KeySet:
                kid = prepared.names[0] if prepared.names else None
                prepared = prepared.keys[0]
            if headers is not None:
                kid = headers.get("kid") if len(headers) == 1 else None
                prepared = prepared if type(kid) is str else None
            if type(prepared) is Key:
                text = dumps(payload)
                token = None if text is None else sign_text(prepared.handle, text)
                if token is not None:
                    named = token if kid is None else _with_kid(token, kid, prepared)
                    if named is not None:
                        return named.decode()
        return self._encode(payload, key, algorithm, headers, json_encoder, sort_headers)

    def _encode(
        self,
        payload: dict[str, Any],
        key: AnyKey,
        algorithm: str | None,
        headers: Mapping[str, Any] | None,
        json_encoder: type[json.JSONEncoder] | None,
        sort_headers: bool,
    ) -> str:
        if not isinstance(payload, dict):
            raise TypeError(
                "Expecting a dict object, as JWT only supports JSON objects as payloads."
            )
        payload = payload.copy()
        moments = [name for name in _TIMES if isinstance(payload.get(name), datetime)]
        if moments:
            for name in moments:
                payload[name] = timegm(payload[name].utctimetuple())
            return PyJWT.encode(self, payload, key, algorithm, headers, json_encoder, sort_headers)
        if not isinstance(payload.get("iss", ""), str):
            raise TypeError("Issuer (iss) must be a string.")
        if self._options["strict_encode"]:
            refuse_unverifiable(payload, headers)
        text = self._encode_payload(payload, headers=headers, json_encoder=json_encoder)
        token = self._jws.encode(
            text, key, algorithm, headers, json_encoder, sort_headers=sort_headers
        )
        if self._options["strict_encode"] and self._reads_json:
            # What is left, such as size, depth and a name given twice, shows in the token itself.
            verified = self._jws.verify(
                token,
                self._jws.signing_key(key),
                [HS256],
                _signature_options(self._options),
                as_claims=True,
            )
            if not verified.is_json:
                raise DecodeError("The payload is not strict JSON (RFC 8259)")
        return token

    def _encode_payload(
        self,
        payload: dict[str, Any],
        headers: Mapping[str, Any] | None = None,
        json_encoder: type[json.JSONEncoder] | None = None,
    ) -> bytes:
        """The bytes to sign. For subclasses that write the claims in another way."""
        text = dumps(payload) if json_encoder is None else None
        if text is not None:
            return text
        return standard_dumps(payload, json_encoder, not self._options["strict_encode"])

    def decode(
        self,
        jwt: str | bytes,
        key: AnyKey = "",
        algorithms: Sequence[str] | None = None,
        options: Options | None = None,
        verify: bool | None = None,
        detached_payload: bytes | None = None,
        audience: str | Iterable[str] | None = None,
        subject: str | None = None,
        issuer: str | Container[str] | None = None,
        leeway: float | timedelta = 0,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Verifies a token and returns its claims.

        Args:
            jwt: The token in compact serialization.
            key: A secret, `Key` or `PyJWK`; a list of them; a map from `kid` to them; a `KeySet`.
            algorithms: Must contain "HS256". May be left out with a `Key`, `KeySet` or `PyJWK`,
                which are for HS256 alone.
            options: What to check, see `Options`.
            verify: Ignored, as in PyJWT 2.
            detached_payload: Not supported.
            audience: What `aud` must be or contain; of several names one suffices. A token with
                `aud` is refused when this is not given.
            subject: What `sub` must be. Whether it may be missing says the option `strict_sub`.
            issuer: What `iss` must be, or a container that it must be in.
            leeway: Seconds by which `exp`, `nbf` and `iat` may be off.

        Raises:
            InvalidTokenError: The token is refused; see the subclasses.
            InvalidKeyError: The key cannot be an HMAC secret.
            TypeError: An argument has the wrong type.
        """
        if (
            self._is_plain
            and options is None
            and verify is None
            and detached_payload is None
            and not leeway
            and not kwargs
        ):
            if type(algorithms) is list and HS256 in algorithms:
                prepared = cached(key) if type(key) is str or type(key) is bytes else key
            else:
                prepared = key if algorithms is None else None
            # From here on each call that is left out shows in `./dev bench jwt`.
            if type(jwt) is str and "\0" not in jwt:
                try:
                    token = jwt.encode()
                except UnicodeEncodeError:  # the long way says so
                    token = b""
                if type(prepared) is Key:
                    text = verify_text(prepared.handle, token)
                elif type(prepared) is KeySet and len(token) <= MAX_TOKEN_BYTES:
                    text = prepared.verify_text(token)
                else:
                    text = None
                if text is not None:
                    claims: dict[str, Any]
                    try:  # what `loads` does
                        large = text.translate(DIGITS_TO_ZERO).partition(PERHAPS_BEYOND_64_BITS)[1]
                        claims = standard_loads(text) if large else fast_loads(text)
                    except ValueError:
                        claims = standard_loads(text)
                    if (
                        audience is not None
                        or issuer is not None
                        or subject is not None
                        or "aud" in claims
                        or ("sub" in claims and type(claims["sub"]) is not str)
                        or ("jti" in claims and type(claims["jti"]) is not str)
                    ):
                        self._validate_names(claims, self._options, audience, issuer, subject)
                    return claims
        warn_unsupported("decode", kwargs)
        decoded = self._decode(
            jwt,
            key,
            algorithms,
            options,
            verify,
            detached_payload,
            audience,
            issuer,
            subject,
            leeway,
        )
        return cast(dict[str, Any], decoded["payload"])

    def decode_complete(
        self,
        jwt: str | bytes,
        key: AnyKey = "",
        algorithms: Sequence[str] | None = None,
        options: Options | None = None,
        verify: bool | None = None,
        detached_payload: bytes | None = None,
        audience: str | Iterable[str] | None = None,
        issuer: str | Container[str] | None = None,
        subject: str | None = None,
        leeway: float | timedelta = 0,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As `decode`, but returns the whole token: `payload`, `header` and `signature`.

        With several keys the result also has `matched_key`: the `kid` of the key that made the
        signature, or its index in the list.
        """
        warn_unsupported("decode_complete", kwargs)
        decoded = self._decode(
            jwt,
            key,
            algorithms,
            options,
            verify,
            detached_payload,
            audience,
            issuer,
            subject,
            leeway,
        )
        if "header" not in decoded:
            whole: SigOptions = {
                "verify_signature": False,
                "max_token_bytes": _merge(self._options, options)["max_token_bytes"],
            }
            decoded = {**self._jws.decode_complete(jwt, options=whole), **decoded}
        return decoded

    def _decode(
        self,
        jwt: str | bytes,
        key: AnyKey,
        algorithms: Sequence[str] | None,
        options: Options | None,
        verify: bool | None,
        detached_payload: bytes | None,
        audience: str | Iterable[str] | None,
        issuer: str | Container[str] | None,
        subject: str | None,
        leeway: float | timedelta,
    ) -> dict[str, Any]:
        merged = _merge(self._options, options)
        # As in PyJWT, only the options of the call itself can switch the signature off.
        must_verify = options is None or options.get("verify_signature", True)
        if verify is not None and verify != must_verify:
            warnings.warn(
                "The argument `verify` does nothing: the option `verify_signature` decides, and"
                " here the two differ.",
                DeprecationWarning,
                stacklevel=3,
            )
        signature_options = _signature_options(merged)
        signature_options["verify_signature"] = bool(must_verify)
        is_strict_json = True
        if must_verify and detached_payload is None and self._reads_json:
            verified = self._jws.verify(jwt, key, algorithms, signature_options, as_claims=True)
            is_strict_json = verified.is_json
            decoded: dict[str, Any] = {"payload": verified.payload}
            claims = loads(verified.payload) if is_strict_json else self._decode_payload(decoded)
            if verified.matched_key is not None:
                decoded["matched_key"] = verified.matched_key
        else:
            decoded = self._jws.decode_complete(
                jwt, key, algorithms, signature_options, detached_payload
            )
            claims = self._decode_payload(decoded)
        self._validate_claims(claims, merged, audience, issuer, subject, leeway)
        if not is_strict_json:
            raise DecodeError("Invalid payload string: it is not strict JSON (RFC 8259)")
        decoded["payload"] = claims
        return decoded

    @property
    def _reads_json(self) -> bool:
        return type(self)._decode_payload is PyJWT._decode_payload

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        """The claims in `decoded["payload"]`. For subclasses that read them in another way."""
        claims = standard_loads(decoded["payload"])
        if not isinstance(claims, dict):
            raise DecodeError("Invalid payload string: must be a json object")
        return claims

    def _validate_claims(
        self,
        payload: dict[str, Any],
        options: FullOptions,
        audience: str | Iterable[str] | None = None,
        issuer: str | Container[str] | None = None,
        subject: str | None = None,
        leeway: float | timedelta = 0,
    ) -> None:
        if isinstance(leeway, timedelta):
            leeway = leeway.total_seconds()
        if not math.isfinite(leeway):
            raise ValueError(f"leeway must be a finite number of seconds, not {leeway!r}")
        _require_audience_type(audience)
        for claim in options["require"]:
            if payload.get(claim) is None:
                raise MissingRequiredClaimError(claim)
        self._validate_times(payload, options, time.time(), leeway)
        self._validate_names(payload, options, audience, issuer, subject)

    def _validate_names(
        self,
        payload: dict[str, Any],
        options: FullOptions,
        audience: str | Iterable[str] | None,
        issuer: str | Container[str] | None,
        subject: str | None,
    ) -> None:
        _require_audience_type(audience)
        if options["verify_iss"]:
            self._validate_iss(payload, issuer)
        if options["verify_aud"]:
            self._validate_aud(payload, audience, strict=options["strict_aud"])
        if options["verify_sub"]:
            if subject is not None and options["strict_sub"] and "sub" not in payload:
                raise MissingRequiredClaimError("sub")
            self._validate_sub(payload, subject)
        if options["verify_jti"]:
            self._validate_jti(payload)

    @staticmethod
    def _validate_times(
        payload: dict[str, Any], options: FullOptions, now: float, leeway: float
    ) -> None:
        strict = options["strict_times"]
        if "iat" in payload and options["verify_iat"]:
            error = InvalidIssuedAtError("Issued At claim (iat) must be an integer.")
            if _seconds(payload["iat"], strict, error) > now + leeway:
                raise ImmatureSignatureError("The token is not yet valid (iat)")
        if "nbf" in payload and options["verify_nbf"]:
            malformed = DecodeError("Not Before claim (nbf) must be an integer.")
            if _seconds(payload["nbf"], strict, malformed) > now + leeway:
                raise ImmatureSignatureError("The token is not yet valid (nbf)")
        if "exp" in payload and options["verify_exp"]:
            malformed = DecodeError("Expiration Time claim (exp) must be an integer.")
            if _seconds(payload["exp"], strict, malformed) <= now - leeway:
                raise ExpiredSignatureError("Signature has expired")

    def _validate_iss(self, payload: dict[str, Any], issuer: str | Container[str] | None) -> None:
        if issuer is None:
            return
        if "iss" not in payload:
            raise MissingRequiredClaimError("iss")
        claim = payload["iss"]
        if not isinstance(claim, str):
            raise InvalidIssuerError("Payload Issuer (iss) must be a string")
        if not isinstance(issuer, (str, Container)):
            raise InvalidIssuerError('Issuer param must be "str" or "Container[str]"')
        try:
            is_expected = claim == issuer if isinstance(issuer, str) else claim in issuer
        except TypeError:  # bytes, for one, hold no text
            is_expected = False
        if not is_expected:
            raise InvalidIssuerError("Invalid issuer")

    def _validate_aud(
        self,
        payload: dict[str, Any],
        audience: str | Iterable[str] | None,
        *,
        strict: bool = False,
    ) -> None:
        claim = payload.get("aud")
        if not claim:
            if audience is not None:
                raise MissingRequiredClaimError("aud")
            return
        if audience is None:
            raise InvalidAudienceError("Invalid audience")
        if strict:
            if not isinstance(audience, str):
                raise InvalidAudienceError("Invalid audience (strict)")
            if not isinstance(claim, str):
                raise InvalidAudienceError("Invalid claim format in token (strict)")
            if claim != audience:
                raise InvalidAudienceError("Audience doesn't match (strict)")
            return
        names = [claim] if isinstance(claim, str) else claim
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InvalidAudienceError("Invalid claim format in token")
        expected = [audience] if isinstance(audience, str) else audience
        if not any(name in names for name in expected):
            raise InvalidAudienceError("Audience doesn't match")

    def _validate_sub(self, payload: dict[str, Any], subject: str | None = None) -> None:
        if "sub" not in payload:
            return
        if not isinstance(payload["sub"], str):
            raise InvalidSubjectError("Subject must be a string")
        if subject is not None and payload["sub"] != subject:
            raise InvalidSubjectError("Invalid subject")

    def _validate_jti(self, payload: dict[str, Any]) -> None:
        if not isinstance(payload.get("jti", ""), str):
            raise InvalidJTIError("JWT ID must be a string")


def _merge(options: FullOptions, given: Options | None) -> FullOptions:
    if given is None:
        return options
    changed: dict[str, Any] = dict(given)
    if not changed.get("verify_signature", True):
        for name in _VERIFY_CLAIMS:
            changed.setdefault(name, False)
    return cast(FullOptions, {**options, **changed})


def _require_audience_type(audience: object) -> None:
    if audience is not None and not isinstance(audience, (str, Iterable)):
        raise TypeError("audience must be a string, iterable or None")


def _signature_options(options: FullOptions) -> SigOptions:
    return {
        "verify_signature": options["verify_signature"],
        "enforce_minimum_key_length": options["enforce_minimum_key_length"],
        "max_token_bytes": checked_size(options),
    }


_MAX_SHORT_KID = 1000


@functools.lru_cache(maxsize=128)
def _header_with_kid(kid: str) -> bytes:
    header = {"alg": HS256, "kid": kid, "typ": PyJWS.header_typ}
    return base64url_encode(json.dumps(header, separators=(",", ":")).encode())


def _with_kid(token: bytes, kid: str, key: Key) -> bytes | None:
    """A token that the library has just signed, signed again under a header that names the key.

    None if that is not as simple as it should be.
    """
    if len(kid) > _MAX_SHORT_KID:
        return None
    signed = _header_with_kid(kid) + b"." + token.split(b".")[1]
    code = mac(key.handle, signed)
    named = None if code is None else signed + b"." + base64url_encode(code)
    return named if named is not None and len(named) <= MAX_TOKEN_BYTES else None


def _seconds(claim: Any, strict: bool, error: InvalidTokenError) -> int:
    """A time claim in whole seconds, as PyJWT rounds it; `error` if it is none."""
    if strict and not is_numeric_date(claim):
        raise error
    try:
        return int(claim)
    except (ValueError, TypeError, OverflowError):
        raise error from None


_module_jwt = PyJWT(STRICT)
encode = _module_jwt.encode
"""Signs claims and returns the token: `PyJWT.encode` with the options `STRICT`."""
decode = _module_jwt.decode
"""Verifies a token and returns its claims: `PyJWT.decode` with the options `STRICT`."""
decode_complete = _module_jwt.decode_complete
"""As `decode`, but returns payload, header and signature: `PyJWT.decode_complete`."""
