"""How fast rate limits are in Python, Zig and Bun, beside the alternatives, in one run.

    ./dev bench ratelimit

Every limiter is asked about one key that stays under its limit, which is what nearly all requests
of a service are.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from limits import RateLimitItemPerHour

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import ROOT, Comparison, Goal, bun, main, pytest_benchmark

ZIG = ROOT / "zig" / "ratelimit"

MANY = 1_000_000_000
HOUR_S = 3600
KEY = "192.0.2.7"
ITEM = RateLimitItemPerHour(MANY)
BATCH = 1000
LOOP, LOOPS = 500, 400
THREADS, THREAD_RUNS = 4, 8
CHECKS_PER_THREAD = 50_000

OURS = "pyplue RateLimiter.check"
FIXED = "limits, fixed window"
SLIDING = "limits, sliding window counter"
SHARED = "pyplue, shared file"
BATCHED = f"pyplue check_many, batch of {BATCH}"
ONE_THREAD = "pyplue, 1 thread"
SOME_THREADS = f"pyplue, {THREADS} threads"


class Alternative(NamedTuple):
    """One check that passes: `statement` with `object` called o, which timeit repeats."""

    name: str
    statement: str
    object: Any


def dict_and_lock() -> Callable[[str], bool]:
    """What one writes without a library: a fixed window in a dict, nothing ever removed."""
    windows: dict[str, tuple[float, int]] = {}
    lock = threading.Lock()

    def check(key: str) -> bool:
        now = time.monotonic()
        with lock:
            end, count = windows.get(key, (0.0, 0))
            if now >= end:
                end, count = now + HOUR_S, 0
            if count >= MANY:
                return False
            windows[key] = (end, count + 1)
            return True

    return check


def alternatives() -> list[Alternative]:
    """All limiters of the table, set up; pyplue first."""
    import pyrate_limiter
    import throttled
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

    from pyplue.ratelimit import RateLimiter
    from pyplue.ratelimit.storage import PlueStorage

    folder = tempfile.mkdtemp()
    private = RateLimiter(MANY, HOUR_S)
    gcra = RateLimiter(MANY, HOUR_S, algorithm="gcra")
    shared = RateLimiter(MANY, HOUR_S, shared=f"{folder}/limits", max_keys=100_000)
    fixed = FixedWindowRateLimiter(MemoryStorage())
    sliding = SlidingWindowCounterRateLimiter(MemoryStorage())
    fixed_on_plue = FixedWindowRateLimiter(PlueStorage())
    sliding_on_plue = SlidingWindowCounterRateLimiter(PlueStorage())
    pyrate = pyrate_limiter.Limiter(
        pyrate_limiter.Rate(MANY, pyrate_limiter.Duration.HOUR),  # type: ignore[arg-type]
    )
    quota = throttled.per_hour(MANY)
    window, bucket = (
        throttled.Throttled(using=using, quota=quota, store=throttled.MemoryStore())
        for using in ("fixed_window", "token_bucket")
    )
    check, hit = "o.check(KEY)", "o.hit(ITEM, KEY)"
    return [
        Alternative(OURS, check, private),
        Alternative("pyplue RateLimiter.check, GCRA", check, gcra),
        Alternative("pyplue RateLimiter.hit", "o.hit(KEY)", private),
        Alternative(SHARED, check, shared),
        Alternative("a dict and a lock", "o(KEY)", dict_and_lock()),
        Alternative(FIXED, hit, fixed),
        Alternative(f"{FIXED}, on plue://", hit, fixed_on_plue),
        Alternative(SLIDING, hit, sliding),
        Alternative(f"{SLIDING}, on plue://", hit, sliding_on_plue),
        Alternative("pyrate-limiter", "o.try_acquire(KEY, blocking=False)", pyrate),
        Alternative("throttled-py, fixed window", "o.limit(KEY)", window),
        Alternative("throttled-py, token bucket", "o.limit(KEY)", bucket),
    ]


ALTERNATIVES = alternatives()


@pytest.mark.parametrize("alternative", ALTERNATIVES, ids=lambda alternative: alternative.name)
def test_check(benchmark: Any, alternative: Alternative) -> None:
    names = {"o": alternative.object, "KEY": KEY, "ITEM": ITEM}
    loop = timeit.Timer(alternative.statement, globals=names)
    # Short loops, so that many of them are not interrupted.
    benchmark.pedantic(loop.timeit, (LOOP,), rounds=LOOPS, warmup_rounds=LOOPS // 10)
    answer = eval(alternative.statement, names)
    assert not answer.limited if hasattr(answer, "limited") else answer


def test_batch(benchmark: Any) -> None:
    from pyplue.ratelimit import RateLimiter

    limiter = RateLimiter(MANY, HOUR_S)
    keys = [KEY] * BATCH
    assert benchmark(limiter.check_many, keys) == [True] * BATCH


@pytest.mark.parametrize("threads", [1, THREADS])
def test_threads(benchmark: Any, threads: int) -> None:
    """All threads on one limiter; each round starts them anew and waits for the last."""
    from pyplue.ratelimit import RateLimiter

    limiter = RateLimiter(MANY, HOUR_S)

    def work() -> None:
        check = limiter.check
        for _ in range(CHECKS_PER_THREAD):
            check(KEY)

    def run() -> None:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    benchmark.pedantic(run, rounds=THREAD_RUNS, warmup_rounds=2)
    assert limiter.peek(KEY).remaining == MANY - (THREAD_RUNS + 2) * threads * CHECKS_PER_THREAD


CHECK, THREADED = "check a rate limit in Python", "a check in Python, on several threads"
STORAGE = "limits on plue:// and on its own memory"
ZIG_HOT, ZIG_UNIFORM = "checks of a hot key in Zig", "checks of 1M uniform keys in Zig"
ZIG_BYTES, ZIG_PAUSE = "memory per key, 1M keys", "longest insert while growing to 1M keys"
VICTIM = "a refused client's check in a flood of 10M keys"
BUN_HOT, BUN_MANY = "check in Bun, hot key", "check in Bun, 1,000,000 keys"
MAP = "TypeScript Map"

GOALS = [
    Goal(CHECK, at_least=10, than=(FIXED,)),
    Goal(CHECK, at_least=18, than=(SLIDING,)),
    Goal(CHECK, at_least=200, than=(FIXED,), name=BATCHED),
    Goal(CHECK, at_most=1.5, than=(SHARED,)),
    Goal(THREADED, at_least=0.85, than=(ONE_THREAD,)),
    Goal(BUN_HOT, at_least=1, than=(MAP,)),
    Goal(BUN_MANY, at_least=1.5, than=(MAP,)),
    Goal(ZIG_HOT, at_least=30e6),
    Goal(ZIG_UNIFORM, at_least=3e6),
    Goal(ZIG_BYTES, at_most=64),
    Goal(ZIG_PAUSE, at_most=2e-3),
    Goal(VICTIM, at_most=10e-6, name="99.9th percentile"),
]


def python(rounds: int) -> list[Comparison]:
    """One key, all checks pass."""
    found = pytest_benchmark(__file__, rounds, 0.3)

    def each(test: str, checks: int) -> list[float]:
        return [seconds / checks for seconds in found[test]]

    singles = {one.name: each(f"test_check[{one.name}]", LOOP) for one in ALTERNATIVES}
    storage = {name: times for name, times in singles.items() if "plue://" in name}
    checks = {OURS: singles[OURS], BATCHED: each("test_batch", BATCH)}
    checks |= {name: times for name, times in singles.items() if name not in storage}
    own = {name: singles[name] for name in (FIXED, SLIDING)}
    threads = {
        SOME_THREADS: each(f"test_threads[{THREADS}]", THREADS * CHECKS_PER_THREAD),
        ONE_THREAD: each("test_threads[1]", CHECKS_PER_THREAD),
    }
    return [
        Comparison(CHECK, "s", "lower", checks, ours=5, summary=True),
        Comparison(STORAGE, "s", "lower", storage | own, ours=2),
        Comparison(THREADED, "s", "lower", threads, ours=2),
    ]


# How `plue-ratelimit bench` names what it measures: comparison, row, unit, better, scale.
ZIG_LINES = {
    r"hot key, 1 thread, sliding_window": (ZIG_HOT, "sliding window", "/s", "higher", 1e6),
    r"hot key, 1 thread, gcra": (ZIG_HOT, "GCRA", "/s", "higher", 1e6),
    r"hot key, 1 thread, fixed_window": (ZIG_HOT, "fixed window", "/s", "higher", 1e6),
    r"hot key, 2 threads": (ZIG_HOT, "sliding window, 2 threads", "/s", "higher", 1e6),
    r"1M uniform keys, 1 thread": (ZIG_UNIFORM, "sliding window", "/s", "higher", 1e6),
    r"bytes per key at \d+ keys": (ZIG_BYTES, "plue_ratelimit", "B", "lower", 1),
    r"this table": (ZIG_PAUSE, "plue_ratelimit", "s", "lower", 1e-3),
    r"std\.StringHashMap": (ZIG_PAUSE, "std.StringHashMap", "s", "lower", 1e-3),
    r"median": (VICTIM, "median", "s", "lower", 1e-6),
    r"p99\.9": (VICTIM, "99.9th percentile", "s", "lower", 1e-6),
}


def zig(rounds: int) -> list[Comparison]:
    """The library's own core as it is shipped. What follows a label is its figure."""
    build = [sys.executable, "-m", "ziglang", "build", "-Doptimize=ReleaseSafe"]
    subprocess.run(build, cwd=ZIG, check=True)
    program = [str(ZIG / "zig-out" / "bin" / "plue-ratelimit"), "bench"]
    found: dict[str, Comparison] = {}
    for _ in range(rounds):
        text = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True).stdout
        for label, (what, name, unit, better, scale) in ZIG_LINES.items():
            value = float(re.search(rf"{label} +([\d.]+)", text)[1]) * scale
            comparison = found.setdefault(what, Comparison(what, unit, better, {}))
            comparison.samples.setdefault(name, []).append(value)
    return [
        replace(one, ours=len(one.samples) - ("std.StringHashMap" in one.samples))
        for one in found.values()
    ]


def javascript(rounds: int) -> list[Comparison]:
    """Beside the Map with a fixed window that plue_ratelimit replaces."""
    samples: dict[str, dict[str, list[float]]] = {}
    for result in bun("bench_ratelimit.ts", rounds):
        for keys, times in result.items():
            rows = samples.setdefault(f"check in Bun, {keys}", {})
            for name in sorted(times, key=lambda name: name == MAP):
                rows.setdefault(name, []).append(times[name] / 1e9)
    return [
        Comparison(what, "s", "lower", rows, ours=len(rows) - 1, summary=True)
        for what, rows in samples.items()
    ]


def measure(quick: bool) -> list[Comparison]:
    rounds = 2 if quick else 7
    return [*python(rounds), *javascript(rounds), *zig(2 if quick else 5)]


if __name__ == "__main__":
    main(measure, GOALS)
