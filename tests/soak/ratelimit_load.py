"""Limits of one process under floods of new keys, and of several processes that count together,
some of which are killed at any moment.

`python -m soak.ratelimit_load worker FILE RECORD NUMBER` is one of those processes. What it was
allowed is on record in memory that outlives it, in one store which a kill cannot tear.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from pyplue.ratelimit import RateLimiter
from soak.load import Load

TABLE_KEYS = 20_000
SLOT_S = 4
"""How long all processes count the same key: every slot, for each algorithm, is a new one."""
LIMIT = 200
WINDOW_S = 1.0
HOUR = 3600
WORKERS, LASTING = 4, 2
"""The first of the workers live as long as the soak."""
KILL_EVERY_S = 3.0

# A row of the record for each worker: the slot it is in, and what it was allowed there, before and
# after that. The three counts are of the three rules below.
ROW = 8
RULES = (
    ("fixed-window", HOUR),
    ("gcra", WINDOW_S),
    ("sliding-window", WINDOW_S),
)


def most(rule: int, seconds: float) -> int:
    """What may pass in so many seconds of one slot."""
    algorithm, window_s = RULES[rule]
    if window_s == HOUR:
        return LIMIT
    # A burst and what comes back meanwhile; the sliding window's estimate may be off by one burst.
    return int(LIMIT * (seconds / window_s + (1 if algorithm == "gcra" else 2))) + 1


def limiters(shared: Path | None) -> list[RateLimiter]:
    return [
        RateLimiter(LIMIT, window_s, algorithm=name, max_keys=TABLE_KEYS, shared=shared)
        for name, window_s in RULES
    ]


def cells(record: mmap.mmap, number: int) -> ctypes.Array[ctypes.c_uint64]:
    return (ctypes.c_uint64 * ROW).from_buffer(record, number * ROW * 8)


# ---- a process ------------------------------------------------------------------------------


def worker(shared: Path, record_path: Path, number: int) -> None:
    parent = os.getppid()
    with record_path.open("r+b") as file:
        record = mmap.mmap(file.fileno(), 0)
    row = cells(record, number)
    counting = limiters(shared)
    flood = RateLimiter(3, "50ms", algorithm="gcra", max_keys=TABLE_KEYS, shared=shared)
    while os.getppid() == parent:
        slot = int(time.time() / SLOT_S)
        key = f"slot{slot}"
        if row[0] != slot:
            row[0] = 0
            for rule in range(len(RULES)):
                row[1 + rule] = 0
            row[0] = slot
        for _ in range(30):
            for rule, limiter in enumerate(counting):
                row[1 + rule] += limiter.check(key)
        keys = [f"k{random.randrange(50_000)}" for _ in range(300)]
        flood.check_many(keys)
        row[6] += 30 * len(RULES) + len(keys)
        time.sleep(0.08)


# ---- all of them ----------------------------------------------------------------------------


class Workers:
    """The processes on one shared file."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.shared, self.record_path = load.folder / "limits", load.folder / "record"
        self.record_path.write_bytes(bytes(WORKERS * ROW * 8))
        self.record = mmap.mmap(os.open(self.record_path, os.O_RDWR), 0)
        self.observers = limiters(self.shared)
        self.rows = [cells(self.record, number) for number in range(WORKERS)]
        self.processes = [self.start(number) for number in range(WORKERS)]
        for number in range(LASTING):
            load.watch(f"ratelimit worker {number + 1}", self.processes[number].pid)
        self.next_kill = time.monotonic() + KILL_EVERY_S
        # What killed workers were allowed in a slot, and how many of them.
        self.lost: dict[int, list[int]] = {}
        self.kills: dict[int, int] = {}
        self.first_slot = self.checked = int(time.time() / SLOT_S)

    def start(self, number: int) -> subprocess.Popen[bytes]:
        words = ["worker", str(self.shared), str(self.record_path), str(number)]
        return subprocess.Popen([sys.executable, "-m", "soak.ratelimit_load", *words])

    def step(self) -> None:
        for number, process in enumerate(self.processes):
            self.load.check(process.poll() is None, f"worker {number} ended: {process.returncode}")
        if time.monotonic() > self.next_kill:
            self.kill(random.randrange(LASTING, WORKERS))
            self.next_kill = time.monotonic() + KILL_EVERY_S
        slot = int(time.time() / SLOT_S)
        if slot != self.checked:
            self.checked = slot
            for number in list(self.kills):
                if number < slot:
                    del self.kills[number], self.lost[number]
        self.compare(slot)
        held = len(self.observers[0])
        self.load.check(held <= TABLE_KEYS, f"{held} keys in a table for {TABLE_KEYS}")
        time.sleep(0.1)

    def kill(self, number: int) -> None:
        process = self.processes[number]
        process.kill()
        self.load.check(process.wait(10) == -9, f"worker {number} ended: {process.returncode}")
        row = self.rows[number]
        slot = int(row[0])
        lost = self.lost.setdefault(slot, [0] * len(RULES))
        for rule in range(len(RULES)):
            lost[rule] += row[1 + rule]
            row[1 + rule] = 0
        row[0] = 0
        self.kills[slot] = self.kills.get(slot, 0) + 1
        self.load.count(kills=1, checks=int(row[6]))
        row[6] = 0
        self.processes[number] = self.start(number)

    def compare(self, slot: int) -> None:
        """What all processes know to have been allowed, and what the table says."""
        begun = time.time()
        lost = self.lost.get(slot, [0] * len(RULES))
        for rule, (algorithm, _) in enumerate(RULES):
            passed = lost[rule] + sum(row[1 + rule] for row in self.rows if row[0] == slot)
            # The table keeps the time of another clock, and the last row was read a moment ago.
            allowed = most(rule, time.time() - slot * SLOT_S + 0.1)
            self.load.check(passed <= allowed, f"{algorithm}: {passed} passed, {allowed} may")
        # The fixed window is exact: each pass is counted before anybody hears of it.
        counted = LIMIT - self.observers[0].remaining(f"slot{slot}")
        known = lost[0] + sum(row[1] for row in self.rows if row[0] == slot)
        if int(begun / SLOT_S) == int(time.time() / SLOT_S) == slot:
            enough = known + self.kills.get(slot, 0) + WORKERS >= counted
            self.load.check(enough, f"{counted} counted, {known} passed")
            full = slot > self.first_slot + 1 and time.time() > (slot + 0.75) * SLOT_S
            self.load.check(not full or counted == LIMIT, f"only {counted} of {LIMIT} were counted")
            self.load.count(slots_compared=1)

    def end(self) -> None:
        for number, process in enumerate(self.processes):
            process.kill()
            self.load.check(process.wait(10) == -9, f"worker {number} ended: {process.returncode}")
            self.load.count(checks=int(self.rows[number][6]))


def flood(load: Load, lasting: list[RateLimiter]) -> None:
    """New keys, as an attacker has them, and one key whose limit must hold meanwhile."""
    for limiter in lasting:
        limiter.check_many([f"{random.randrange(10**9)}" for _ in range(1500)])
        key, begun = f"one{random.randrange(10**6)}", time.monotonic()
        passed = sum(limiter.check(key) for _ in range(40))
        if time.monotonic() - begun < 0.3:
            load.check(passed <= 6, f"{limiter}: {passed} of 5 passed")
        held = len(limiter)
        # With "overflow" one more entry stands for all keys without one.
        load.check(held <= TABLE_KEYS + 1, f"{limiter} holds {held} keys")
        load.check(limiter.memory < 200 * TABLE_KEYS, f"{limiter} takes {limiter.memory} bytes")
        load.count(checks=1540)


def come_and_go(load: Load) -> None:
    """Limiters made and closed: a table of its own each, and one that opens the shared file."""
    for _ in range(5):
        with RateLimiter(3, "1h", max_keys=1000) as limiter:
            limiter.check_many([f"{number}" for number in range(2000)])
            load.check(len(limiter) == 1000, f"{len(limiter)} keys of 1000")
            passed = sum(limiter.check("0") for _ in range(5))
            load.check(passed == 2, f"{passed} of the 2 that were left passed")
        for limiter in limiters(load.folder / "limits"):
            limiter.peek("none")
            limiter.close()
        load.count(limiters=1 + len(RULES), checks=2005)


def main() -> None:
    load = Load()
    lasting = [
        RateLimiter(5, "2s", algorithm=algorithm, max_keys=TABLE_KEYS, when_full=when_full)
        for algorithm in ("sliding-window", "gcra", "fixed-window")
        for when_full in ("deny", "overflow")
    ]
    workers = Workers(load)
    load.watch("ratelimit", os.getpid())
    try:
        load.run(
            (workers.step, 0.999),
            (lambda: flood(load, lasting), 0.03),
            (lambda: come_and_go(load), 0.02),
        )
    finally:
        workers.end()
    for limiter in lasting:
        limiter.close()
    load.done()


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        with contextlib.suppress(KeyboardInterrupt):
            worker(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    else:
        main()
