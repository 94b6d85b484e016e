"""What the loads share: rounds of work in threads until the soak says stop, counted and checked.

A load is a program of its own, `python -m soak.jwt_load FOLDER`, so that it can run on whatever
Python has pyplue. It tells the soak what happens with a JSON line each on its standard output, and
ends when its standard input does, also when whoever started it was killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_FAILURES = 20


class Load:
    """One load's connection to the soak."""

    def __init__(self) -> None:
        self.folder = Path(sys.argv[1])
        self.leaking = "--leak" in sys.argv
        self.stopping = threading.Event()
        self.failures = 0
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        # What this process starts gets neither of the two, nor what is printed by mistake.
        self._commands, self._answers = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        os.close(nothing)
        threading.Thread(target=self._wait_for_the_end, daemon=True).start()

    def _wait_for_the_end(self) -> None:
        while os.read(self._commands, 1024):
            pass
        self.stopping.set()

    def _tell(self, **message: Any) -> None:
        with self._lock:
            try:
                os.write(self._answers, json.dumps(message).encode() + b"\n")
            except BrokenPipeError:
                self.stopping.set()

    def watch(self, name: str, pid: int) -> None:
        """From now to the end this process is sampled, and must live."""
        self._tell(watch=name, pid=pid)

    def count(self, **operations: int) -> None:
        """Adds to what the report shows."""
        with self._lock:
            self._counts.update(operations)

    def fail(self, what: str) -> None:
        """A check failed. The load goes on: what else it finds is worth knowing."""
        self.failures += 1
        if self.failures <= MOST_FAILURES:
            self._tell(failed=what)

    def check(self, holds: object, what: str) -> bool:
        if not holds:
            self.fail(what)
        return bool(holds)

    def attempt(self, work: Callable[[], object]) -> None:
        """Runs `work`; what it raises is a failure."""
        try:
            work()
        except Exception:
            self.fail(traceback.format_exc(limit=-6))

    def run(self, *rounds: tuple[Callable[[], object], float]) -> None:
        """Each function again and again in a thread of its own until the soak stops, for that share
        of the time."""

        def repeat(work: Callable[[], object], share: float) -> None:
            while not self.stopping.is_set():
                begun = time.monotonic()
                self.attempt(work)
                took = time.monotonic() - begun
                self.stopping.wait(max(0.001, took * (1 / share - 1)))

        threads = [threading.Thread(target=repeat, args=one) for one in rounds]
        for thread in threads:
            thread.start()
        while not self.stopping.wait(1):
            self._tell(counts=self._counts)
        for thread in threads:
            thread.join()

    def done(self) -> None:
        """All is checked, and this load holds nothing any more."""
        self._tell(counts=self._counts)
        self._tell(done=True)
