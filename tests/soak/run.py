"""All four modules under load at the same time, for minutes or hours, watching what they hold.

    ./dev soak            30 minutes
    ./dev soak 0.5        half a minute
    PYTHON=/path/to/bin/python ./dev soak    with the pyplue of another environment, which needs
                                             pyplue[jwt,ssh,vt], such as one with the wheel

Each module has a load (jwt_load.py and so on), which is a program of its own and checks all that it
does. Every few seconds each process under load is looked at: memory, descriptors, threads,
children. At the end judge.py says of each figure whether it still rises. The status is 1 when one
does, when a check has failed, or when a process has died; Ctrl-C ends it early, with the report of
the time so far. Linux only: it reads /proc. About half a processor is busy.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    # The loads' package and the tests that it borrows from; not the tree, whose pyplue might not
    # be the one that is asked for.
    sys.path[0] = str(HERE.parent)

from soak.judge import TOLERANCES, Trend, trend  # noqa: E402
from soak.samples import Sample, look  # noqa: E402

MODULES = ("jwt", "ratelimit", "ssh", "vt")
FIGURES = tuple(Sample.__dataclass_fields__)
START_S, END_S = 120.0, 300.0
"""What a load may take to be ready, and to check everything at its end."""


class LoadProcess:
    """A load's process, and what it has told."""

    def __init__(self, module: str, python: str, folder: Path, out: Path, leak: bool) -> None:
        self.module = module
        self.watched: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.failures: list[str] = []
        self.done = False
        self.ready = threading.Event()
        folder.mkdir()
        words = [python, "-m", f"soak.{module}_load", str(folder), *(["--leak"] if leak else [])]
        self.log = out / f"{module}.log"
        with self.log.open("w") as log:
            # In a session of its own: Ctrl-C is for us, who end it in order.
            self.process = subprocess.Popen(
                words,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(HERE.parent)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            message = json.loads(line)
            if "watch" in message:
                self.watched[message["watch"]] = message["pid"]
            elif "counts" in message:
                self.counts = message["counts"]
                self.ready.set()
            elif "failed" in message:
                self.fail(message["failed"])
            else:
                self.done = True
        self.ready.set()

    def fail(self, what: str) -> None:
        self.failures.append(what)
        print(f"soak: {self.module}: {what}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """It ends in order, whether somebody waits for it or not."""
        self.process.stdin.close()

    def end(self) -> None:
        """Waits until it has checked everything."""
        try:
            status = self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            return self.fail(f"the load did not end within {END_S:g} s, see {self.log}")
        self._reader.join(10)
        if status != 0 or not self.done:
            self.fail(f"the load ended with {status}, see {self.log}")
        return None


class Soak:
    """The loads, and what was seen of their processes."""

    def __init__(self, options: argparse.Namespace, out: Path) -> None:
        self.options, self.out = options, out
        self.loads: list[LoadProcess] = []
        self.times: dict[str, list[float]] = defaultdict(list)
        self.samples: dict[str, list[Sample]] = defaultdict(list)
        self.dead: set[str] = set()
        self.seconds = 0.0

    def run(self, work: Path) -> None:
        for module in self.options.only or MODULES:
            self.loads.append(
                LoadProcess(module, self.options.python, work / module, self.out, self.options.leak)
            )
        for load in self.loads:
            if not load.ready.wait(START_S):
                load.fail(f"the load was not ready within {START_S:g} s, see {load.log}")
        self._watch()
        for load in self.loads:
            load.stop()
        for load in self.loads:
            load.end()

    def _watch(self) -> None:
        total = self.options.minutes * 60
        interval = min(5.0, total / 60)
        begun = time.monotonic()
        next_look, next_line = 0.0, 60.0
        with (self.out / "samples.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["seconds", "process", "pid", *FIGURES])
            while (now := time.monotonic() - begun) < total:
                if now >= next_line:
                    next_line += 60
                    print(self.line(now), flush=True)
                if now >= next_look:
                    next_look = now + interval
                    self._look(now, table)
                    file.flush()
                if interruptions:
                    break
                wait = min(next_look, next_line, total) - (time.monotonic() - begun)
                time.sleep(min(0.2, max(0.0, wait)))
        self.seconds = time.monotonic() - begun
        print(self.line(self.seconds), flush=True)

    def _look(self, now: float, table: Any) -> None:
        for load in self.loads:
            if load.process.poll() is not None and load.module not in self.dead:
                self.dead.add(load.module)
                load.fail(f"the load has died after {now:.0f} s, see {load.log}")
            for name, pid in load.watched.items():
                if name in self.dead:
                    continue
                sample = look(pid)
                if sample is None:
                    self.dead.add(name)
                    load.fail(f"{name} (process {pid}) has died after {now:.0f} s")
                    continue
                self.times[name].append(now)
                self.samples[name].append(sample)
                table.writerow([f"{now:.2f}", name, pid, *sample.figures().values()])

    # ---- what is told ----

    def line(self, now: float) -> str:
        counts = [f"{load.module} {sum(load.counts.values()):,}" for load in self.loads]
        held = [
            f"{name} {seen[-1].anonymous_kb / 1024:.1f} MB {seen[-1].descriptors} fd"
            for name, seen in self.samples.items()
        ]
        minutes, seconds = divmod(round(now), 60)
        return f"{minutes:3}:{seconds:02}  {', '.join(counts)}  |  {', '.join(held)}"

    def trends(self) -> dict[str, dict[str, Trend]]:
        found: dict[str, dict[str, Trend]] = {}
        for name, seen in self.samples.items():
            for figure, tolerance in TOLERANCES.items():
                values = [getattr(sample, figure) for sample in seen]
                one = trend(self.times[name], values, tolerance)
                if one is not None:
                    found.setdefault(name, {})[figure] = one
        return found

    def findings(self, trends: dict[str, dict[str, Trend]]) -> list[str]:
        found = [f"{load.module}: {what}" for load in self.loads for what in load.failures]
        for load in self.loads:
            if not load.counts:
                found.append(f"{load.module}: no work was done")
        for name, figures in trends.items():
            for figure, one in figures.items():
                if one.rises:
                    found.append(
                        f"{name}: {figure} rose by {one.rise:,.0f} in the second half, from "
                        f"{one.start:,.0f} to {one.end:,.0f}; {one.allowed:,.0f} is allowed"
                    )
        return found

    def table(self, trends: dict[str, dict[str, Trend]]) -> Iterator[list[str]]:
        """What each process held at first, in the middle, at last and at most; and how much memory
        it takes in an hour, where the soak was long enough to say."""
        moments = ("first", "middle", "last", "most")
        yield ["", "MB", "allocated", "", "", "KB an", "resident", "descrip-", "tors", "", ""]
        yield ["", *moments, "hour", "last", *moments]
        for name, seen in self.samples.items():
            looks = (seen[0], seen[len(seen) // 2], seen[-1])
            memory = [sample.anonymous_kb for sample in looks]
            memory.append(max(sample.anonymous_kb for sample in seen))
            one = trends.get(name, {}).get("anonymous_kb")
            hourly = f"{one.rise * 7200 / self.seconds:,.0f}" if one and self.seconds > 500 else "-"
            descriptors = [sample.descriptors for sample in looks]
            descriptors.append(max(sample.descriptors for sample in seen))
            allocated = (f"{kb / 1024:.1f}" for kb in memory)
            resident = f"{seen[-1].rss_kb / 1024:.1f}"
            yield [name, *allocated, hourly, resident, *map(str, descriptors)]

    def report(self) -> list[str]:
        """Writes and prints it; the findings."""
        trends = self.trends()
        findings = self.findings(trends)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        version = subprocess.run(
            [self.options.python, "-m", "pyplue"], cwd=self.out, capture_output=True, text=True
        ).stdout.splitlines()
        report = {
            "seconds": round(self.seconds, 1),
            "interrupted": bool(interruptions),
            "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
            "pyplue": version,
            "operations": {load.module: load.counts for load in self.loads},
            "processes": {
                name: {
                    "first": seen[0].figures(),
                    "last": seen[-1].figures(),
                    "most": {f: max(getattr(sample, f) for sample in seen) for f in FIGURES},
                    "second_half": {f: asdict(t) for f, t in trends.get(name, {}).items()},
                }
                for name, seen in self.samples.items()
            },
            "findings": findings,
        }
        (self.out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
        for load in self.loads:
            counts = ", ".join(f"{name} {count:,}" for name, count in load.counts.items())
            print(f"{load.module}: {counts}")
        for row in self.table(trends):
            print("".join(f"{word:>10}" for word in row[1:]) + f"  {row[0]}")
        for finding in findings:
            print(f"FINDING {finding}")
        how = "ended early" if interruptions else "ended"
        verdict = f"{len(findings)} findings" if findings else "nothing rises, nothing failed"
        if not trends and not findings:
            verdict = "nothing failed; too short to say whether anything rises"
        print(f"soak {how} after {self.seconds / 60:.1f} minutes: {verdict}. Figures: {self.out}")
        return findings


interruptions: list[int] = []


def interrupt(number: int, _: object) -> None:
    """The first time ends the soak in order, the second time at once."""
    if interruptions:
        raise KeyboardInterrupt
    interruptions.append(number)


@contextmanager
def working_folder() -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix="soak."))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def build_load_client(folder: Path) -> None:
    """For the SSH load, which goes without it where there is no compiler or no libssh."""
    source = HERE.parent / "ssh" / "load_client.c"
    words = ["-O2", "-o", str(folder / "load_client"), str(source), "-lssh", "-lpthread"]
    built = subprocess.run([sys.executable, "-m", "ziglang", "cc", *words], capture_output=True)
    if built.returncode != 0:
        print("soak: no load_client (ziglang and libssh-dev build it)", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev soak", description=__doc__.split("\n\n")[0])
    parser.add_argument("minutes", nargs="?", type=float, default=30.0)
    parser.add_argument("--python", default=sys.executable, help="whose pyplue to put under load")
    parser.add_argument("--only", action="append", choices=MODULES, help="one module, or several")
    parser.add_argument("--out", type=Path, help="where the figures go (build/soak/TIME)")
    parser.add_argument("--leak", action="store_true", help="let the jwt load leak: a test of this")
    options = parser.parse_args()
    if sys.platform != "linux":
        parser.error("it reads /proc: Linux only")
    if not options.minutes > 0:
        parser.error("minutes are a number above 0")
    options.python = os.path.abspath(options.python)
    out = options.out or HERE.parent.parent / "build" / "soak" / time.strftime("%Y-%m-%d_%H%M%S")
    out = out.absolute()
    out.mkdir(parents=True)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    soak = Soak(options, out)
    with working_folder() as work:
        os.environ["TMPDIR"] = str(work)
        if "ssh" in (options.only or MODULES):
            build_load_client(work)
        try:
            soak.run(work)
        finally:
            for load in soak.loads:
                load.stop()
    return 1 if soak.report() else 0


if __name__ == "__main__":
    sys.exit(main())
