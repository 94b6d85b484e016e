"""The C ABI with arguments that no caller should pass: a defined result and a reason each time."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from jwt_raw import CHECK_ALL, SYSTEM_CLOCK, error, key, owned, verify_with

from pyplue import ffi, jwt
from pyplue.jwt.base64url import base64url_encode

lib = ffi.jwt
SECRET = b"a secret of more than 32 bytes, for real"
OPTIONS = struct.pack("=qqII", SYSTEM_CLOCK, 0, CHECK_ALL, 0)


@pytest.fixture(autouse=True)
def no_secret() -> Iterator[None]:
    lib.jwt_cleanup()
    yield
    lib.jwt_cleanup()


@pytest.fixture
def handle() -> Iterator[int]:
    with key(SECRET) as number:
        yield number


def test_signing_and_verifying_before_init() -> None:
    assert lib.jwt_sign(b"{}") is None
    assert error() == "no_secret"
    assert lib.jwt_verify(b"a.b.c") is None
    assert error() == "no_secret"


def test_after_cleanup_the_secret_is_gone() -> None:
    assert lib.jwt_init(SECRET, len(SECRET))
    token = owned(lib.jwt_sign(b"{}"))
    assert token is not None
    lib.jwt_cleanup()
    lib.jwt_cleanup()
    assert lib.jwt_verify(token) is None
    assert error() == "no_secret"


def test_freeing_null_is_nothing() -> None:
    lib.jwt_free(None)
    lib.jwt_free(0)


def test_null_pointers(handle: int) -> None:
    out = ffi.buffer(64)
    index = ffi.buffer(4)
    keys = struct.pack("=I", handle)
    assert lib.jwt_init(SECRET, len(SECRET))
    for answer in (
        lambda: lib.jwt_init(None, 5),
        lambda: lib.jwt_key_create(None, 5),
        lambda: lib.jwt_sign(None),
        lambda: lib.jwt_verify(None),
        lambda: lib.jwt_sign_text(handle, None),
        lambda: lib.jwt_verify_text(handle, None),
        lambda: lib.jwt_sign_into(handle, None, 5, out, 64),
        lambda: lib.jwt_sign_into(handle, b"{}", 2, None, 64),
        lambda: lib.jwt_verify_into(handle, None, 5, out, 64),
        lambda: lib.jwt_verify_into(handle, b"a.b.c", 5, None, 64),
        lambda: lib.jwt_verify_with(None, 5, keys, 1, OPTIONS, out, 64, index),
        lambda: lib.jwt_verify_with(b"a.b.c", 5, None, 1, OPTIONS, out, 64, index),
        lambda: lib.jwt_jws_sign(handle, None, 5, b"", 0, out, 64),
        lambda: lib.jwt_jws_sign(handle, b"{}", 2, None, 5, out, 64),
        lambda: lib.jwt_jws_verify(None, 5, keys, 1, None, out, 64, None),
        lambda: lib.jwt_decode_unverified(None, 5, 0, out, 64),
        lambda: lib.jwt_mac(handle, None, 5, out),
        lambda: lib.jwt_mac(handle, b"x", 1, None),
        lambda: lib.jwt_verify_batch(handle, None, None, 5, None, out, 64, None),
    ):
        result = answer()
        assert result is None or result is False or result <= 0
        assert error() == "null_pointer"


@pytest.mark.parametrize("secret", [b"", b"x", b"\0", b"\xff", b"\0" * 64])
def test_secrets_of_no_byte_one_byte_and_zeros(secret: bytes) -> None:
    assert lib.jwt_init(secret, len(secret)) == bool(secret)
    if secret:
        assert owned(lib.jwt_verify(owned(lib.jwt_sign(b'{"a":1}')))) == b'{"a":1}'
        with key(secret) as number:
            assert lib.jwt_sign_text(number, b'{"a":1}') is not None
    else:
        assert error() == "empty_secret"


@pytest.mark.parametrize("number", [0, 2**31, 2**32 - 1])
def test_a_made_up_key_handle(number: int) -> None:
    assert lib.jwt_sign_text(number, b"{}") is None
    assert error() == "unknown_key"
    assert lib.jwt_verify_text(number, b"a.b.c") is None
    assert error() == "unknown_key"
    assert not lib.jwt_key_destroy(number)
    assert verify_with(b"a.b.c", [number])[0] == "unknown_key"


def test_a_destroyed_key_handle_does_not_come_back_to_life() -> None:
    with key(SECRET) as old:
        token = lib.jwt_sign_text(old, b"{}")
    with key(b"another secret that may get the same place"):
        assert lib.jwt_sign_text(old, b"{}") is None
        assert error() == "unknown_key"
        assert verify_with(token, [old])[0] == "unknown_key"


def test_more_keys_than_a_call_takes(handle: int) -> None:
    token = lib.jwt_sign_text(handle, b"{}")
    assert verify_with(token, [handle] * 64) == (b"{}", 0)
    assert verify_with(token, [handle] * 65)[0] == "key_count"
    assert verify_with(token, [])[0] == "key_count"


def test_options_out_of_range(handle: int) -> None:
    token = lib.jwt_sign_text(handle, b"{}")
    assert verify_with(token, [handle], leeway_s=-1)[0] == "options"
    assert verify_with(token, [handle], checks=8)[0] == "options"
    assert verify_with(token, [handle], now_s=2**63 - 1, leeway_s=2**63 - 1) == (b"{}", 0)


@pytest.mark.parametrize("room", [0, 1, 5])
def test_a_buffer_that_is_too_small_is_not_written_past(handle: int, room: int) -> None:
    token = lib.jwt_sign_text(handle, b'{"sub":"ann"}')
    out = ffi.buffer(200)
    for length in (
        lib.jwt_verify_into(handle, token, len(token), out, room),
        lib.jwt_sign_into(handle, b'{"sub":"ann"}', 13, out, room),
        lib.jwt_decode_unverified(token, len(token), 1, out, room),
    ):
        assert length < 0
        assert error() == "buffer_too_small"
    assert out.raw[room:] == bytes(200 - room)


@pytest.mark.parametrize("size", [65535, 65536, 65537, 1 << 20, 1 << 25])
def test_huge_tokens_and_payloads(handle: int, size: int) -> None:
    assert lib.jwt_verify_text(handle, b"A" * size) is None
    assert error() == ("segments" if size <= 65536 else "too_large")
    assert lib.jwt_verify_text(handle, b"." * size) is None
    assert lib.jwt_sign_text(handle, b'{"a":"' + b"x" * size + b'"}') is None
    assert error() == "too_large"
    assert lib.jwt_verify_text(handle, lib.jwt_sign_text(handle, b"{}")) == b"{}"


def test_bytes_that_are_not_utf_8(handle: int) -> None:
    assert lib.jwt_sign_text(handle, b'{"a":"\xff"}') is None
    assert error() == "payload_json"
    assert lib.jwt_verify_text(handle, b"\xff\xfe.\x80.\x81") is None
    assert error() == "header_encoding"


def test_an_embedded_nul_ends_c_text_but_not_the_calls_with_lengths(handle: int) -> None:
    token: bytes = lib.jwt_sign_text(handle, b"{}")
    assert lib.jwt_verify_text(handle, token + b"\0garbage") == b"{}"
    out = ffi.buffer(300)
    longer = token + b"\0garbage"
    assert lib.jwt_verify_into(handle, longer, len(longer), out, 300) < 0
    assert error() == "signature_encoding"


@pytest.mark.parametrize("ending", ["\0", "\0garbage", " ", "\n", "=", "é", "\ud800"])
def test_python_looks_at_the_whole_token(ending: str) -> None:
    whole = jwt.encode({}, SECRET)
    prepared = jwt.Key(SECRET)
    named = jwt.KeySet({"a": prepared})
    for token in (whole + ending, (whole + ending).encode(errors="surrogatepass")):
        for given, algorithms in (
            (prepared, None),
            (SECRET, ["HS256"]),
            ([prepared], None),
            (named, None),
        ):
            with pytest.raises(jwt.DecodeError):
                jwt.decode(token, given, algorithms=algorithms)


@pytest.mark.parametrize("segment", [0, 1, 2])
@pytest.mark.parametrize("character", ["é", "\ud800", "\u0660", "\0"])
def test_a_token_is_ascii_even_where_its_signature_matches(segment: int, character: str) -> None:
    parts = jwt.encode({"sub": "ann"}, SECRET).split(".")
    parts[segment] += character
    prepared = jwt.Key(SECRET)
    start = ".".join(parts[:2]).encode(errors="surrogatepass")
    mac = ffi.buffer(32)
    assert lib.jwt_mac(prepared.handle, start, len(start), mac)
    if segment < 2:
        parts[2] = base64url_encode(mac.raw).decode()
    for given in (prepared, jwt.KeySet([prepared]), jwt.KeySet({"a": prepared})):
        with pytest.raises(jwt.DecodeError):
            jwt.decode(".".join(parts), given)
        jwt.init(given)
        assert jwt.verify(".".join(parts)) is None


@pytest.mark.parametrize("token", [None, 5, bytearray(b"a.b.c"), ["a.b.c"], {}, object()])
def test_a_token_is_text_or_bytes(token: object) -> None:
    for call in (
        lambda: jwt.decode(token, SECRET, algorithms=["HS256"]),
        lambda: jwt.decode(token, options={"verify_signature": False}),
        lambda: jwt.get_unverified_header(token),
    ):
        with pytest.raises(jwt.DecodeError, match="type"):
            call()


def test_error_names_of_any_number() -> None:
    assert lib.jwt_error_name(0) == b"ok"
    for number in (1, -1000, 2**31 - 1, -(2**31)):
        assert lib.jwt_error_name(number) == b"unknown"
