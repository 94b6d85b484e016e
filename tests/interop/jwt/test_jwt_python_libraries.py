"""Tokens of pyplue.jwt are read by PyJWT and joserfc, and theirs by pyplue.jwt."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jwt as pyjwt
import pytest
from joserfc import jwt as joserfc
from joserfc.errors import BadSignatureError
from joserfc.jwk import OctKey

from pyplue import ffi, jwt

SECRET = "a secret of more than 32 bytes, for real"
NOW = int(time.time())


class Library(NamedTuple):
    sign: Callable[[dict[str, Any], dict[str, Any]], str]
    verify: Callable[[str, str], Any]
    bad_signature: type[Exception]


def joserfc_verify(token: str, secret: str) -> Any:
    decoded = joserfc.decode(token, OctKey.import_key(secret), algorithms=["HS256"])
    joserfc.JWTClaimsRegistry().validate(decoded.claims)
    return decoded.claims


LIBRARIES = {
    "PyJWT": Library(
        lambda claims, header: pyjwt.encode(claims, SECRET, "HS256", headers=header),
        lambda token, secret: pyjwt.decode(
            token, secret, algorithms=["HS256"], options={"verify_aud": False}
        ),
        pyjwt.InvalidSignatureError,
    ),
    "joserfc": Library(
        lambda claims, header: joserfc.encode(
            {"alg": "HS256", **header}, claims, OctKey.import_key(SECRET)
        ),
        joserfc_verify,
        BadSignatureError,
    ),
}

CLAIMS: list[dict[str, Any]] = [
    {},
    {"sub": "ann", "iat": NOW, "nbf": NOW - 5, "exp": NOW + 36000, "jti": "1", "iss": "i"},
    {"sub": 'änn 😀 \u2028 \x00 " \\ /', "aud": ["a", "b"]},
    {"exp": NOW + 36000.75, "iat": NOW - 0.5},
    {"n": 2**53 + 1, "big": 2**63, "bigger": 2**70, "float": 1e300, "small": -0.1},
    {"null": None, "list": [1, [2, {"three": [True, False]}]], "": {"": ""}},
    {"long": "x" * 20000},
]
HEADERS: list[dict[str, Any]] = [{}, {"kid": "2026-07"}, {"typ": "at+jwt", "cty": "x"}]


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    return LIBRARIES[request.param]


@pytest.mark.parametrize("header", HEADERS, ids=str)
@pytest.mark.parametrize("claims", CLAIMS, ids=",".join)
def test_they_read_our_tokens_and_we_read_theirs(library: Library, claims, header) -> None:
    theirs = library.sign(claims, header)
    options: jwt.Options = {"verify_aud": False}
    assert jwt.decode(theirs, SECRET, algorithms=["HS256"], options=options) == claims
    read = jwt.get_unverified_header(theirs)
    assert header.items() <= read.items()

    ours = jwt.encode(claims, SECRET, headers=header)
    assert library.verify(ours, SECRET) == claims
    with pytest.raises(library.bad_signature):
        library.verify(ours, SECRET + "!")
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(theirs, SECRET + "!", algorithms=["HS256"])


def test_the_c_functions_read_and_write_the_same_tokens(library: Library) -> None:
    claims = {"sub": "ann", "exp": NOW + 36000}
    handle = ffi.jwt.jwt_key_create(SECRET.encode(), len(SECRET))
    try:
        payload = ffi.jwt.jwt_verify_text(handle, library.sign(claims, {}).encode())
        token = ffi.jwt.jwt_sign_text(handle, payload).decode()
    finally:
        ffi.jwt.jwt_key_destroy(handle)
    assert library.verify(token, SECRET) == claims


def test_our_token_is_pyjwts_to_the_byte() -> None:
    claims = {"sub": "ann", "n": [1, 2.5, True, None], "exp": NOW + 36000}
    assert jwt.encode(claims, SECRET) == pyjwt.encode(claims, SECRET, "HS256")
    kid = {"kid": "2026"}
    ours = jwt.encode(claims, SECRET, headers=kid)
    assert ours == pyjwt.encode(claims, SECRET, "HS256", headers=kid)


@pytest.mark.parametrize(
    "claims", [{"exp": NOW - 5}, {"nbf": NOW + 3600}, {"iat": NOW + 3600}], ids=",".join
)
def test_what_one_refuses_the_other_refuses(library: Library, claims) -> None:
    ours = jwt.encode(claims, SECRET)
    for verify in (library.verify, lambda token, secret: jwt.decode(token, jwt.Key(secret))):
        with pytest.raises(Exception, match=r"exp|valid|nbf|iat"):
            verify(ours, SECRET)
