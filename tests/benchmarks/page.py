"""The page of docs/benchmarks, its charts and the README's summary, all from results.json.

python tests/benchmarks/page.py     writes them again, measuring nothing
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from report import ROOT, Comparison, Goal, Judged, shown, significant

FOLDER = ROOT / "docs" / "benchmarks"
RESULTS = FOLDER / "results.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- benchmarks: begin -->\n", "<!-- benchmarks: end -->\n"

TITLES = {
    "jwt": "plue_jwt: tokens",
    "ratelimit": "plue_ratelimit: rate limits",
    "ssh": "plue_ssh: Git over SSH",
    "ssh_far": "plue_ssh: far clients",
    "ssh_store": "plue_ssh: users and keys in a database",
    "vt": "vt-fwd: terminals",
}

HOW_TO_READ = """\
Everybody in a comparison runs in one run on one machine, in turns, round by round, so that a slow
moment of the machine meets all of them. A bar is the median of the rounds, the thin line across its
end goes from the least to the greatest, and a line that leaves the chart ends at its edge; the
tables have the numbers. Where a call takes microseconds, a round is a new process and its figure
the best of many short loops. pyplue's bars are the blue ones.

`12 x` is twelve times as good: a twelfth of the time or the memory, or twelve times the rate. Below
1 the other one is ahead. Times differ between machines, ratios much less. A goal was set before
the module was written; it is judged by the medians, and the figure of the best rounds stands
beside it. One goal was equality, connections with 10,000 users and with ten: as two measurements of
the same are never equal, 0.95 x counts as met. The goal for connections beside the best other
server is 1.2 x on libssh 0.12 and later, and 1 x before.
"""


@dataclass(frozen=True)
class Module:
    name: str
    date: str
    seconds: float
    load: float
    comparisons: list[Comparison]
    goals: list[Goal]

    def judged(self) -> list[Judged]:
        return [goal.judge(self.comparisons) for goal in self.goals]


def modules(results: dict[str, Any]) -> list[Module]:
    return [
        Module(
            name,
            one["date"],
            one["seconds"],
            one["load"],
            [Comparison(**comparison) for comparison in one["comparisons"]],
            [Goal(**{**goal, "than": tuple(goal["than"])}) for goal in one["goals"]],
        )
        for name, one in results["modules"].items()
    ]


def render(results: dict[str, Any], readme: str) -> dict[Path, str]:
    """All files, by path. Rough figures of a quick run do not go into the README."""
    files = {FOLDER / "index.md": page(results)}
    for module in modules(results):
        for comparison in module.comparisons:
            if len(comparison.samples) > 1:
                files[FOLDER / chart_name(module, comparison)] = chart(comparison)
    if not results["quick"]:
        before, rest = readme.split(BEGIN)
        files[README] = before + BEGIN + summary(results) + END + rest.split(END)[1]
    return files


def write(results: dict[str, Any]) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.glob("*.svg"):
        old.unlink()
    for path, text in render(results, README.read_text()).items():
        path.write_text(text)


# ---- the page -----------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> str:
    measured = modules(results)
    parts = ["# Benchmarks\n"]
    if results["quick"]:
        parts.append("**From a quick run with few short rounds: these figures are rough.**\n")
    parts += [tally(measured), "## Goals\n", goals_table(measured)]
    parts += ["## How to read this\n", HOW_TO_READ]
    parts += ["## How to repeat it\n", how_to_repeat(measured)]
    parts += ["## Machine\n", table(["", ""], [[k, v] for k, v in results["machine"].items()])]
    parts += ["## Versions\n", table(["", ""], [[k, v] for k, v in results["versions"].items()])]
    for module in measured:
        parts.append(f"## {TITLES[module.name]}\n")
        parts.append(
            f"Measured {module.date} by `./dev bench {module.name}` in {module.seconds:.0f} s. "
            f"The machine's load average when it began was {module.load:.1f}.\n"
        )
        parts += [section(module, one) for one in module.comparisons if one.samples]
    return "\n".join(parts)


def tally(measured: list[Module]) -> str:
    """How many goals are met, and which are not."""
    judged = [one for module in measured for one in module.judged()]
    met = sum(one.verdict == "met" for one in judged)
    text = f"{met} of {len(judged)} goals are met"
    if met == len(judged):
        return f"{text}.\n"
    others = [one for one in judged if one.verdict != "met"]
    return f"{text}. The others:\n\n" + "".join(
        f"- {one.verdict}: {one.what}, {one.wanted}; measured {one.figure}\n" for one in others
    )


def goals_table(measured: list[Module]) -> str:
    rows = [[module.name, *one] for module in measured for one in module.judged()]
    return table(["", "figure", "goal", "measured", "best rounds", "verdict"], rows)


def how_to_repeat(measured: list[Module]) -> str:
    minutes = sum(module.seconds for module in measured) / 60
    return (
        f"`./dev bench` measures all of it (here in {minutes:.0f} minutes; leave the machine alone "
        "meanwhile), writes [results.json](results.json) and makes this page from it. "
        "`./dev bench NAME` measures one module and prints its tables. "
        "`python tests/benchmarks/page.py` makes the page again without measuring.\n"
    )


def section(module: Module, comparison: Comparison) -> str:
    names = comparison.names()
    rows = []
    for name in names:
        samples, median = comparison.samples[name], comparison.median(name)
        ratio = comparison.times(comparison.median(names[0]), median)
        figures = [shown(value, comparison.unit) for value in (median, min(samples), max(samples))]
        times = "" if name == names[0] else f"{significant(ratio)} x"
        rows.append([name, *figures, str(len(samples)), times])
    parts = [f"### {capital(comparison.what)}\n"]
    if len(names) > 1:
        alt = f"Bars of the table below: {comparison.what}"
        parts.append(f"![{alt}]({chart_name(module, comparison)})\n")
    head = [f"{comparison.better} is better", "median", "least", "greatest", "rounds"]
    parts.append(table([*head, f"{names[0]} is better by"], rows))
    for one in module.judged():
        if one.what == comparison.what:
            parts.append(f"Goal: {one.wanted}; measured {one.figure}: {one.verdict}.\n")
    return "\n".join(parts)


def capital(text: str) -> str:
    """A heading's first letter; names of programs stay as they are."""
    return text if text.startswith(("git ", "text()")) else text[0].upper() + text[1:]


def table(head: list[str], rows: list[list[str]]) -> str:
    align = ["---", *["---:" if re.match(r"[\d+-]", cell) else "---" for cell in rows[0][1:]]]
    lines = [head, align, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


# ---- the README ---------------------------------------------------------------------------------


def summary(results: dict[str, Any]) -> str:
    measured = modules(results)
    rows = []
    for module in measured:
        for comparison in filter(lambda one: one.summary, module.comparisons):
            names = comparison.names()
            unit, ours = comparison.unit, comparison.median(names[0])
            others = [
                f"{name} {shown(median, unit)} ({significant(comparison.times(ours, median))})"
                for name in names[comparison.ours :]
                for median in [comparison.median(name)]
            ]
            rows.append([comparison.what, shown(ours, unit), "; ".join(others)])
    machine = results["machine"]
    return (
        f"Medians from one run of `./dev bench` on {machine['cores']} cores of {machine['CPU']}; "
        "in brackets: how many times better pyplue is, below 1 the other is ahead. All figures "
        "with their spread, charts and versions: [docs/benchmarks](docs/benchmarks/index.md).\n\n"
        + table(["", "pyplue", "alternatives"], rows)
        + f"\n{tally(measured)}"
    )


# ---- the charts ---------------------------------------------------------------------------------

WIDTH, ROW, LETTER = 760, 30, 7.3  # a letter of 13 px is narrower than that on average
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.note { font-size: 11px }
.page { fill: #ffffff } .ours { fill: #0a5bd3 } .other { fill: #a9b4c0 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .page { fill: #0d1117 } .ours { fill: #58a6ff } .other { fill: #4d5763 }
  .spread { stroke: #e6edf3 }
}"""


def chart_name(module: Module, comparison: Comparison) -> str:
    return (
        re.sub(r"[^a-z0-9]+", "-", f"{module.name} {comparison.what}".lower()).strip("-") + ".svg"
    )


def chart(comparison: Comparison) -> str:
    """One bar each: the name, the bar with its spread, the median. On a ground of its own, so that
    it can be read on a page of any colour."""
    names = comparison.names()
    left = 16 + LETTER * max(map(len, names))
    room = WIDTH - left - 90
    most = max(map(comparison.median, names))
    # One odd round may be far out: the bars are to be compared, so such a line is cut off.
    full = min(max(map(max, comparison.samples.values())), 1.3 * most) or 1
    lines = []
    for number, name in enumerate(names):
        median, samples = comparison.median(name), comparison.samples[name]
        low, high = (left + room * min(value / full, 1) for value in (min(samples), max(samples)))
        top, kind = 8 + ROW * number, "ours" if number < comparison.ours else "other"
        middle = top + ROW // 2
        end = f"M{high:.1f} {middle - 4}v8" if max(samples) <= full else ""
        lines += [
            f'<text x="{left - 8:.1f}" y="{middle + 5}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{left:.1f}" y="{top + 4}"'
            f' width="{max(room * median / full, 1):.1f}" height="{ROW - 8}"/>',
            f'<path class="spread" d="M{low:.1f} {middle}H{high:.1f}'
            f'M{low:.1f} {middle - 4}v8{end}"/>',
            f'<text x="{WIDTH - 8}" y="{middle + 5}" text-anchor="end">'
            f"{shown(median, comparison.unit)}</text>",
        ]
    height = 36 + ROW * len(names)
    note = f"{comparison.better} is better; median, and from the least to the greatest round"
    right = f'x="{WIDTH - 8}" text-anchor="end"'
    lines.append(f'<text class="note" {right} y="{height - 12}">{note}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{escape(comparison.what)}</title>",
            f"<style>\n{STYLE}\n</style>",
            f'<rect class="page" width="{WIDTH}" height="{height}" rx="6"/>',
            *lines,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
