"""What pyplue.jwt does beyond PyJWT, or otherwise than PyJWT."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

import pyplue.errors
from pyplue import jwt
from pyplue.jwt import api_jwt, duration, json_text

SECRET = "a secret of more than 32 bytes, for real"
KEY = jwt.Key(SECRET)


def round_trip(claims: dict) -> dict:
    return jwt.decode(jwt.encode(claims, KEY), KEY)


# ---- errors -------------------------------------------------------------------------------------


def test_errors_have_pyjwts_base_pyplues_base_and_a_built_in() -> None:
    for name in jwt.__all__:
        kind = getattr(jwt, name)
        if isinstance(kind, type) and issubclass(kind, Exception) and not issubclass(kind, Warning):
            assert issubclass(kind, jwt.PyJWTError)
            assert issubclass(kind, pyplue.errors.PlueError)
            assert kind is jwt.PyJWTError or issubclass(kind, ValueError)
    assert issubclass(jwt.InvalidAlgorithmError, jwt.InvalidTokenError)
    assert issubclass(jwt.InvalidSignatureError, jwt.DecodeError)
    assert not issubclass(jwt.InvalidKeyError, jwt.InvalidTokenError)


@pytest.mark.parametrize("name", ["none", "HS384", "RS256", "EdDSA", "hs256", "", "x", None])
def test_another_algorithm_is_not_implemented(name) -> None:
    with pytest.raises(NotImplementedError) as caught:
        jwt.encode({}, SECRET, algorithm=name)
    assert isinstance(caught.value, jwt.InvalidAlgorithmError)
    if name:
        with pytest.raises(NotImplementedError):
            jwt.encode({}, SECRET, headers={"alg": name})


@pytest.mark.parametrize("algorithms", [[], ["RS256"]])
def test_a_pyjws_without_hs256_signs_and_verifies_nothing(algorithms) -> None:
    without = jwt.PyJWS(algorithms=algorithms)
    assert without.get_algorithms() == []
    with pytest.raises(NotImplementedError):
        without.encode(b"", SECRET)
    for key, allowed in ((SECRET, ["HS256"]), (KEY, None)):
        with pytest.raises(jwt.InvalidAlgorithmError):
            without.decode(jwt.PyJWS().encode(b"", SECRET), key, algorithms=allowed)


# ---- encode refuses what decode would refuse ----------------------------------------------------

UNVERIFIABLE = [
    ({"exp": "1"}, jwt.DecodeError),
    ({"nbf": None}, jwt.DecodeError),
    ({"iat": True}, jwt.InvalidIssuedAtError),
    ({"exp": float("inf")}, jwt.DecodeError),
    ({"exp": Decimal(5)}, jwt.DecodeError),
    ({"sub": 5}, jwt.InvalidSubjectError),
    ({"sub": None}, jwt.InvalidSubjectError),
    ({"jti": uuid.UUID(int=5)}, jwt.InvalidJTIError),
    ({"aud": 5}, jwt.InvalidAudienceError),
    ({"aud": ["a", 1]}, jwt.InvalidAudienceError),
    ({"aud": {"a": 1}}, jwt.InvalidAudienceError),
    ({"iss": 5}, TypeError),
    ({"x": float("nan")}, ValueError),
    ({"x": [1, {"y": float("-inf")}]}, ValueError),
    ({"x": "a" * 70000}, jwt.DecodeError),
    ({"x": json.loads("[" * 128 + "]" * 128)}, jwt.DecodeError),
]


@pytest.mark.parametrize(("claims", "error"), UNVERIFIABLE, ids=lambda value: repr(value)[:40])
def test_encode_refuses_what_decode_would_refuse(claims, error) -> None:
    with pytest.raises(error) as caught:
        jwt.encode(claims, SECRET)
    assert str(caught.value)


@pytest.mark.parametrize(
    "headers", [{"crit": ["x"], "x": 1}, {"b64": False}, {"typ": 5}, {"kid": 5}]
)
def test_encode_refuses_a_header_that_decode_would_refuse(headers) -> None:
    with pytest.raises(jwt.InvalidTokenError):
        jwt.encode({}, SECRET, headers=headers)


def test_each_strict_check_can_be_switched_off() -> None:
    lenient = jwt.PyJWT()
    token = lenient.encode({"sub": 5, "iat": "1638202770", "x": float("nan")}, SECRET)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}

    signs_all = jwt.PyJWT({"strict_times": True, "strict_encode": False})
    token = signs_all.encode({"iat": "1638202770"}, SECRET)
    with pytest.raises(jwt.InvalidIssuedAtError):
        jwt.decode(token, KEY)
    loose = {"strict_times": False}
    assert jwt.decode(token, KEY, options=loose) == {"iat": "1638202770"}
    assert lenient.decode(token, KEY) == {"iat": "1638202770"}

    token = lenient.encode({"sub": 5, "jti": 6, "aud": "me", "exp": 1, "nbf": 2**40}, SECRET)
    off = {f"verify_{name}": False for name in ("sub", "jti", "aud", "exp", "nbf")}
    assert jwt.decode(token, KEY, options=off)["sub"] == 5
    for name in off:
        with pytest.raises(jwt.InvalidTokenError):
            jwt.decode(token, KEY, options={**off, name: True})


def test_options_are_read_only_and_made_once() -> None:
    strict = jwt.PyJWT(jwt.STRICT)
    with pytest.raises(TypeError):
        strict.options["verify_exp"] = False
    requires = jwt.PyJWT({"require": ["exp"]})
    with pytest.raises(jwt.MissingRequiredClaimError, match='"exp"'):
        requires.decode(jwt.encode({}, SECRET), KEY)


def test_the_size_of_tokens_is_bounded_and_the_bound_is_an_option() -> None:
    large = jwt.PyJWT({"max_token_bytes": 200_000})
    token = large.encode({"x": "a" * 100_000}, SECRET)
    assert len(large.decode(token, KEY)["x"]) == 100_000
    assert len(jwt.decode(token, KEY, options={"max_token_bytes": 200_000})["x"]) == 100_000
    complete = jwt.decode_complete(token, KEY, options={"max_token_bytes": 200_000})
    assert complete["header"]["alg"] == "HS256"
    for refused in (
        lambda: jwt.decode(token, KEY),
        lambda: jwt.decode(token, options={"verify_signature": False}),
        lambda: jwt.get_unverified_header(token),
        lambda: jwt.decode(jwt.encode({}, KEY), KEY, options={"max_token_bytes": 20}),
    ):
        with pytest.raises(jwt.DecodeError, match="larger than"):
            refused()
    assert jwt.PyJWT({"max_token_bytes": 20}).options["max_token_bytes"] == 20


@pytest.mark.parametrize("size", [0, -1, 2**24 + 1, 2**70, None, "5", 1.5])
def test_the_bound_of_sizes_has_bounds(size) -> None:
    for attempt in (
        lambda: jwt.PyJWT({"max_token_bytes": size}),
        lambda: jwt.PyJWS(options={"max_token_bytes": size}),
        lambda: jwt.PyJWS().decode(jwt.encode({}, KEY), KEY, options={"max_token_bytes": size}),
        lambda: jwt.decode(jwt.encode({}, KEY), KEY, options={"max_token_bytes": size}),
    ):
        with pytest.raises(ValueError, match="max_token_bytes"):
            attempt()


class WritesTwice(json.JSONEncoder):
    def encode(self, o: object) -> str:
        return super().encode(o).replace('"exp":1', '"exp":1,"exp":99999999999')


def test_encode_refuses_what_a_json_encoder_wrote_and_decode_would_refuse() -> None:
    with pytest.raises(jwt.DecodeError, match="twice"):
        jwt.encode({"exp": 1}, SECRET, json_encoder=WritesTwice)


@pytest.mark.parametrize("issuer", [5, b"a", "b", ["b"], {"b": 1}, object()])
def test_an_issuer_that_does_not_match_is_refused(issuer) -> None:
    with pytest.raises(jwt.InvalidIssuerError):
        jwt.decode(jwt.encode({"iss": "a"}, KEY), KEY, issuer=issuer)


def test_expected_names_are_checked_the_short_and_the_long_way() -> None:
    claims = {"iss": "i", "sub": "s", "aud": ["a", "b"], "jti": "j"}
    token = jwt.encode(claims, KEY)
    for options in (None, {}):
        expected = {"audience": "b", "issuer": ["i", "j"], "subject": "s"}
        assert jwt.decode(token, KEY, options=options, **expected) == claims
        for name, error in {
            "audience": jwt.InvalidAudienceError,
            "issuer": jwt.InvalidIssuerError,
            "subject": jwt.InvalidSubjectError,
        }.items():
            with pytest.raises(error):
                jwt.decode(token, KEY, options=options, **{**expected, name: "x"})
        with pytest.raises(jwt.InvalidAudienceError):
            jwt.decode(token, KEY, options=options)
        for missing, claim in (("issuer", "iss"), ("audience", "aud")):
            with pytest.raises(jwt.MissingRequiredClaimError) as caught:
                jwt.decode(jwt.encode({}, KEY), KEY, options=options, **{missing: "x"})
            assert caught.value.claim == claim
        with pytest.raises(TypeError, match="audience"):
            jwt.decode(token, KEY, options=options, audience=5)


def test_a_subject_that_is_expected_must_be_there() -> None:
    token = jwt.encode({"iss": "i"}, KEY)
    as_pyjwt = jwt.PyJWT()
    strict = jwt.PyJWT({"strict_sub": True})
    for more in ({}, {"options": {}}, {"leeway": 5}):
        for decode in (jwt.decode, jwt.decode_complete, strict.decode):
            with pytest.raises(jwt.MissingRequiredClaimError) as caught:
                decode(token, KEY, subject="s", **more)
            assert caught.value.claim == "sub"
        assert as_pyjwt.decode(token, KEY, subject="s", **more) == {"iss": "i"}
    for off in ("strict_sub", "verify_sub"):
        assert jwt.decode(token, KEY, subject="s", options={off: False}) == {"iss": "i"}
    assert jwt.decode(token, KEY) == {"iss": "i"}


def test_types_of_names_are_checked_the_short_and_the_long_way() -> None:
    for claims, error in (({"sub": 5}, jwt.InvalidSubjectError), ({"jti": 5}, jwt.InvalidJTIError)):
        token = jwt.PyJWT().encode(claims, KEY)
        for options in (None, {}):
            with pytest.raises(error):
                jwt.decode(token, KEY, options=options)


def test_leeway_counts_both_ways() -> None:
    now = int(time.time())
    for claims, error in (
        ({"exp": now}, jwt.ExpiredSignatureError),
        ({"nbf": now + 3600}, jwt.ImmatureSignatureError),
        ({"iat": now + 3600}, jwt.ImmatureSignatureError),
    ):
        token = jwt.encode(claims, KEY)
        for leeway in (7200, 7200.5, timedelta(hours=2)):
            assert jwt.decode(token, KEY, leeway=leeway) == claims
        for leeway in (0, 0.0, timedelta(0), -60):
            with pytest.raises(error):
                jwt.decode(token, KEY, leeway=leeway)
    soon = jwt.encode({"exp": now + 3600}, KEY)
    assert jwt.decode(soon, KEY)
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(soon, KEY, leeway=-7200)


@pytest.mark.parametrize("leeway", [float("nan"), float("inf"), float("-inf")])
def test_leeway_is_a_finite_number(leeway) -> None:
    with pytest.raises(ValueError, match="leeway"):
        jwt.decode(jwt.encode({"exp": 1}, KEY), KEY, leeway=leeway)


def test_claims_are_not_changed_and_datetimes_become_seconds() -> None:
    when = datetime(2100, 1, 1, tzinfo=timezone.utc)
    claims = {"exp": when}
    assert round_trip(claims) == {"exp": 4102444800}
    assert claims == {"exp": when}
    naive = datetime(2100, 1, 1)
    assert round_trip({"exp": naive}) == {"exp": 4102444800}


# ---- JSON ---------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    pass


SAME_VALUES = [
    2**53 + 1,
    2**63,
    2**64,
    -(2**63) - 1,
    10**40,
    [[2**64]],
    1e300,
    0.1,
    -0.0,
    "é\u2028\x00\x7f😀",
    "\ud800",
    {"1": 1},
    (1, 2),
    None,
    "null",
    {"": ""},
    Text("text"),
]


@pytest.fixture(params=["orjson", "json"])
def parser(request, monkeypatch):
    if request.param == "json":
        monkeypatch.setattr(json_text, "orjson", None)
        monkeypatch.setattr(api_jwt, "fast_loads", json_text.standard_loads)
    else:
        assert json_text.orjson is not None
    return request.param


@pytest.mark.parametrize("value", SAME_VALUES, ids=ascii)
@pytest.mark.usefixtures("parser")
def test_values_come_back_as_json_has_them(value) -> None:
    back = round_trip({"x": value})["x"]
    expected = json.loads(json.dumps(value))
    assert back == expected
    assert type(back) is type(expected)


@pytest.mark.usefixtures("parser")
def test_a_uuid_is_its_text_and_an_enum_its_value() -> None:
    one = uuid.UUID(int=5)
    assert round_trip({"x": [one, Colour.RED]}) == {"x": [str(one), "red"]}
    assert round_trip({1: "key", None: "key"}) == {"1": "key", "null": "key"}


@dataclass
class Point:
    x: int = 1


@pytest.mark.parametrize(
    "value", [{1}, b"x", Decimal("1.5"), Point(), date(2026, 1, 1), datetime(2026, 1, 1), object()]
)
@pytest.mark.usefixtures("parser")
def test_other_types_have_no_json_form(value) -> None:
    with pytest.raises(TypeError):
        jwt.encode({"x": value}, KEY)


def test_orjson_is_optional() -> None:
    program = (
        "import sys; sys.modules['orjson'] = None\n"
        "import pyplue.jwt as jwt\n"
        "key = jwt.Key('x' * 32)\n"
        "assert jwt.json_text.orjson is None\n"
        "print(jwt.decode(jwt.encode({'sub': 'ann', 'n': 2**70}, key), key))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str({"sub": "ann", "n": 2**70})


# ---- one secret per process ---------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_secret(monkeypatch):
    monkeypatch.setattr(jwt.session, "_key", None)


def test_sign_and_verify_want_a_secret_first() -> None:
    for attempt in (lambda: jwt.sign({}), lambda: jwt.verify("a.b.c")):
        with pytest.raises(jwt.InvalidKeyError, match="init"):
            attempt()


def test_sign_sets_the_times_and_verify_gives_the_claims_or_none() -> None:
    jwt.init(SECRET)
    before = int(time.time())
    token = jwt.sign({"sub": "ann", "exp": 1, "iat": 2})
    claims = jwt.verify(token)
    assert claims is not None
    assert claims["sub"] == "ann"
    assert before <= claims["iat"] <= time.time()
    assert claims["exp"] == claims["iat"] + 7 * 86400
    assert jwt.verify(token.encode()) == claims
    for refused in ("", "x", token[:-1], token + "A", token + "\0", token + "é", b"\xff", "\ud800"):
        assert jwt.verify(refused) is None
    assert jwt.verify(jwt.sign({"sub": "ann"}, expires_in="-1s")) is None
    assert jwt.verify(jwt.sign({"sub": "ann"}, expires_in=0)) is None
    assert "exp" not in jwt.verify(jwt.sign({"exp": 1}, expires_in=None))


def test_a_new_secret_replaces_the_old_one_and_a_bad_one_does_not() -> None:
    jwt.init(SECRET)
    old = jwt.sign({"sub": "ann"})
    with pytest.raises(jwt.InvalidKeyError):
        jwt.init("")
    assert jwt.verify(old)
    jwt.init("another secret of 32 bytes or more")
    assert jwt.verify(old) is None
    jwt.init(jwt.KeySet(["another secret of 32 bytes or more", SECRET]))
    assert jwt.verify(old)
    assert jwt.verify(jwt.sign({}))


DURATIONS = {
    "7d": 604800,
    " 7d": 604800,
    "2 hours": 7200,
    "1y": 31557600,
    "1 year": 31557600,
    "1w": 604800,
    "90m": 5400,
    "1.5h": 5400,
    "30 secs": 30,
    "30S": 30,
    "1 MINUTE": 60,
    "1 day ago": -86400,
    "1 day from now": 86400,
    "-2h": -7200,
    "- 2h": -7200,
    "+ 2 hrs": 7200,
    "0.5s": 1,
    "1.4s": 1,
}


@pytest.mark.parametrize(("span", "expected"), DURATIONS.items())
def test_durations(span, expected) -> None:
    assert duration.seconds(span) == expected


def test_durations_as_numbers() -> None:
    assert duration.seconds(3600) == 3600
    assert duration.seconds(timedelta(minutes=1)) == 60


@pytest.mark.parametrize(
    "span",
    ["", "d", "7", "7 fortnights", "7d ", "7  d", "-1d ago", "1e3s", "\u0667d", ".5h", "1.h"],
)
def test_what_is_no_duration(span) -> None:
    with pytest.raises(ValueError, match="span of time"):
        duration.seconds(span)


@pytest.mark.parametrize("span", [float("nan"), float("inf"), None, True, [7]])
def test_what_is_no_number_of_seconds(span) -> None:
    with pytest.raises(ValueError, match="span of time"):
        duration.seconds(span)
