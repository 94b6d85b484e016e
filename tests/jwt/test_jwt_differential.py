"""The same calls to pyplue.jwt and to PyJWT, newest and 2.9: one verdict, one exception class.

Where they differ, pyplue.jwt must be the stricter one, and the difference must be one of those
written down here. PYPLUE_JWT_EXAMPLES sets how many calls are compared (default 3000, at least
1000).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from types import ModuleType
from typing import Any, NamedTuple

import jwt as pyjwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyplue import jwt

EXAMPLES = max(1000, int(os.environ.get("PYPLUE_JWT_EXAMPLES", "3000")))
VERIFY = ("exp", "nbf", "iat", "aud", "iss", "sub", "jti", "signature")
SECRET = "a secret of more than 32 bytes for all of them"
JWK = '{"kty":"oct","k":"AAAA"}'
PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
NOW = int(time.time())
# Hours away from now and from each other, so that it does not matter when a call is made.
OFFSETS = [-100_000, -10_000, 10_000, 100_000]


class Call(NamedTuple):
    token: str
    arguments: dict[str, Any]
    strict: bool
    """Whether the module's functions are called, or PyJWT()."""

    @property
    def header(self) -> Any:
        return _segment(self.token, 0)

    @property
    def payload(self) -> Any:
        return _segment(self.token, 1)


def encode64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode64(text: str) -> bytes:
    """As tolerant as PyJWT 2.9: what is no base64url is passed over."""
    try:
        return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except ValueError:
        return b""


def _segment(token: str, index: int) -> Any:
    try:
        return json.loads(decode64(token.split(".")[index]))
    except (ValueError, IndexError):
        return None


# ---- calls ------------------------------------------------------------------------------------


def mostly(usual: st.SearchStrategy[Any], other: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nine times of ten the first."""
    return st.sampled_from(range(10)).flatmap(lambda n: other if n == 5 else usual)


def absent_or(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from([ABSENT, ABSENT, *values])


ABSENT = object()

ordinary_time = st.just(ABSENT) | st.sampled_from(OFFSETS).map(NOW.__add__)
other_number = st.sampled_from(
    [NOW - 10000.5, NOW + 10000.5, 0, -5, 10**30, -(10**30), 1e300, float("nan"), float("inf")]
)
other_time = other_number | st.sampled_from(
    [None, True, False, "x", "", str(NOW - 10000), str(NOW + 10000), [1], {"s": 1}]
)
times = mostly(ordinary_time, other_time)
ordinary_text = st.sampled_from([ABSENT, ABSENT, "a", "b", "é"])
other_text = st.sampled_from(["", 5, None, True, ["a"], ["a", "b"], ["a", 1], [], {}])
texts = mostly(ordinary_text, other_text)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
claims = st.fixed_dictionaries(
    {
        "exp": times,
        "nbf": times,
        "iat": times,
        "iss": texts,
        "sub": texts,
        "jti": texts,
        "aud": texts,
        "other": st.one_of(st.just(ABSENT), json_values),
    }
)
ordinary_header = st.sampled_from(
    [
        {"alg": "HS256"},
        {"alg": "HS256", "typ": "JWT"},
        {"kid": "a", "alg": "HS256", "typ": "at+jwt"},
    ]
)
other_header = st.fixed_dictionaries(
    {
        "alg": st.sampled_from(
            ["HS256", "HS256", "none", "HS512", "hs256", "RS256", "", None, ["HS256"], ABSENT]
        ),
        "typ": absent_or("JWT", None, 1),
        "kid": absent_or("a", "", 1, None),
        "crit": absent_or([], ["b64"], ["x"], "b64", None, [1]),
        "b64": absent_or(True, False, None),
    }
)
headers = mostly(ordinary_header, other_header)


def present(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not ABSENT}


def as_json(value: Any) -> bytes:
    return json.dumps(present(value) if isinstance(value, dict) else value).encode()


with_a_twin = claims.map(lambda c: b'{"sub":"a",' + as_json({**c, "x": 1})[1:])
garbage = st.binary(max_size=12)


@st.composite
def tokens(draw: st.DrawFn) -> str:
    header = json.dumps(present(draw(headers))).encode()
    payload = draw(mostly(claims.map(as_json), json_values.map(as_json) | with_a_twin | garbage))
    signed = f"{encode64(header)}.{encode64(payload)}"
    secret = draw(mostly(st.just(SECRET), st.just("some other secret, of enough bytes")))
    mac = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest()
    return mutate(draw, f"{signed}.{encode64(mac)}")


def mutate(draw: st.DrawFn, token: str) -> str:
    at = draw(st.integers(0, len(token)))
    character = draw(st.sampled_from("AZ09-_.=+/? \n\0é"))
    kinds = st.sampled_from(["insert", "replace", "cut", "append", "part"])
    kind = draw(mostly(st.just("nothing"), kinds))
    return {
        "nothing": token,
        "insert": token[:at] + character + token[at:],
        "replace": token[:at] + character + token[at + 1 :],
        "cut": token[:at],
        "append": token + character,
        "part": ".".join(token.split(".")[at % 3 :]),
    }[kind]


good_keys = st.sampled_from([SECRET, SECRET.encode()])
bad_keys = st.sampled_from(
    ["another secret that is no part of this", "", b"", None, 5, JWK, "ssh-rsa AAAA", PEM]
)
other_algorithms = st.sampled_from(
    [["HS512", "HS256"], ("HS256",), "HS256", ["HS512"], [], None, ["none"]]
)
arguments = st.fixed_dictionaries(
    {
        "key": mostly(good_keys, bad_keys),
        "algorithms": mostly(st.just(["HS256"]), other_algorithms),
        "options": st.one_of(
            st.just(ABSENT),
            st.just(ABSENT),
            st.dictionaries(
                st.sampled_from([f"verify_{name}" for name in VERIFY] + ["strict_aud"]),
                st.booleans(),
                max_size=3,
            ),
            st.lists(st.sampled_from(["exp", "sub", "other"]), max_size=2).map(
                lambda names: {"require": names}
            ),
        ),
        "audience": absent_or("a", "z", ["a", "z"], [], 5, b"a"),
        "issuer": absent_or("a", ["a", "z"], {"z"}, 5),
        "subject": absent_or("a"),
        "leeway": absent_or(0, 5000, 50000, 200000.5, timedelta(seconds=50000)),
    }
)
calls = st.builds(Call, token=tokens(), arguments=arguments.map(present), strict=st.booleans())

# ---- verdicts ---------------------------------------------------------------------------------

ACCEPTED = "accepted"


def verdict(decode: Callable[..., Any], call: Call) -> tuple[str, Any]:
    """ACCEPTED and the claims, or the exception's class and message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ACCEPTED, decode(call.token, **call.arguments)
        except Exception as error:
            return type(error).__name__, str(error)


def same_claims(one: Any, other: Any) -> bool:
    return bool(json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))


# Each rule says of a call whether it is about something where pyplue.jwt is the stricter one.
Rule = Callable[[Call], bool]


def rule_for_header(test: Callable[[dict[str, Any]], bool]) -> Rule:
    return lambda call: isinstance(call.header, dict) and test(call.header)


def rule_for_payload(test: Callable[[dict[str, Any]], bool]) -> Rule:
    return lambda call: isinstance(call.payload, dict) and test(call.payload)


def has_twins(call: Call) -> bool:
    found = []

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found.append(len(pairs) != len(dict(pairs)))
        return dict(pairs)

    for raw in map(decode64, call.token.split(".")[:2]):
        with contextlib.suppress(ValueError):
            json.loads(raw, object_pairs_hook=look)
    return any(found)


def is_unusual_text(call: Call) -> bool:
    """Not UTF-8, or UTF-8 with a byte order mark: json.loads reads it, and UTF-16, all the same."""
    for raw in map(decode64, call.token.split(".")[:2]):
        try:
            raw.decode()
        except ValueError:
            return True
        if b"\0" in raw or raw.startswith(b"\xef\xbb\xbf"):
            return True
    return False


def is_canonical(part: str) -> bool:
    return bool(re.fullmatch("[A-Za-z0-9_-]*", part)) and encode64(decode64(part)) == part


TIMES = ("exp", "nbf", "iat")

STRICTER: dict[str, Rule] = {
    "padded base64url": lambda call: "=" in call.token,
    "a name twice": has_twins,
    "NaN or Infinity": lambda call: bool(re.search("NaN|Infinity", json.dumps(call.payload))),
    "JSON that is not UTF-8": is_unusual_text,
    "typ that is no string": rule_for_header(lambda h: not isinstance(h.get("typ", ""), str)),
    "alg that is no string": rule_for_header(lambda h: not isinstance(h.get("alg"), str)),
    "any crit or b64": rule_for_header(lambda h: bool({"crit", "b64"} & set(h))),
    "times that are no numbers": lambda call: (
        call.strict
        and rule_for_payload(lambda p: any(isinstance(p.get(t), (str, bool)) for t in TIMES))(call)
    ),
    "sub expected and missing": lambda call: (
        call.strict
        and "subject" in call.arguments
        and rule_for_payload(lambda p: "sub" not in p)(call)
    ),
    "algorithms none": lambda call: call.arguments.get("algorithms") == ["none"],
}

# What PyJWT has come to refuse since 2.9, or refused with an exception that is not its own.
SINCE_2_9: dict[str, Rule] = {
    **STRICTER,
    "sub or jti that is no string": rule_for_payload(
        lambda p: not all(isinstance(p.get(name, ""), str) for name in ("sub", "jti"))
    ),
    "kid that is no string": rule_for_header(lambda h: not isinstance(h.get("kid", ""), str)),
    "other spellings of base64url": lambda call: not all(map(is_canonical, call.token.split("."))),
    "times of a type that int() does not know": rule_for_payload(
        lambda p: any(isinstance(p.get(t, 0), (list, dict, type(None), float)) for t in TIMES)
    ),
    "a subject, which 2.9 does not know": lambda call: "subject" in call.arguments,
    "issuer of another type": lambda call: "issuer" in call.arguments,
    "an empty secret or a JWK": lambda call: call.arguments["key"] in ("", b"", JWK),
    "a number of segments that is not three": lambda call: call.token.count(".") != 2,
}


def reasons(call: Call, known: dict[str, Rule]) -> list[str]:
    return [name for name, applies in known.items() if applies(call)]


@pytest.fixture(scope="module")
def pyjwt_2_9(pytestconfig: pytest.Config) -> Iterator[ModuleType]:
    """PyJWT 2.9.0 under a name of its own, installed once beside everything else."""
    target = pytestconfig.cache.mkdir("pyjwt-2.9.0")
    if not (target / "jwt").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
        subprocess.run([*pip, f"--target={target}", "PyJWT==2.9.0"], check=True)
    spec = importlib.util.spec_from_file_location(
        "pyjwt_2_9",
        target / "jwt" / "__init__.py",
        submodule_search_locations=[str(target / "jwt")],
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["pyjwt_2_9"] = module
    spec.loader.exec_module(module)
    assert module.__version__ == "2.9.0"
    yield module
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyjwt_2_9"]:
        del sys.modules[name]


def compare(theirs: Callable[..., Any], known: dict[str, Rule], least: dict[str, int]) -> None:
    """Compares EXAMPLES calls; `least` of each 1000 must have ended in these verdicts."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(calls)
    def run(call: Call) -> None:
        ours = verdict(jwt.decode if call.strict else jwt.PyJWT().decode, call)
        expected = verdict(theirs, call)
        seen[ours[0]] += 1
        if ours[0] == ACCEPTED:
            assert expected[0] == ACCEPTED, (expected, reasons(call, known))
            assert same_claims(ours[1], expected[1])
        elif ours[0] != expected[0]:
            seen["stricter"] += 1
            assert reasons(call, known), (ours, expected)

    run()
    for name, count in least.items():
        assert seen[name] >= count * EXAMPLES // 1000, seen


COMMON = {
    ACCEPTED: 40,
    "DecodeError": 50,
    "InvalidSignatureError": 20,
    "ExpiredSignatureError": 50,
    "ImmatureSignatureError": 50,
    "InvalidAlgorithmError": 3,
    "InvalidAudienceError": 20,
    "InvalidIssuedAtError": 5,
    "InvalidKeyError": 5,
    "MissingRequiredClaimError": 5,
}


def test_newest_pyjwt_gives_the_same_verdicts() -> None:
    assert pyjwt.__version__ == "2.15.1"
    compare(pyjwt.decode, STRICTER, COMMON)


def test_pyjwt_2_9_gives_the_same_verdicts(pyjwt_2_9: ModuleType) -> None:
    compare(pyjwt_2_9.decode, SINCE_2_9, COMMON)


# ---- encode -----------------------------------------------------------------------------------

python_values = st.one_of(
    json_values,
    st.sampled_from([{1, 2}, b"bytes", (1, "two"), {1: 2}, {None: 1}, {(1, 2): 3}, object()]),
)
written_claims = st.fixed_dictionaries(
    {
        "exp": times | st.just(datetime(2100, 1, 1, tzinfo=timezone.utc)),
        "iat": ordinary_time | st.just(datetime(2020, 1, 1)),
        "iss": texts,
        "sub": texts,
        "aud": texts,
        "other": mostly(st.just(ABSENT) | json_values, python_values),
    }
)
written_headers = mostly(
    st.none(), st.just({}) | ordinary_header.map(dict) | other_header.map(present)
)


def written(encode: Callable[..., str], *given: Any) -> tuple[str, Any]:
    """ACCEPTED, header, claims and whether HS256 signed them; or the exception's class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            token = encode(*given)
        except Exception as error:
            return type(error).__name__, str(error)
    signed, _, mac = token.rpartition(".")
    expected = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest()
    return ACCEPTED, [_segment(token, 0), _segment(token, 1), mac == encode64(expected)]


@settings(max_examples=EXAMPLES, deadline=None, database=None, derandomize=True)
@given(claims=written_claims.map(present), header=written_headers, strict=st.booleans())
def test_encode_writes_what_pyjwt_writes(
    claims: dict[str, Any], header: dict[str, Any] | None, strict: bool
) -> None:
    ours = written(jwt.encode if strict else jwt.PyJWT().encode, claims, SECRET, "HS256", header)
    theirs = written(pyjwt.encode, claims, SECRET, "HS256", header)
    if ours[0] == ACCEPTED:
        assert theirs[0] == ACCEPTED, theirs
        assert ours[1][2] is theirs[1][2] is True
        assert same_claims(ours[1], theirs[1])
    elif ours[0] != theirs[0]:
        named = header or {}
        other_algorithm = named.get("alg", "HS256") != "HS256"  # "" and None are no algorithms
        detached = named.get("b64", True) is False
        assert strict or other_algorithm or detached, (ours, theirs)
        if theirs[0] == ACCEPTED and not (other_algorithm or detached):
            token = jwt.PyJWT().encode(claims, SECRET, "HS256", header)
            late = {"verify_exp": False} if type(claims.get("exp")) is int else {}
            with pytest.raises(jwt.InvalidTokenError):
                jwt.decode(token, SECRET, algorithms=["HS256"], audience="a", options=late)


# ---- secrets ----------------------------------------------------------------------------------


def asymmetric_keys() -> Iterator[tuple[str, bytes]]:
    """Real keys in every form in which somebody may mistake them for a secret."""
    private_keys = {
        "RSA": rsa.generate_private_key(65537, 2048),
        "EC": ec.generate_private_key(ec.SECP256R1()),
        "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    }
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    pkcs8 = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    for name, private in private_keys.items():
        public = private.public_key()
        openssh = serialization.PublicFormat.OpenSSH
        yield f"{name} OpenSSH", public.public_bytes(serialization.Encoding.OpenSSH, openssh)
        for form in ("PEM", "DER"):
            encoding = getattr(serialization.Encoding, form)
            yield f"{name} public {form}", public.public_bytes(encoding, spki)
            yield f"{name} private {form}", private.private_bytes(encoding, pkcs8, plain)
    jwk = {"kty": "RSA", "n": "AQAB", "e": "AQAB"}
    for value in (jwk, [jwk], {"keys": [jwk]}, {"a": [[{"b": jwk}]]}, {"kty": "oct", "k": "AA"}):
        text = json.dumps(value)
        yield text, text.encode()
        yield f"{text} in UTF-16", text.encode("utf-16")
        yield f"{text} behind white space", b" \r\n\t" + text.encode()


def test_no_asymmetric_key_and_no_jwk_is_taken_for_a_secret() -> None:
    for name, secret in asymmetric_keys():
        with pytest.raises(jwt.InvalidKeyError):
            jwt.encode({}, secret)
        refused_by_pyjwt = verdict_of_secret(secret) == "InvalidKeyError"
        assert refused_by_pyjwt or "private DER" in name, name


def verdict_of_secret(secret: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pyjwt.encode({}, secret)
        except pyjwt.PyJWTError as error:
            return type(error).__name__
    return ACCEPTED
