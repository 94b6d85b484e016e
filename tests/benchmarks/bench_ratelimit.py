"""How fast rate limits are in Python, Zig and Bun, beside the alternatives, in one run.

    ./dev bench ratelimit

Every limiter is asked about one key that stays under its limit, which is what nearly all requests
of a service are. The figures are the best of many rounds, so that what else the machine does
counts little.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import timeit
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from limits import RateLimitItemPerHour

ROOT = Path(__file__).resolve().parent.parent.parent
ZIG = ROOT / "zig" / "ratelimit"
BUN_BENCH = ROOT / "bun" / "bench_ratelimit.ts"

MANY = 1_000_000_000
HOUR_S = 3600
KEY = "192.0.2.7"
ITEM = RateLimitItemPerHour(MANY)
BATCH = 1000
LOOP, ROUNDS = 500, 1500
THREADS = 4
CHECKS_PER_THREAD = 50_000

OURS = "pyplue RateLimiter.check"
FIXED = "limits, fixed window"
SLIDING = "limits, sliding window counter"
SHARED = "pyplue, shared file"
BATCHED = f"pyplue check_many, batch of {BATCH}"
ONE_THREAD = "1 thread"
SOME_THREADS = f"{THREADS} threads"


class Alternative(NamedTuple):
    """One check that passes: `statement` with `object` called o, which timeit repeats.

    `package` gives the version, None for plain Python.
    """

    name: str
    package: str | None
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
        Alternative(OURS, "pyplue", check, private),
        Alternative("pyplue RateLimiter.check, GCRA", "pyplue", check, gcra),
        Alternative(SHARED, "pyplue", check, shared),
        Alternative("pyplue RateLimiter.hit", "pyplue", "o.hit(KEY)", private),
        Alternative("a dict and a lock", None, "o(KEY)", dict_and_lock()),
        Alternative(FIXED, "limits", hit, fixed),
        Alternative(f"{FIXED}, on plue://", "limits", hit, fixed_on_plue),
        Alternative(SLIDING, "limits", hit, sliding),
        Alternative(f"{SLIDING}, on plue://", "limits", hit, sliding_on_plue),
        Alternative(
            "pyrate-limiter", "pyrate-limiter", "o.try_acquire(KEY, blocking=False)", pyrate
        ),
        Alternative("throttled-py, fixed window", "throttled-py", "o.limit(KEY)", window),
        Alternative("throttled-py, token bucket", "throttled-py", "o.limit(KEY)", bucket),
    ]


ALTERNATIVES = alternatives()


@pytest.mark.parametrize("alternative", ALTERNATIVES, ids=lambda alternative: alternative.name)
def test_check(benchmark: Any, alternative: Alternative) -> None:
    names = {"o": alternative.object, "KEY": KEY, "ITEM": ITEM}
    loop = timeit.Timer(alternative.statement, globals=names)
    # Short rounds, so that many of them are not interrupted.
    benchmark.pedantic(loop.timeit, (LOOP,), rounds=ROUNDS, warmup_rounds=ROUNDS // 10)
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

    benchmark.pedantic(run, rounds=20, warmup_rounds=2)
    assert limiter.peek(KEY).remaining == MANY - 22 * threads * CHECKS_PER_THREAD


def measure() -> dict[str, float]:
    """The best time of each row, in nanoseconds per check."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"),
                *(f"--benchmark-json={report}", "--benchmark-disable-gc", "--benchmark-warmup=on"),
                *("--benchmark-columns=min,median,rounds", "--benchmark-sort=min"),
                __file__,
            ],
            cwd=ROOT,
            check=True,
        )
        found = {
            result["name"]: result["stats"]["min"] * 1e9
            for result in json.loads(report.read_text())["benchmarks"]
        }
    times = {one.name: found[f"test_check[{one.name}]"] / LOOP for one in ALTERNATIVES}
    times[BATCHED] = found["test_batch"] / BATCH
    for threads, name in ((1, ONE_THREAD), (THREADS, SOME_THREADS)):
        times[name] = found[f"test_threads[{threads}]"] / (threads * CHECKS_PER_THREAD)
    return times


def print_table(times: dict[str, float]) -> None:
    packages = {one.name: one.package for one in ALTERNATIVES}
    print(f"\n{'':42}{'a check':>10}   pyplue's single check, and its batch, are faster by")
    for name, nanoseconds in times.items():
        if name in (ONE_THREAD, SOME_THREADS):
            continue
        package = packages.get(name, "pyplue")
        label = f"{name} ({version(package)})" if package else name
        print(
            f"{label:42}{nanoseconds:7.0f} ns"
            f"   {nanoseconds / times[OURS]:6.2f} x {nanoseconds / times[BATCHED]:8.1f} x"
        )
    ratios = {
        f"{THREADS} threads have of one thread's throughput": times[ONE_THREAD]
        / times[SOME_THREADS],
        "a check in a shared file takes of a private one": times[SHARED] / times[OURS],
    }
    print()
    for name, ratio in ratios.items():
        print(f"{name:60}{ratio:6.2f}")


def main() -> None:
    print(f"== Python {sys.version.split()[0]}, one key, all checks pass", flush=True)
    print_table(measure())
    print("\n== Zig, the library's own core as it is shipped", flush=True)
    zig = [sys.executable, "-m", "ziglang", "build", "-Doptimize=ReleaseSafe"]
    subprocess.run(zig, cwd=ZIG, check=True)
    subprocess.run([ZIG / "zig-out" / "bin" / "plue-ratelimit", "bench"], check=True)
    if BUN_BENCH.exists():
        print("\n== Bun", flush=True)
        subprocess.run(["bun", "run", BUN_BENCH.name], cwd=BUN_BENCH.parent, check=True)


if __name__ == "__main__":
    main()
