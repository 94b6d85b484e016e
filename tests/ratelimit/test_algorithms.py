"""Every algorithm against a ten-line model, step by step, on a clock that the test turns."""

from __future__ import annotations

import copy
import math
import struct
import time
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ratelimit_models import MODELS

from pyplue import ffi
from pyplue.ratelimit import RateLimiter

CODES = {"sliding-window": 0, "gcra": 1, "fixed-window": 2}
DECISION = struct.Struct("=IIIIQQ")
ALGORITHMS = sorted(MODELS)


class Clock:
    """Whole milliseconds as the limiter reads them."""

    def __init__(self, now: int = 1_000_000) -> None:
        self.now = now

    def __call__(self) -> float:
        # Half a millisecond more: the limiter rounds down, whatever a float makes of it.
        return (self.now + 0.5) / 1000


def limiter_at(clock: Clock, algorithm: str, limit: int, window: int) -> RateLimiter:
    return RateLimiter(limit, window / 1000, algorithm=algorithm, max_keys=64, clock=clock)


def assert_honest(limiter: RateLimiter, clock: Clock, cost: int, retry_after: float) -> None:
    """A millisecond before that time the request is refused, and at that time it passes."""
    now = clock.now
    wait = round(retry_after * 1000)
    assert wait > 0
    clock.now = now + wait - 1
    assert not limiter.peek("key", cost).allowed
    clock.now = now + wait
    assert limiter.peek("key", cost).allowed
    clock.now = now


STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 30), st.integers(0, 3000), st.integers(-200, 0)),
        st.integers(1, 7),
    ),
    max_size=60,
)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=250, deadline=None)
@given(limit=st.integers(0, 12), window=st.integers(1, 1000), steps=STEPS)
def test_every_step_is_the_models(algorithm: str, limit: int, window: int, steps):
    clock = Clock()
    model = MODELS[algorithm](limit, window)
    with limiter_at(clock, algorithm, limit, window) as limiter:
        for pause, cost in steps:
            clock.now += pause
            would = copy.copy(model).hit(clock.now, cost)
            peeked = limiter.peek("key", cost)
            decision = limiter.hit("key", cost)
            passed = model.hit(clock.now, cost)
            assert decision.allowed == peeked.allowed == would == passed
            left = max(0, math.floor(limit - model.used(clock.now)))
            assert decision.remaining == left
            assert limiter.remaining("key") == left
            assert decision.limit == limit
            if passed:
                assert decision.retry_after == 0
            elif cost > limit:
                assert decision.retry_after == math.inf
            else:
                assert decision.retry_after == peeked.retry_after
                assert_honest(limiter, clock, cost, decision.retry_after)
            # At that time the whole limit is back, and not a millisecond earlier.
            reset = round(decision.reset_after * 1000)
            assert model.used(clock.now + reset) == 0
            assert reset == 0 or model.used(clock.now + reset - 1) > 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=150, deadline=None)
@given(
    limit=st.integers(1, 12),
    window=st.integers(1, 1000),
    steps=st.lists(
        st.tuples(
            st.one_of(st.integers(0, 30), st.integers(0, 1500)),
            st.integers(1, 5),
            # Which of the requests that have passed is given back, and how much too early its end
            # is told.
            st.one_of(st.none(), st.tuples(st.integers(0, 9), st.integers(0, 2))),
        ),
        max_size=40,
    ),
)
def test_refunds_are_the_models(algorithm: str, limit: int, window: int, steps):
    clock = Clock()
    model = MODELS[algorithm](limit, window)
    passed: list[tuple[int, int]] = []
    with limiter_at(clock, algorithm, limit, window) as limiter:
        for pause, cost, back in steps:
            clock.now += pause
            if back is not None and passed:
                which, early = back
                counted, until = passed.pop(which % len(passed))
                until -= min(early, window - 1)
                limiter.refund("key", counted, (until - clock.now) / 1000)
                model.refund(counted, until)
            else:
                decision = limiter.hit("key", cost)
                assert decision.allowed == model.hit(clock.now, cost)
                if decision.allowed:
                    passed.append((cost, clock.now + round(decision.reset_after * 1000)))
            assert limiter.remaining("key") == max(0, math.floor(limit - model.used(clock.now)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@given(
    window=st.integers(1, 300),
    cost=st.integers(1, 5),
    hits=st.lists(st.tuples(st.integers(0, 200), st.integers(1, 3)), max_size=12),
    late=st.integers(0, 700),
    later=st.integers(0, 700),
)
def test_no_more_is_given_back_than_still_counts(
    algorithm: str, window: int, cost: int, hits, late: int, later: int
):
    """Against the same requests without the one that is given back."""
    limit = 1000
    model, without = MODELS[algorithm](limit, window), MODELS[algorithm](limit, window)
    now = 1000
    # Both begin a window at once.
    assert model.hit(now, 1) and without.hit(now, 1)
    assert model.hit(now, cost)
    until = {
        "fixed-window": now + window,
        "sliding-window": now + 2 * window,
        "gcra": now + math.ceil(Fraction((cost + 1) * window, limit)),
    }[algorithm]
    for pause, other in hits:
        now += pause
        assert model.hit(now, other) and without.hit(now, other)
    model.refund(cost, until)
    # Of a bucket the end is told in whole milliseconds.
    rounding = Fraction(limit, window) if algorithm == "gcra" else 0
    for moment in (now, now + late, now + late + later):
        assert model.used(moment) + rounding >= without.used(moment)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_refund_at_once_leaves_nothing_behind(algorithm: str):
    with RateLimiter(7, "1h", algorithm=algorithm) as limiter:
        for _ in range(20):
            before = time.monotonic()
            decision = limiter.hit("key", 7)
            assert decision.allowed
            limiter.refund("key", 7, decision.reset_after - (time.monotonic() - before))
            # One request of 7 drains from a bucket in half a second per thousandth.
            assert limiter.remaining("key") >= (6 if algorithm == "gcra" else 7)
            limiter.reset("key")
        for left in (math.inf, -math.inf, math.nan, -5.0, 1e300):
            limiter.refund("key", 1, left)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@settings(max_examples=100, deadline=None)
@given(
    limit=st.integers(0, 2**32 - 1),
    window=st.integers(1, 2**62),
    steps=st.lists(st.tuples(st.integers(0, 2**50), st.integers(1, 2**32 - 1)), max_size=12),
)
# The sum of what is counted and the cost does not fit in 32 bits.
@example(limit=2**32 - 1, window=1, steps=[(0, 1), (0, 2**32 - 1)])
def test_extreme_numbers_follow_the_model_too(algorithm: str, limit: int, window: int, steps):
    clock = Clock()
    # The library cuts windows to 2^60 ms.
    model = MODELS[algorithm](limit, min(window, 2**60))
    # Beyond what a float holds exactly: the raw functions take whole milliseconds.
    handle = ffi.ratelimit.ratelimit_create(CODES[algorithm], limit, window, 64, 0)
    out = ffi.buffer(DECISION.size)
    try:
        for pause, cost in steps:
            clock.now += pause
            arguments = (handle, b"key", 3, cost, clock.now, out)
            assert ffi.ratelimit.ratelimit_hit_at(*arguments) == 0
            allowed, _, remaining, *_ = DECISION.unpack(out.raw)
            assert allowed == model.hit(clock.now, cost)
            assert remaining == max(0, math.floor(limit - model.used(clock.now)))
    finally:
        ffi.ratelimit.ratelimit_close(handle)


def test_a_fixed_window_ends_at_its_very_millisecond():
    clock = Clock()
    with limiter_at(clock, "fixed-window", 2, 1000) as limiter:
        assert limiter.check("key") and limiter.check("key")
        clock.now += 999
        refused = limiter.hit("key")
        assert not refused.allowed and refused.retry_after == 0.001
        clock.now += 1
        assert limiter.hit("key").remaining == 1


def test_a_sliding_window_forgets_evenly():
    clock = Clock()
    with limiter_at(clock, "sliding-window", 10, 1000) as limiter:
        assert all(limiter.check("key") for _ in range(10))
        clock.now += 1000
        assert not limiter.check("key")
        clock.now += 99
        assert not limiter.check("key")
        clock.now += 1
        assert limiter.check("key")
        assert not limiter.check("key")
        clock.now += 900
        assert limiter.remaining("key") == 9


def test_gcra_passes_a_burst_then_one_at_a_time():
    clock = Clock()
    with limiter_at(clock, "gcra", 3, 1000) as limiter:
        assert [limiter.check("key") for _ in range(4)] == [True, True, True, False]
        passes = []
        for _ in range(1000):
            clock.now += 1
            if limiter.check("key"):
                passes.append(clock.now - 1_000_000)
        # Thirds of a second, rounded up to the clock's millisecond but never adding up.
        assert passes == [334, 667, 1000]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clock_that_steps_back_grants_nothing(algorithm: str):
    clock = Clock()
    with limiter_at(clock, algorithm, 2, 1000) as limiter:
        assert limiter.check("key") and limiter.check("key")
        for _ in range(50):
            clock.now -= 100
            assert not limiter.check("key")
        clock.now = 1_000_000 + 2000
        assert limiter.check("key")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_limit_0_refuses_everything_and_stores_nothing(algorithm: str):
    with RateLimiter(0, 60, algorithm=algorithm) as limiter:
        decision = limiter.hit("key")
        assert not decision and decision.remaining == 0
        assert decision.retry_after == math.inf
        assert len(limiter) == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_refunded_did_not_happen(algorithm: str):
    clock = Clock()
    with limiter_at(clock, algorithm, 3, 1000) as limiter:
        assert limiter.check("key", 3)
        assert not limiter.check("key")
        limiter.refund("key", 2)
        assert limiter.remaining("key") == 2
        limiter.refund("key", 7)
        assert limiter.remaining("key") == 3
        limiter.refund("never seen")
        assert limiter.remaining("never seen") == 3
