"""RateLimiter's calls, bad input, threads, forks and floods."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from pyplue import ffi
from pyplue.errors import PlueError
from pyplue.ratelimit import (
    KeyTooLongError,
    LimiterClosedError,
    RateLimiter,
)
from pyplue.ratelimit.window import window_ms

ALGORITHMS = ["sliding-window", "gcra", "token-bucket", "fixed-window"]

# The flood of the contract is 10,000,000; with the default it takes seconds.
FLOOD = int(os.environ.get("RATELIMIT_FLOOD", "1500000"))
FLOOD_MAX_KEYS = int(os.environ.get("RATELIMIT_FLOOD_MAX_KEYS", str(max(1000, FLOOD // 10))))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_limit_is_per_key(algorithm: str):
    with RateLimiter(2, "1h", algorithm=algorithm) as limiter:
        assert [limiter.check("a") for _ in range(3)] == [True, True, False]
        assert limiter.check("b")
        assert limiter.remaining("a") == 0 and limiter.remaining("b") == 1
        limiter.reset("a")
        assert limiter.check("a")


def test_a_decision_says_what_is_left_and_when_to_come_again():
    with RateLimiter(10, "1h", algorithm="fixed-window") as limiter:
        first = limiter.hit("a", cost=4)
        assert first and (first.limit, first.remaining, first.retry_after) == (10, 6, 0)
        assert 3599 < first.reset_after <= 3600
        refused = limiter.hit("a", cost=7)
        assert not refused and refused.remaining == 6 and 3599 < refused.retry_after <= 3600
        assert not refused.table_full


def test_keys_are_text_or_bytes_of_any_content():
    with RateLimiter(1, "1h") as limiter:
        keys = ["", "\0", "a\0b", "a\0c", "ü", "\udc80", "x" * 1024, b"\xff\x00", " ", "a"]
        assert all(limiter.check(key) for key in keys)
        assert not any(limiter.check(key) for key in keys)
        assert not limiter.check(b"a")
        assert len(limiter) == len(keys)


def test_many_keys_at_once_are_the_same_as_one_by_one():
    keys = ["a", "b", "a", "", "c\0d", b"e\xff", "a", "ü" * 400]
    with RateLimiter(2, "1h") as batch, RateLimiter(2, "1h") as single:
        assert batch.check_many(keys) == [single.check(key) for key in keys]
        assert batch.check_many(["a", "x", "y"]) == [False, True, True]
        assert batch.check_many([]) == []
        assert batch.check_many([""]) == [True]
        # One key, as many NULs as stand between two.
        assert batch.check_many(["e\0f"] * 3) == [single.check("e\0f") for _ in range(3)]
        assert batch.check_many(["\0"]) == [True] and batch.check_many(["\0", "\0"]) == [
            True,
            False,
        ]
        assert batch.check_many(["z"], cost=3) == [False]


@pytest.mark.parametrize("claimed", [3, 5, 1_000_000])
@pytest.mark.parametrize("kind", [str, str.encode])
def test_a_sequence_that_is_not_as_long_as_it_says_is_refused(claimed: int, kind: Callable):
    class Keys(list):
        def __len__(self) -> int:
            return claimed

    with RateLimiter(9, "1h") as limiter:
        with pytest.raises(ValueError, match=f"{claimed} keys by their len"):
            limiter.check_many(Keys(map(kind, "abcd")))
        assert len(limiter) == 0


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (60, 60_000),
        (0.5, 500),
        (timedelta(minutes=2), 120_000),
        ("15m", 900_000),
        ("1.5 hours", 5_400_000),
        ("250ms", 250),
        ("day", 86_400_000),
        ("2 Weeks", 1_209_600_000),
    ],
)
def test_windows_are_seconds_timedeltas_or_text(window, expected):
    assert window_ms(window) == expected


@pytest.mark.parametrize(
    "window", [0, -1, 0.0001, "", "0s", "x", "1y", math.nan, math.inf, None, True, "-5m", 1e300]
)
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(ValueError, match="window"):
        RateLimiter(1, window)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_requests": -1}, ValueError),
        ({"max_requests": 2**32}, ValueError),
        ({"max_requests": 1.5}, TypeError),
        ({"algorithm": "leaky"}, ValueError),
        ({"when_full": "evict"}, ValueError),
        ({"max_keys": 0}, ValueError),
        ({"max_keys": 2**27}, ValueError),
        ({"shared": "a\0b"}, ValueError),
    ],
)
def test_options_out_of_range_are_refused(options, error):
    with pytest.raises(error):
        RateLimiter(**{"max_requests": 1, "window": 1, **options})


def test_a_request_out_of_range_is_refused_and_not_counted():
    with RateLimiter(3, "1h") as limiter:
        for call in (limiter.check, limiter.hit, limiter.peek, limiter.refund):
            with pytest.raises(KeyTooLongError):
                call("x" * 1025)
            for cost in (0, -1, 2**32):
                with pytest.raises(ValueError, match="cost"):
                    call("a", cost)
            with pytest.raises(TypeError):
                call(5)
            with pytest.raises(TypeError):
                call("a", "1")
        with pytest.raises(KeyTooLongError):
            limiter.check_many(["a", "x" * 1025])
        with pytest.raises(KeyTooLongError):
            limiter.reset("x" * 1025)
        above = limiter.hit("b", 4)
        assert not above and above.retry_after == math.inf
        assert limiter.remaining("b") == 3
        assert isinstance(KeyTooLongError(), PlueError)


def test_a_closed_limiter_lets_nobody_through():
    limiter = RateLimiter(3, "1h")
    limiter.close()
    limiter.close()
    for call in (limiter.check, limiter.hit, limiter.peek, limiter.reset, limiter.refund):
        with pytest.raises(LimiterClosedError):
            call("a")
    with pytest.raises(LimiterClosedError):
        limiter.check_many(["a", "b"])
    assert len(limiter) == 0 and limiter.cleanup() == 0


def test_the_five_functions_of_the_process_limiter():
    raw = ffi.ratelimit
    raw.ratelimit_destroy()
    assert not raw.ratelimit_check(b"early")
    assert raw.ratelimit_error_name(raw.ratelimit_last_error()) == b"no_limiter"
    assert raw.ratelimit_get_remaining(b"early") == 0 and raw.ratelimit_cleanup() == 0
    assert not raw.ratelimit_init(5, 0)
    assert raw.ratelimit_init(2, 60_000)
    assert [raw.ratelimit_check(b"a") for _ in range(3)] == [True, True, False]
    assert raw.ratelimit_get_remaining(b"a") == 0 and raw.ratelimit_get_remaining(b"b") == 2
    assert not raw.ratelimit_check(None) and not raw.ratelimit_check(b"x" * 1025)
    raw.ratelimit_reset(b"a")
    raw.ratelimit_reset(None)
    assert raw.ratelimit_check(b"a") and raw.ratelimit_count() == 1
    assert raw.ratelimit_init(2, 30)
    assert raw.ratelimit_check(b"c")
    time.sleep(0.1)
    assert raw.ratelimit_cleanup() == 1 and raw.ratelimit_count() == 0
    raw.ratelimit_destroy()
    assert not raw.ratelimit_check(b"a")


def test_handles_that_are_stale_or_made_up_are_errors():
    raw, out = ffi.ratelimit, ffi.buffer(32)
    handle = raw.ratelimit_create(0, 1, 1000, 10, 0)
    assert raw.ratelimit_close(handle) and not raw.ratelimit_close(handle)
    for stale in (0, handle, handle + 4096, 2**32 - 1):
        assert not raw.ratelimit_check_key(stale, b"a", 1, 1)
        assert raw.ratelimit_hit(stale, b"a", 1, 1, out) < 0
        assert out.raw == bytes(32)
        assert raw.ratelimit_peek(stale, b"a", 1, 1, out) < 0
        assert raw.ratelimit_check_many(stale, b"a", 1, None, 1, 1, out) < 0
        assert not raw.ratelimit_reset_key(stale, b"a", 1) and not raw.ratelimit_clear(stale)
        assert not raw.ratelimit_hit_log(stale, b"a", 1, 1, 1, 1)
        assert raw.ratelimit_hit_rule(stale, b"a", 1, 1, 0, 1, 1, out) < 0
        assert raw.ratelimit_bytes(stale) == 0


def test_null_pointers_and_wrong_shapes_are_errors():
    raw, out = ffi.ratelimit, ffi.buffer(32)
    handle = raw.ratelimit_create(2, 5, 1000, 10, 0)

    def name(status: int) -> bytes:
        assert status < 0
        return raw.ratelimit_error_name(status)

    assert not raw.ratelimit_check_key(handle, None, 3, 1)
    assert raw.ratelimit_check_key(handle, None, 0, 1)
    assert name(raw.ratelimit_hit(handle, b"a", 1, 1, None)) == b"null_pointer"
    assert name(raw.ratelimit_hit(handle, b"a", 1, 0, out)) == b"zero_cost"
    assert name(raw.ratelimit_hit(handle, b"a" * 2000, 2000, 1, out)) == b"key_too_long"
    assert name(raw.ratelimit_hit_rule(handle, b"a", 1, 1, 9, 1, 1, out)) == b"options"
    assert name(raw.ratelimit_hit_rule(handle, b"a", 1, 1, 0, 1, 0, out)) == b"zero_window"
    many = raw.ratelimit_check_many
    assert name(many(handle, b"a\0b", 3, None, 3, 1, out)) == b"batch_shape"
    assert name(many(handle, b"ab", 2, b"\x01\0\0\0\xff\xff\xff\xff", 2, 1, out)) == b"batch_shape"
    assert name(many(handle, None, 3, None, 1, 1, out)) == b"null_pointer"
    assert name(many(handle, b"a", 1, None, 1, 1, None)) == b"null_pointer"
    assert name(many(handle, b"a\0", 2, None, 2, 0, out)) == b"zero_cost"
    assert raw.ratelimit_open_shared(None, 0, 1, 1, 1, 0) == 0
    assert raw.ratelimit_create(0, 1, 0, 10, 0) == 0
    assert name(raw.ratelimit_last_error()) == b"zero_window"
    raw.ratelimit_close(handle)


def test_expired_entries_go_away_by_themselves():
    with RateLimiter(1, "20ms", max_keys=100_000) as limiter:
        for i in range(20_000):
            limiter.check(f"old{i}")
        time.sleep(0.05)
        for i in range(20_000):
            limiter.check(f"new{i}")
            if i % 4000 == 0:
                time.sleep(0.05)
        assert len(limiter) < 20_000
        time.sleep(0.05)
        assert limiter.cleanup() > 0
        assert len(limiter) == 0
        assert limiter.memory < 1_000_000


def test_a_full_table_follows_its_policy():
    known = [f"known{i}" for i in range(100)]
    fresh = [f"fresh{i}" for i in range(1000)]
    with RateLimiter(2, "1h", max_keys=100) as limiter:
        assert all(limiter.check_many(known))
        assert not any(limiter.check_many(fresh))
        assert len(limiter) == 100
        refused = limiter.hit("fresh")
        assert refused.table_full and 0 < refused.retry_after <= 2 * 3600
        assert all(limiter.check_many(known))
        assert not any(limiter.check_many(known))
    with RateLimiter(2, "1h", max_keys=100, when_full="overflow") as limiter:
        assert all(limiter.check_many(known))
        assert sum(limiter.check_many(fresh)) == 2
        assert all(limiter.check_many(known)) and len(limiter) == 101
    with RateLimiter(2, "1h", max_keys=100, when_full="allow") as limiter:
        assert all(limiter.check_many(known))
        assert all(limiter.check_many(fresh)) and len(limiter) == 100


@pytest.mark.parametrize("max_keys", [1, 2, 3, 10, 1000, 70_000])
def test_exactly_max_keys_are_held(max_keys: int):
    with RateLimiter(1, "1h", max_keys=max_keys) as limiter:
        verdicts = limiter.check_many([f"key{i}" for i in range(2 * max_keys + 50)])
        assert sum(verdicts) == max_keys == len(limiter)
        assert limiter.memory < 8 * 1024 * 64 + 100 * max_keys


def test_a_flood_moves_no_victim_and_no_memory():
    with RateLimiter(5, "1h", max_keys=FLOOD_MAX_KEYS) as limiter:
        assert [limiter.check("victim") for _ in range(6)] == [True] * 5 + [False]
        slowest = []
        batch = 1000
        for start in range(0, FLOOD, batch):
            limiter.check_many([f"flood{i}" for i in range(start, start + batch)])
            before = time.perf_counter_ns()
            assert not limiter.check("victim")
            slowest.append(time.perf_counter_ns() - before)
        slowest.sort()
        assert len(limiter) == min(FLOOD_MAX_KEYS, FLOOD + 1)
        assert limiter.memory <= 64 * FLOOD_MAX_KEYS + 600_000
        assert limiter.remaining("victim") == 0
        print(
            f"{FLOOD} keys against {FLOOD_MAX_KEYS}: {limiter.memory / len(limiter):.1f} bytes per "
            f"key; victim's check p50 {slowest[len(slowest) // 2]} ns, "
            f"p99.9 {slowest[int(len(slowest) * 0.999)]} ns"
        )


def test_eight_threads_never_pass_more_than_the_limit():
    limit = 5000
    with RateLimiter(limit, "1h", algorithm="fixed-window") as limiter:
        # CDLL lets threads run the native code at the same time.
        import ctypes

        check = ctypes.CDLL(str(ffi.ratelimit.path)).ratelimit_check_key
        check.restype = ctypes.c_bool
        start = threading.Barrier(8)

        def work(worker: int) -> tuple[int, int]:
            start.wait()
            shared = sum(check(limiter._handle, b"key", 3, 1) for _ in range(3000))
            own = str(worker).encode()
            mine = sum(check(limiter._handle, own, len(own), 1) for _ in range(3000))
            return shared, mine

        with ThreadPoolExecutor(8) as pool:
            counts = list(pool.map(work, range(8)))
        assert sum(shared for shared, _ in counts) == limit
        assert all(own == 3000 for _, own in counts)


def test_reset_cleanup_and_close_race_with_checks_without_harm():
    import ctypes

    library = ctypes.CDLL(str(ffi.ratelimit.path))
    library.ratelimit_check_key.restype = ctypes.c_bool
    stop = threading.Event()
    handle = ffi.ratelimit.ratelimit_create(0, 3, 5, 5000, 0)
    handles = [handle]

    def check() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            key = b"k%d" % (i % 3000)
            library.ratelimit_check_key(handles[0], key, len(key), 1)

    def disturb() -> None:
        while not stop.is_set():
            key = b"k%d" % (time.monotonic_ns() % 3000)
            library.ratelimit_reset_key(handles[0], key, len(key))
            library.ratelimit_sweep(handles[0])
            old = handles[0]
            handles[0] = library.ratelimit_create(0, 3, ctypes.c_uint64(5), 5000, 0)
            assert library.ratelimit_close(old)

    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(check) for _ in range(4)] + [pool.submit(disturb)]
        time.sleep(1.5)
        stop.set()
        for each in work:
            each.result()
    assert ffi.ratelimit.ratelimit_close(handles[0])


def test_a_forked_child_counts_on_from_a_copy():
    limiter = RateLimiter(1000, "1h", algorithm="fixed-window")
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            limiter.check_many([f"busy{i}" for i in range(500)])

    threads = [threading.Thread(target=busy) for _ in range(3)]
    limiter.check("key", 10)
    for thread in threads:
        thread.start()
    children = []
    for _ in range(30):
        pid = os.fork()
        if pid == 0:
            fine = limiter.remaining("key") == 990
            fine = fine and limiter.check("key", 990) and not limiter.check("key")
            fine = fine and len(limiter.check_many([f"child{i}" for i in range(3000)])) == 3000
            fine = fine and len(limiter) > 3000
            os._exit(0 if fine else 1)
        children.append(pid)
    stop.set()
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 30
    for thread in threads:
        thread.join()
    assert limiter.remaining("key") == 990
    limiter.close()


def test_limiters_are_freed_and_their_number_is_bounded():
    for _ in range(3):
        limiters = [RateLimiter(1, 1) for _ in range(300)]
        assert all(limiter.check("a") for limiter in limiters)
        del limiters
    before = ffi.ratelimit.ratelimit_create(0, 1, 1, 1, 0)
    assert before % 4096 < 600
    ffi.ratelimit.ratelimit_close(before)
