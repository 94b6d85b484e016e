"""Eight threads sign and verify while a ninth rotates the secret, through C and through Python."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

import pytest
from jwt_raw import owned

from pyplue import ffi, jwt

SECRETS = [b"the first secret, of more than 32 bytes.", b"the other secret, of more than 32 bytes."]
THREADS = 8
SECONDS = 1.5


def run(work: Callable[[], bool], rotate: Callable[[int], None]) -> int:
    """Runs `work` in eight threads while `rotate` runs in this one; how often it was all right."""
    done = threading.Event()
    counts = [0] * THREADS
    failures: list[object] = []

    def loop(number: int) -> None:
        try:
            while not done.is_set():
                if not work():
                    failures.append("a token verified under neither secret")
                counts[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + SECONDS
    turns = 0
    while time.monotonic() < end:
        rotate(turns)
        turns += 1
        time.sleep(0.0002)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert turns > 10
    assert min(counts) > 10
    return sum(counts)


@pytest.fixture(autouse=True)
def often():
    """Threads take turns every 50 microseconds instead of every 5 milliseconds."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def handles():
    numbers = [ffi.jwt.jwt_key_create(secret, len(secret)) for secret in SECRETS]
    yield numbers
    for number in numbers:
        ffi.jwt.jwt_key_destroy(number)


def test_every_token_of_c_verifies_under_the_old_or_the_new_secret(handles) -> None:
    payload = b'{"sub":"ann"}'
    # The same functions, but without the GIL, so that they really run side by side.
    lib = ffi.Library(
        ffi.jwt.name,
        {name: symbol._replace(waits=True) for name, symbol in ffi.jwt.symbols.items()},
    )
    lib.jwt_init(SECRETS[0], len(SECRETS[0]))

    def work() -> bool:
        token = owned(lib.jwt_sign(payload))
        owned(lib.jwt_verify(token))
        return any(lib.jwt_verify_text(handle, token) == payload for handle in handles)

    try:
        run(work, lambda turn: lib.jwt_init(SECRETS[turn % 2], len(SECRETS[turn % 2])))
    finally:
        ffi.jwt.jwt_cleanup()


def test_every_token_of_python_verifies_under_the_old_or_the_new_secret(monkeypatch) -> None:
    monkeypatch.setattr(jwt.session, "_key", jwt.Key(SECRETS[0]))

    def work() -> bool:
        token = jwt.sign({"sub": "ann"})
        jwt.verify(token)
        return jwt.decode(token, SECRETS, algorithms=["HS256"])["sub"] == "ann"

    run(work, lambda turn: jwt.init(jwt.Key(SECRETS[turn % 2])))


def test_secrets_that_fall_out_of_the_cache_do_not_disturb_those_who_use_them() -> None:
    def work() -> bool:
        token = jwt.encode({"sub": "ann"}, SECRETS[0])
        return jwt.decode(token, SECRETS[0], algorithms=["HS256"]) == {"sub": "ann"}

    run(work, lambda _: jwt.forget_secrets())
