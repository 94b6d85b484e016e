"""Signing, verifying and freeing through ctypes keeps the process at its size.

PYPLUE_JWT_MEMORY_ROUNDS sets how often (default one million; ten million take about a minute).
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path

import pytest
from jwt_raw import key, owned

from pyplue import ffi, jwt
from pyplue.jwt.base64url import base64url_encode

ROUNDS = int(os.environ.get("PYPLUE_JWT_MEMORY_ROUNDS", "1000000"))
SECRET = b"a secret of more than 32 bytes, for real"
LIMIT_KIB = 2048

if sys.platform != "linux":
    pytest.skip("resident memory is read from /proc", allow_module_level=True)


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


def grown_by(work, rounds: int) -> int:
    """KiB by which the process grows over `rounds`, after a tenth of them to warm up."""
    for _ in range(rounds // 10):
        work()
    before = resident_kib()
    for _ in range(rounds):
        work()
    return resident_kib() - before


@pytest.fixture
def secret():
    ffi.jwt.jwt_init(SECRET, len(SECRET))
    yield
    ffi.jwt.jwt_cleanup()


@pytest.mark.timeout(0)
@pytest.mark.usefixtures("secret")
def test_sign_verify_and_free() -> None:
    sign, verify = ffi.jwt.jwt_sign, ffi.jwt.jwt_verify
    payload = b'{"sub":"ann","exp":%d}' % (time.time() + 86400)

    def work() -> None:
        token = owned(sign(payload))
        assert owned(verify(token)) == payload

    assert grown_by(work, ROUNDS) < LIMIT_KIB


@pytest.mark.timeout(0)
def test_encode_decode_and_refuse() -> None:
    other = jwt.Key("another secret of 32 bytes or more")

    def work() -> None:
        token = jwt.encode({"sub": "ann"}, SECRET)
        assert jwt.decode(token, SECRET, algorithms=["HS256"]) == {"sub": "ann"}
        try:
            jwt.decode(token, other)
        except jwt.InvalidSignatureError:
            return
        raise AssertionError("a token was accepted under another key")

    assert grown_by(work, ROUNDS // 20) < LIMIT_KIB


def test_headers_of_refused_tokens_are_not_kept() -> None:
    keys = jwt.KeySet({"a": SECRET, "b": "another secret of 32 bytes or more"})
    numbers = itertools.count()

    def work() -> None:
        text = json.dumps({"n": next(numbers), "x": "x" * 500_000})
        token = base64url_encode(text.encode()).decode() + ".e30." + "A" * 43
        with pytest.raises(jwt.DecodeError, match="larger than"):
            jwt.decode(token, keys)

    assert grown_by(work, 30) < LIMIT_KIB


@pytest.mark.timeout(0)
def test_keys_that_come_and_go() -> None:
    def work() -> None:
        with key(SECRET):
            pass
        jwt.encode({}, jwt.Key(SECRET))

    assert grown_by(work, ROUNDS // 20) < LIMIT_KIB
