"""Published vectors: Wycheproof's JWS and HMAC files, and RFC 7515, appendix A.1."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from jwt_raw import error, key, verify_with

from pyplue import ffi, jwt
from pyplue.jwt.base64url import base64url_decode, base64url_encode

VECTORS = Path(__file__).resolve().parent.parent / "vectors"

# Marked valid, although a segment holds the illegal character "?": the error is the vectors' own
# (RFC 7515, 2 has no such character in base64url).
WRONGLY_VALID = {372, 373}

# Marked invalid for a padding that the file does not hold: both are the valid token of case 357.
WRONGLY_INVALID = {367, 370}


def cases(file: str, **wanted: object) -> list[Any]:
    """(group, test) of every test whose group has these values."""
    groups = json.loads((VECTORS / file).read_text())["testGroups"]
    return [
        pytest.param(group, test, id=f"{test['tcId']} {test['comment']}")
        for group in groups
        if all(group.get("private", {}).get(name) == value for name, value in wanted.items())
        for test in group["tests"]
    ]


JWS = cases("wycheproof_jws.json", alg="HS256")
HMAC = cases("wycheproof_hmac_sha256.json")


def test_no_vector_is_lost() -> None:
    assert len(JWS) == 40
    assert len(HMAC) == 174


@pytest.mark.parametrize(("group", "test"), JWS)
def test_wycheproof_jws(group: dict[str, Any], test: dict[str, Any]) -> None:
    secret = base64url_decode(group["private"]["k"])
    token = test["jws"] if isinstance(test["jws"], str) else json.dumps(test["jws"])
    valid = test["tcId"] in WRONGLY_INVALID or (
        test["result"] == "valid" and test["tcId"] not in WRONGLY_VALID
    )
    with key(secret) as handle:
        answer, _ = verify_with(token.encode(), [handle], function="jwt_jws_verify")
    assert isinstance(answer, bytes) == valid, answer
    for given in (secret, jwt.Key(secret), jwt.PyJWK(group["private"])):
        if valid:
            assert jwt.PyJWS().decode(token, given, algorithms=["HS256"]) == answer
        else:
            with pytest.raises(jwt.InvalidTokenError):
                jwt.PyJWS().decode(token, given, algorithms=["HS256"])


def test_the_vectors_error_is_what_it_is_said_to_be() -> None:
    tokens = {param.values[1]["tcId"]: param.values[1] for param in JWS}
    for number in WRONGLY_VALID:
        assert tokens[number]["result"] == "valid"
        assert "?" in tokens[number]["jws"]
    assert tokens[357]["result"] == "valid"
    for number in WRONGLY_INVALID:
        assert tokens[number]["result"] == "invalid"
        assert tokens[number]["jws"] == tokens[357]["jws"]


@pytest.mark.parametrize(("group", "test"), HMAC)
def test_wycheproof_hmac(group: dict[str, Any], test: dict[str, Any]) -> None:
    secret, message = bytes.fromhex(test["key"]), bytes.fromhex(test["msg"])
    mac = ffi.buffer(32)
    with key(secret) as handle:
        assert ffi.jwt.jwt_mac(handle, message, len(message), mac), error()
    tag = mac.raw[: group["tagSize"] // 8]
    assert (tag.hex() == test["tag"]) == (test["result"] == "valid")


# RFC 7515, A.1: the header has line breaks, and the payload expired in 2011.
RFC_KEY = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
RFC_TOKEN = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)


def test_rfc_7515_a_1() -> None:
    secret = base64url_decode(RFC_KEY)
    claims = {"iss": "joe", "exp": 1300819380, "http://example.com/is_root": True}
    with key(secret) as handle:
        payload, _ = verify_with(RFC_TOKEN.encode(), [handle], now_s=1300819379)
        assert isinstance(payload, bytes)
        assert json.loads(payload) == claims
        assert verify_with(RFC_TOKEN.encode(), [handle], now_s=1300819380)[0] == "expired"
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(RFC_TOKEN, secret, algorithms=["HS256"])
    late = jwt.decode(RFC_TOKEN, secret, algorithms=["HS256"], options={"verify_exp": False})
    assert late == claims
    jwk = jwt.PyJWK({"kty": "oct", "k": RFC_KEY})
    assert jwt.decode_complete(RFC_TOKEN, jwk, options={"verify_exp": False})["header"] == {
        "typ": "JWT",
        "alg": "HS256",
    }


@pytest.mark.parametrize("length", range(65))
def test_base64url_agrees_with_the_standard_library(length: int) -> None:
    data = bytes((7 * length + 31 * at) % 256 for at in range(length))
    text = base64url_encode(data)
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=")
    assert base64url_decode(text) == base64url_decode(text.decode()) == data
    with pytest.raises(ValueError, match="base64url"):
        base64url_decode(text + b"=")
