"""What a benchmark measures, the goals it is held to, and the command line that all of them have.

bench_NAME.py has `measure(quick)`, which gives Comparisons, and GOALS. A comparison keeps a figure
of everybody in it for each round, and all have their turns in a round, so that a slow minute of the
machine meets everybody. Of calls that take microseconds a round's figure is the best of many short
loops, since whatever else the machine does only ever adds; between rounds the median counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent

# Comparisons keep seconds and bytes; people read them in these.
UNITS = {
    "s": ((1, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((1e6, "MB"), (1e3, "KB"), (1, "B")),
    "B/s": ((1e6, "MB/s"), (1, "B/s")),
    "/s": ((1e6, "M/s"), (1, "/s")),
    "%": ((1, "%"),),
}


@dataclass(frozen=True)
class Comparison:
    """One figure of everybody: the samples by name, first the `ours` rows that are pyplue's.

    Ratios are to the very first. `better` is "lower" or "higher"; `summary` puts it in the README.
    """

    what: str
    unit: str
    better: str
    samples: dict[str, list[float]]
    ours: int = 1
    summary: bool = False

    def median(self, name: str) -> float:
        return statistics.median(self.samples[name])

    def best(self, name: str) -> float:
        return (min if self.better == "lower" else max)(self.samples[name])

    def names(self) -> list[str]:
        """pyplue's rows as they come, then the others, the best first."""
        names = list(self.samples)
        others = sorted(names[self.ours :], key=self.median, reverse=self.better == "higher")
        return names[: self.ours] + others

    def times(self, value: float, other: float) -> float:
        """How many times better a value is than another."""
        better, worse = (value, other) if self.better == "higher" else (other, value)
        return better / worse if worse > 0 else math.inf


@dataclass(frozen=True)
class Goal:
    """A bound on a figure of one comparison: the figure of `name`, or of the first where empty;
    with `than`, how many times better that is than the best of these; with `over`, how much more
    than this one's."""

    what: str
    at_least: float | None = None
    at_most: float | None = None
    than: tuple[str, ...] = ()
    over: str = ""
    name: str = ""

    def figure(self, comparison: Comparison, *, best: bool = False) -> float | None:
        """From the medians or the best rounds; None where somebody was not measured."""
        of = comparison.best if best else comparison.median
        name = self.name or next(iter(comparison.samples), "")
        if not {name, *self.than, *filter(None, [self.over])} <= comparison.samples.keys():
            return None
        if self.than:
            return min(comparison.times(of(name), of(other)) for other in self.than)
        return of(name) - (of(self.over) if self.over else 0)

    def wanted(self, unit: str) -> str:
        """The goal in words: "at least 12 x PyJWT"."""
        bound = self.at_most if self.at_least is None else self.at_least
        text = "at most " if self.at_least is None else "at least "
        text += f"{bound:g} x" if self.than else shown(bound, unit, "{:,g}".format)
        if self.than:
            text += " the best of " if len(self.than) > 1 else " "
            text += ", ".join(self.than)
        if self.over:
            text += f" over {self.over}"
        return f"{self.name}: {text}" if self.name else text

    def judge(self, comparisons: list[Comparison]) -> Judged:
        comparison = next(one for one in comparisons if one.what == self.what)

        def text(figure: float | None) -> str:
            if figure is None:
                return "-"
            if self.than:
                return f"{significant(figure)} x"
            sign = "+" if self.over and figure >= 0 else ""
            return sign + shown(figure, comparison.unit)

        figure, best = (self.figure(comparison, best=best) for best in (False, True))
        low = -math.inf if self.at_least is None else self.at_least
        high = math.inf if self.at_most is None else self.at_most
        verdict = "NOT MEASURED"
        if figure is not None:
            verdict = "met" if low <= figure <= high else "MISSED"
        return Judged(self.what, self.wanted(comparison.unit), text(figure), text(best), verdict)


class Judged(NamedTuple):
    """A goal beside what was measured, in words."""

    what: str
    wanted: str
    figure: str
    best: str
    verdict: str


def significant(value: float) -> str:
    """Three digits that count, and no exponent."""
    rounded = float(f"{value:.3g}")
    decimals = 2 - math.floor(math.log10(abs(rounded))) if rounded else 0
    return f"{rounded:,.{min(max(decimals, 0), 3)}f}"


def shown(value: float, unit: str, digits: Callable[[float], str] = significant) -> str:
    scales = UNITS[unit]
    scale, name = next((s for s in scales if abs(value) >= s[0]), scales[-1])
    return digits(value / scale) + ("" if name in ("%", "/s") else " ") + name


# ---- measuring ----------------------------------------------------------------------------------


def missing(what: str) -> None:
    """Somebody to compare with is not here: said on a user's machine, an error in CI."""
    message = f"not measured: {what}; `./dev bench` installs what it can"
    if os.environ.get("CI") == "true":
        sys.exit(message)
    print(message, file=sys.stderr)


def pytest_benchmark(file: str, rounds: int, max_time_s: float) -> dict[str, list[float]]:
    """The best time of each test in each round, in seconds. A round is a process of its own, as a
    process may be slow for all its life by where its memory happens to lie."""
    times: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        for _ in range(rounds):
            subprocess.run(
                [
                    *(sys.executable, "-m", "pytest", "-q", "-q", "--no-header"),
                    *("-p", "no:cacheprovider", f"--benchmark-json={report}", "--benchmark-quiet"),
                    *("--benchmark-disable-gc", "--benchmark-warmup=on"),
                    *(f"--benchmark-max-time={max_time_s}", "--benchmark-columns=min", file),
                ],
                cwd=ROOT,
                check=True,
                stdout=subprocess.DEVNULL,
            )
            for result in json.loads(report.read_text())["benchmarks"]:
                times.setdefault(result["name"], []).append(result["stats"]["min"])
    return times


def bun(file: str, rounds: int) -> list[object]:
    """What the program in bun/ measures, once for each round."""
    command = ["bun", "run", file, "--json"]
    return [
        json.loads(
            subprocess.run(command, cwd=ROOT / "bun", check=True, capture_output=True).stdout
        )
        for _ in range(rounds)
    ]


# ---- the command line ---------------------------------------------------------------------------


def print_table(comparison: Comparison) -> None:
    names = comparison.names()
    width = max(map(len, names)) + 2
    print(f"\n{comparison.what} ({comparison.better} is better)")
    for name in names:
        median, samples = comparison.median(name), comparison.samples[name]
        ratio = comparison.times(comparison.median(names[0]), median)
        spread = " - ".join(shown(value, comparison.unit) for value in (min(samples), max(samples)))
        print(
            f"  {name:{width}}{shown(median, comparison.unit):>11}"
            f"{significant(ratio):>9} x   {spread}, {len(samples)} rounds"
        )


def print_goals(goals: list[Goal], comparisons: list[Comparison]) -> None:
    print("\nGoals")
    for one in (goal.judge(comparisons) for goal in goals):
        print(f"  {one.verdict:8} {one.what}: {one.figure} (goal: {one.wanted})", flush=True)


def main(measure: Callable[[bool], list[Comparison]], goals: list[Goal]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few short rounds: rough figures")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures in FILE")
    options = parser.parse_args()
    comparisons = measure(options.quick)
    for comparison in filter(lambda one: one.samples, comparisons):
        print_table(comparison)
    print_goals(goals, comparisons)
    if options.json:
        figures = {"comparisons": [*map(vars, comparisons)], "goals": [*map(vars, goals)]}
        options.json.write_text(json.dumps(figures))
