"""What must be refused, from the table that C, Python and Bun share: refusals.json."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from jwt_raw import error, key, owned, verify_with

from pyplue import ffi, jwt
from pyplue.jwt import api_jwt

TABLE: dict[str, Any] = json.loads((Path(__file__).parent / "refusals.json").read_text())
SECRET: str = TABLE["secret"]

# The C ABI's reasons, as the exceptions that PyJWT has for them.
EXCEPTIONS: dict[str, Any] = {
    "segments": jwt.DecodeError,
    "too_large": jwt.DecodeError,
    "header_encoding": jwt.DecodeError,
    "header_json": jwt.DecodeError,
    "header_duplicate": jwt.DecodeError,
    "typ": jwt.DecodeError,
    "algorithm": jwt.InvalidAlgorithmError,
    "crit": jwt.InvalidTokenError,
    "b64": jwt.InvalidTokenError,
    "kid": jwt.InvalidTokenError,
    "signature_encoding": jwt.DecodeError,
    "signature": jwt.InvalidSignatureError,
    "payload_encoding": jwt.DecodeError,
    "payload_json": (jwt.DecodeError, jwt.InvalidIssuedAtError),  # the latter for iat: NaN
    "payload_depth": jwt.DecodeError,
    "duplicate_claim": jwt.DecodeError,
    "exp_type": jwt.DecodeError,
    "nbf_type": jwt.DecodeError,
    "iat_type": jwt.InvalidIssuedAtError,
    "expired": jwt.ExpiredSignatureError,
    "not_yet_valid": jwt.ImmatureSignatureError,
    "issued_in_future": jwt.ImmatureSignatureError,
}


def text(case: dict[str, Any]) -> str:
    if "token" in case:
        return str(case["token"])
    return "".join(part * times for part, times in case["token_parts"])


def named(cases: str, *, at_any_time: bool = False) -> list[Any]:
    chosen = [c for c in TABLE[cases] if not (at_any_time and "now_s" in c)]
    assert chosen
    return [pytest.param(case, id=case["name"]) for case in chosen]


def clock(case: dict[str, Any]) -> dict[str, int]:
    return {name: case[name] for name in ("now_s", "leeway_s") if name in case}


@pytest.fixture
def process_secret():
    """The secret of jwt_sign and jwt_verify, gone again at the end."""
    assert ffi.jwt.jwt_init(SECRET.encode(), len(SECRET))
    yield
    ffi.jwt.jwt_cleanup()


def decode_at(token: str, monkeypatch, now_s: int | None = None, leeway_s: int = 0):
    """jwt.decode with another clock: its long way, the only one that Python's clock can reach."""
    if now_s is not None:
        monkeypatch.setattr(api_jwt.time, "time", lambda: now_s)
    return jwt.decode(token, SECRET, algorithms=["HS256"], leeway=leeway_s, options={})


@pytest.mark.parametrize("case", named("refused_tokens"))
def test_c_refuses_a_token_with_options(case) -> None:
    with key(SECRET.encode()) as handle:
        answer, _ = verify_with(text(case).encode(), [handle], **clock(case))
    assert answer == case["error"]


@pytest.mark.usefixtures("process_secret")
@pytest.mark.parametrize("case", named("refused_tokens", at_any_time=True))
def test_c_refuses_a_token_by_the_shortest_calls(case) -> None:
    token = text(case).encode()
    if b"\0" in token:
        return  # not a C string
    assert owned(ffi.jwt.jwt_verify(token)) is None
    assert error() == case["error"]
    with key(SECRET.encode()) as handle:
        assert ffi.jwt.jwt_verify_text(handle, token) is None
        assert error() == case["error"]


@pytest.mark.parametrize("case", named("refused_tokens", at_any_time=True))
@pytest.mark.parametrize("kind", ["str", "bytes"])
def test_decode_refuses_a_token(case, kind) -> None:
    token = text(case) if kind == "str" else text(case).encode()
    with pytest.raises(EXCEPTIONS[case["error"]]):
        jwt.decode(token, SECRET, algorithms=["HS256"])
    with pytest.raises(EXCEPTIONS[case["error"]]):
        jwt.decode(token, jwt.KeySet([SECRET, "x" * 32]))
    with pytest.raises(EXCEPTIONS[case["error"]]):
        jwt.decode(token, jwt.KeySet({"a": SECRET, "b": "x" * 32}))
    jwt.init(SECRET)
    assert jwt.verify(token) is None


@pytest.mark.parametrize("case", named("refused_tokens"))
def test_decode_refuses_a_token_the_long_way(case, monkeypatch) -> None:
    with pytest.raises(EXCEPTIONS[case["error"]]) as caught:
        decode_at(text(case), monkeypatch, **clock(case))
    assert str(caught.value)
    if case["error"] in ("crit", "kid"):
        assert type(caught.value) is jwt.InvalidTokenError


@pytest.mark.parametrize("case", named("accepted_tokens"))
def test_what_is_only_unusual_is_accepted(case, monkeypatch) -> None:
    with key(SECRET.encode()) as handle:
        payload, index = verify_with(text(case).encode(), [handle], **clock(case))
    assert isinstance(payload, bytes), payload
    assert index == 0
    assert decode_at(text(case), monkeypatch, **clock(case)) == json.loads(payload)


@pytest.mark.parametrize("case", named("accepted_tokens", at_any_time=True))
def test_what_is_only_unusual_is_accepted_the_short_way(case) -> None:
    assert isinstance(jwt.decode(text(case), SECRET, algorithms=["HS256"]), dict)


@pytest.mark.parametrize("case", named("refused_secrets"))
def test_a_secret_is_refused(case) -> None:
    secret = base64.b64decode(case["secret_base64"])
    if "secret_repeat" in case:
        character, times = case["secret_repeat"]
        secret = character.encode() * times
    assert ffi.jwt.jwt_key_create(secret, len(secret)) == 0
    assert error() == case["error"]
    assert not ffi.jwt.jwt_init(secret, len(secret))
    assert error() == case["error"]
    for attempt in (
        lambda: jwt.Key(secret),
        lambda: jwt.KeySet(["x" * 32, secret]),
        lambda: jwt.init(secret),
        lambda: jwt.encode({}, secret),
        lambda: jwt.decode(text(TABLE["accepted_tokens"][0]), secret, algorithms=["HS256"]),
    ):
        with pytest.raises(jwt.InvalidKeyError):
            attempt()


@pytest.mark.usefixtures("process_secret")
@pytest.mark.parametrize("case", named("refused_payloads"))
def test_a_payload_is_not_signed(case) -> None:
    payload = base64.b64decode(case["payload_base64"])
    with key(SECRET.encode()) as handle:
        out = ffi.buffer(4096)
        assert ffi.jwt.jwt_sign_into(handle, payload, len(payload), out, 4096) < 0
        assert error() == case["error"]
        if b"\0" not in payload:
            assert ffi.jwt.jwt_sign_text(handle, payload) is None
            assert error() == case["error"]
            assert owned(ffi.jwt.jwt_sign(payload)) is None
            assert error() == case["error"]


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", ["1", None, True, [1], {"s": 1}, float("nan"), float("inf")], ids=repr
)
def test_encode_refuses_a_time_that_decode_would_refuse(name, value) -> None:
    refusal = jwt.InvalidIssuedAtError if name == "iat" else jwt.DecodeError
    with pytest.raises(refusal, match=name):
        jwt.encode({name: value}, SECRET)


def test_every_reason_of_the_table_has_its_exception() -> None:
    assert {case["error"] for case in TABLE["refused_tokens"]} == set(EXCEPTIONS)
