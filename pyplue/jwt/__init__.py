"""HS256 JSON Web Tokens, under PyJWT's names: `import pyplue.jwt as jwt`.

    token = jwt.encode({"sub": "ann"}, secret, algorithm="HS256")
    claims = jwt.decode(token, secret, algorithms=["HS256"])

Beside these, `Key` prepares a secret once, `KeySet` verifies with several keys while a secret is
being replaced, and `init`, `sign` and `verify` are for one secret per process.

Stricter than PyJWT: see the options `strict_times`, `strict_sub` and `strict_encode`, on by
default here.
Always: a registered claim given twice, padded base64url, NaN and Infinity, payloads nested deeper
than 128 levels, detached payloads and tokens over 64 KiB are refused.
"""

from pyplue.jwt.api_jwk import PyJWK
from pyplue.jwt.api_jws import PyJWS
from pyplue.jwt.api_jwt import STRICT, PyJWT, decode, decode_complete, encode
from pyplue.jwt.exceptions import (
    DecodeError,
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAlgorithmError,
    InvalidAudienceError,
    InvalidIssuedAtError,
    InvalidIssuerError,
    InvalidJTIError,
    InvalidKeyError,
    InvalidSignatureError,
    InvalidSubjectError,
    InvalidTokenError,
    MissingRequiredClaimError,
    PyJWKError,
    PyJWTError,
    UnsupportedAlgorithmError,
)
from pyplue.jwt.key import Key, KeySet, forget_secrets
from pyplue.jwt.session import init, sign, verify
from pyplue.jwt.types import Options
from pyplue.jwt.warnings import InsecureKeyLengthWarning

get_unverified_header = PyJWS().get_unverified_header
"""The header of a token that nobody has verified: `PyJWS.get_unverified_header`."""

__all__ = [
    "STRICT",
    "DecodeError",
    "ExpiredSignatureError",
    "ImmatureSignatureError",
    "InsecureKeyLengthWarning",
    "InvalidAlgorithmError",
    "InvalidAudienceError",
    "InvalidIssuedAtError",
    "InvalidIssuerError",
    "InvalidJTIError",
    "InvalidKeyError",
    "InvalidSignatureError",
    "InvalidSubjectError",
    "InvalidTokenError",
    "Key",
    "KeySet",
    "MissingRequiredClaimError",
    "Options",
    "PyJWK",
    "PyJWKError",
    "PyJWS",
    "PyJWT",
    "PyJWTError",
    "UnsupportedAlgorithmError",
    "decode",
    "decode_complete",
    "encode",
    "forget_secrets",
    "get_unverified_header",
    "init",
    "sign",
    "verify",
]
