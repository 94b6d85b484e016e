"""Keys: prepared ones, the cache of plain secrets, several keys, and the warning of short ones."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import time
import warnings

import pytest
from jwt_raw import verify_with

from pyplue import ffi, jwt
from pyplue.jwt import key as key_module
from pyplue.jwt.base64url import base64url_encode

SECRET = "a secret of more than 32 bytes, for real"
OLD = "the secret before it, of 32 bytes and more"
OLDER = "the very first secret, of 32 bytes or more"


@pytest.fixture(autouse=True)
def empty_cache():
    jwt.forget_secrets()
    yield
    jwt.forget_secrets()


def is_alive(handle: int) -> bool:
    return ffi.jwt.jwt_sign_text(handle, b"{}") is not None


def test_text_and_its_bytes_are_the_same_key() -> None:
    token = jwt.encode({"sub": "ann"}, "pässwörd of more than thirty-two bytes")
    secret = "pässwörd of more than thirty-two bytes".encode()
    jwk = jwt.PyJWK({"kty": "oct", "k": base64url_encode(secret).decode()})
    for key in (secret, jwt.Key(secret), jwk, [jwk, "x" * 32]):
        assert jwt.decode(token, key, algorithms=["HS256"]) == {"sub": "ann"}


def test_a_key_needs_no_algorithms_and_a_secret_does() -> None:
    token = jwt.encode({}, SECRET)
    assert jwt.decode(token, jwt.Key(SECRET)) == {}
    assert jwt.decode(token, [jwt.Key(OLD), jwt.Key(SECRET)]) == {}
    for secret in (SECRET, SECRET.encode(), [SECRET], {"a": SECRET}):
        with pytest.raises(jwt.DecodeError, match="algorithms"):
            jwt.decode(token, secret)


def test_a_key_is_only_for_the_algorithms_that_the_caller_allows() -> None:
    token = jwt.encode({}, SECRET)
    for algorithms in (["HS512"], "HS512", "XHS256X", ("RS256",)):
        with pytest.raises(jwt.InvalidAlgorithmError):
            jwt.decode(token, jwt.Key(SECRET), algorithms=algorithms)
    assert jwt.decode(token, jwt.Key(SECRET), algorithms="HS256") == {}


def test_a_key_shows_nothing_and_goes_nowhere() -> None:
    key = jwt.Key(SECRET)
    assert SECRET not in repr(key)
    assert repr(key) == "<Key of 40 bytes>"
    for copier in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be pickled"):
            copier(key)


@pytest.mark.parametrize("secret", [None, 5, bytearray(b"x" * 40), memoryview(b"x" * 40), object()])
def test_a_secret_is_text_or_bytes(secret) -> None:
    with pytest.raises(TypeError):
        jwt.Key(secret)
    with pytest.raises(TypeError):
        jwt.encode({}, secret)
    with pytest.raises(TypeError):
        jwt.decode(jwt.encode({}, SECRET), secret, algorithms=["HS256"])


def test_a_key_is_wiped_when_it_is_gone() -> None:
    key = jwt.Key(SECRET)
    handle = key.handle
    assert is_alive(handle)
    del key
    gc.collect()
    assert not is_alive(handle)


def test_a_wiped_key_is_an_error_and_not_a_refused_token() -> None:
    key = jwt.Key(SECRET)
    token = jwt.encode({}, key)
    key.wipe()
    key.wipe()
    for attempt in (lambda: jwt.encode({}, key), lambda: jwt.decode(token, key)):
        with pytest.raises(jwt.InvalidKeyError, match="wiped"):
            attempt()
    jwt.init(key)
    for attempt in (lambda: jwt.sign({}), lambda: jwt.verify(token)):
        with pytest.raises(jwt.InvalidKeyError, match="wiped"):
            attempt()


def test_a_key_works_in_a_forked_process() -> None:
    key = jwt.Key(SECRET)
    token = jwt.encode({"sub": "ann"}, key)
    child = os.fork()
    if child == 0:
        good = jwt.decode(token, key) == jwt.decode(token, SECRET, algorithms=["HS256"])
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert jwt.decode(token, key) == {"sub": "ann"}


# ---- the cache ----------------------------------------------------------------------------------


def test_a_plain_secret_is_prepared_once() -> None:
    token = jwt.encode({}, SECRET)
    prepared = key_module.cached(SECRET)
    assert prepared is not None
    for _ in range(3):
        jwt.decode(token, SECRET, algorithms=["HS256"])
    assert key_module.cached(SECRET) is prepared


def test_the_cache_is_bounded_and_what_it_drops_is_wiped() -> None:
    handles = []
    for number in range(key_module.MAX_CACHED_KEYS + 10):
        secret = f"{number:040}"
        assert jwt.decode(jwt.encode({"n": number}, secret), secret, algorithms=["HS256"])
        handles.append(key_module.cached(secret).handle)
    gc.collect()
    assert [is_alive(handle) for handle in handles] == [False] * 10 + [True] * (len(handles) - 10)
    jwt.forget_secrets()
    gc.collect()
    assert not any(map(is_alive, handles))


def test_a_refused_secret_is_not_cached() -> None:
    with pytest.raises(jwt.InvalidKeyError):
        jwt.encode({}, "ssh-rsa AAAA")
    assert key_module.cached("ssh-rsa AAAA") is None


def test_a_secret_that_compares_equal_to_another_is_not_taken_for_it() -> None:
    class Chameleon(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash(SECRET)

    token = jwt.encode({}, SECRET)
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, Chameleon(OLD), algorithms=["HS256"])
    assert jwt.decode(token, Chameleon(SECRET), algorithms=["HS256"]) == {}


# ---- several keys -------------------------------------------------------------------------------


def test_a_list_of_keys_is_tried_in_order_and_the_result_says_which_matched() -> None:
    keys = [SECRET, OLD, jwt.Key(OLDER)]
    for index, secret in enumerate(keys):
        token = jwt.encode({"sub": "ann"}, secret)
        for several in (keys, tuple(keys), jwt.KeySet(keys)):
            result = jwt.decode_complete(token, several, algorithms=["HS256"])
            assert result["payload"] == {"sub": "ann"}
            assert result["matched_key"] == index
            assert jwt.decode(token, several, algorithms=["HS256"]) == {"sub": "ann"}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(jwt.encode({}, "no key of these, but of 32 bytes"), keys, algorithms=["HS256"])


def test_the_first_key_signs_and_a_map_names_it() -> None:
    token = jwt.encode({}, [SECRET, OLD])
    assert jwt.decode(token, SECRET, algorithms=["HS256"]) == {}
    assert "kid" not in jwt.get_unverified_header(token)
    for keys in ({"2026": SECRET, "2025": OLD}, jwt.KeySet({"2026": SECRET, "2025": OLD})):
        token = jwt.encode({}, keys)
        assert jwt.get_unverified_header(token)["kid"] == "2026"
        assert jwt.decode(token, SECRET, algorithms=["HS256"]) == {}


def test_a_map_goes_by_kid() -> None:
    keys = {"2026": SECRET, "2025": OLD}
    named = jwt.encode({}, OLD, headers={"kid": "2025"})
    assert jwt.decode_complete(named, keys, algorithms=["HS256"])["matched_key"] == "2025"
    unnamed = jwt.encode({}, OLD)
    assert jwt.decode_complete(unnamed, keys, algorithms=["HS256"])["matched_key"] == "2025"
    for wrong in ("2026", "2024", ""):
        token = jwt.encode({}, OLD, headers={"kid": wrong})
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(token, keys, algorithms=["HS256"])


@pytest.mark.parametrize("kid", ["a", "", 'é\u2028\x00"\\', "\ud800", "k" * 1000, "k" * 3000])
def test_any_text_may_be_a_kid(kid) -> None:
    keys = jwt.KeySet({kid: SECRET, "other": OLD})
    for token in (
        jwt.encode({"sub": "ann"}, keys),
        jwt.encode({"sub": "ann"}, SECRET, headers={"kid": kid}),
    ):
        assert jwt.get_unverified_header(token) == {"alg": "HS256", "kid": kid, "typ": "JWT"}
        assert jwt.decode(token, keys) == {"sub": "ann"}
        assert jwt.decode_complete(token, keys)["matched_key"] == kid
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(token, jwt.KeySet({"other": SECRET}))
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(token, jwt.KeySet({kid: OLD, "other": SECRET}))


@pytest.mark.parametrize("kid", [None, 5, ["a"], "k" * 10000])
def test_what_cannot_be_a_kid(kid) -> None:
    with pytest.raises(jwt.InvalidTokenError):
        jwt.encode({}, SECRET, headers={"kid": kid})


def test_the_session_goes_by_kid_too() -> None:
    jwt.init(jwt.KeySet({"2026": SECRET, "2025": OLD}))
    assert jwt.get_unverified_header(jwt.sign({}))["kid"] == "2026"
    for token in (jwt.sign({}), jwt.encode({}, OLD, headers={"kid": "2025"}), jwt.encode({}, OLD)):
        assert jwt.verify(token) is not None
        assert jwt.verify(token.encode()) is not None
    for wrong in ("2026", "2024", ""):
        token = jwt.encode({}, OLD, headers={"kid": wrong})
        assert jwt.verify(token) is None
        assert jwt.verify(token.encode()) is None


def signed(header: bytes) -> str:
    """A token under any header."""
    start = base64url_encode(header) + b".e30"
    mac = ffi.buffer(32)
    assert ffi.jwt.jwt_mac(jwt.Key(SECRET).handle, start, len(start), mac)
    return (start + b"." + base64url_encode(mac.raw)).decode()


def test_a_header_that_cannot_be_read_is_not_one_without_a_kid() -> None:
    # Python does not read a number of so many digits, the library does.
    token = signed(b'{"alg":"HS256","kid":"other","x":%s}' % (b"1" * 5000))
    keys = jwt.KeySet({"a": SECRET, "b": OLD})
    with pytest.raises(jwt.DecodeError, match="header"):
        jwt.decode(token, keys)
    jwt.init(keys)
    assert jwt.verify(token) is None


@pytest.mark.parametrize("limit", [65536, 16 * 1024 * 1024])
def test_a_header_is_only_read_up_to_its_limit(limit) -> None:
    start, end = b'{"alg":"HS256","kid":"a","x":"', b'"}'
    keys = jwt.KeySet({"a": SECRET, "b": OLD})
    jwt.init(keys)
    options = None if limit == 65536 else {"max_token_bytes": limit}
    key_module.unverified_kid.cache_clear()
    for size, good in ((8192, True), (8193, False), (40_000, False), (8_000_000, False)):
        token = signed(start + b"x" * (size - len(start + end)) + end)
        before = key_module.unverified_kid.cache_info()
        if good:
            assert jwt.decode(token, keys, options=options) == {}
            assert jwt.verify(token) == {}
            continue
        for key in (keys, jwt.Key(SECRET)):
            with pytest.raises(jwt.DecodeError, match="larger than"):
                jwt.decode(token, key, options=options)
        assert jwt.verify(token) is None
        assert key_module.unverified_kid.cache_info() == before


def test_c_takes_every_key_that_it_is_given_whatever_kid_says() -> None:
    # Whoever goes by kid, as KeySet does, finds it before and gives that key alone.
    keys = [jwt.Key(OLD), jwt.Key(SECRET)]
    token = jwt.encode({}, SECRET, headers={"kid": "other"})
    assert verify_with(token.encode(), [key.handle for key in keys]) == (b"{}", 1)


def test_a_set_of_keys_checks_claims_as_one_key_does() -> None:
    for keys in (jwt.KeySet([OLD, SECRET]), jwt.KeySet({"old": OLD, "new": SECRET})):
        for claims, expected, error in (
            ({"exp": 1}, {}, jwt.ExpiredSignatureError),
            ({"aud": "a"}, {}, jwt.InvalidAudienceError),
            ({"aud": "a"}, {"audience": "b"}, jwt.InvalidAudienceError),
            ({"iss": "a"}, {"issuer": "b"}, jwt.InvalidIssuerError),
            ({"sub": "a"}, {"subject": "b"}, jwt.InvalidSubjectError),
        ):
            with pytest.raises(error):
                jwt.decode(jwt.encode(claims, SECRET), keys, **expected)
        with pytest.raises(jwt.InvalidAlgorithmError):
            jwt.decode(jwt.encode({}, SECRET), keys, algorithms=["HS512"])
        assert jwt.decode(jwt.encode({}, SECRET), keys, algorithms=["HS256"]) == {}


def test_another_key_is_never_tried_for_an_expired_or_malformed_token() -> None:
    expired = jwt.encode({"exp": int(time.time()) - 10}, SECRET)
    with pytest.raises(jwt.ExpiredSignatureError):
        jwt.decode(expired, [SECRET, OLD], algorithms=["HS256"])
    late = jwt.decode_complete(
        expired, [OLD, SECRET], algorithms=["HS256"], options={"verify_exp": False}
    )
    assert late["matched_key"] == 1
    with pytest.raises(jwt.DecodeError, match="segments"):
        jwt.decode("x.y", [SECRET, OLD], algorithms=["HS256"])


@pytest.mark.parametrize("keys", [[], {}, [SECRET] * 65, [SECRET, ""]])
def test_a_set_of_keys_has_one_to_64_good_keys(keys) -> None:
    with pytest.raises(jwt.InvalidKeyError):
        jwt.KeySet(keys)
    with pytest.raises(jwt.InvalidKeyError):
        jwt.decode(jwt.encode({}, SECRET), keys, algorithms=["HS256"])


def test_64_keys_work() -> None:
    keys = [f"{number:040}" for number in range(64)]
    token = jwt.encode({}, keys[-1])
    assert jwt.decode_complete(token, keys, algorithms=["HS256"])["matched_key"] == 63


def test_a_key_map_has_text_for_names() -> None:
    with pytest.raises(TypeError, match="kid"):
        jwt.KeySet({1: SECRET})


# ---- short keys ---------------------------------------------------------------------------------


def test_a_short_key_warns_once_and_at_the_callers_line() -> None:
    with pytest.warns(jwt.InsecureKeyLengthWarning, match="below the minimum of 32") as caught:
        token = jwt.encode({}, "short")
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jwt.encode({}, "short")
        jwt.decode(token, "short", algorithms=["HS256"])
    with pytest.warns(jwt.InsecureKeyLengthWarning) as caught:
        jwt.Key("short")
    assert caught[0].filename == __file__
    with pytest.warns(jwt.InsecureKeyLengthWarning) as caught:
        jwt.decode(token, ["short-too", "short"], algorithms=["HS256"])
    assert {warning.filename for warning in caught} == {__file__}


def test_32_bytes_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        jwt.Key("x" * 32)
        jwt.Key("ä" * 16)


def test_a_short_key_can_be_an_error() -> None:
    strict = jwt.PyJWT({"enforce_minimum_key_length": True})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key in ("short", [SECRET, "short"]):
            with pytest.raises(jwt.InvalidKeyError, match="below"):
                strict.encode({}, key)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        key = jwt.Key("short")
    with pytest.raises(jwt.InvalidKeyError, match="below"):
        strict.decode(jwt.encode({}, key), key)
