"""The page of docs/benchmarks and the README's summary say just what results.json has."""

from __future__ import annotations

import json
import re
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import page
import run

README = f"before\n{page.BEGIN}old\n{page.END}after\n"
SVG = "{http://www.w3.org/2000/svg}"


def made_up(quick: bool = False) -> dict[str, Any]:
    """Two comparisons and a goal of every kind: met, met to the digit, missed, not measured."""
    start = {
        "what": "start & <stop>",
        "unit": "s",
        "better": "lower",
        "samples": {"ours": [0.001, 0.002, 0.009], "theirs": [0.004, 0.003, 0.005], "bare": [5e-4]},
        "ours": 1,
        "summary": True,
    }
    rate = start | {
        "what": "rate",
        "unit": "/s",
        "better": "higher",
        "samples": {"ours": [2e6, 4e6], "ours, slow": [1000.0], "theirs": [1.5e6, 2.5e6]},
        "ours": 2,
    }
    goal = {"at_least": None, "at_most": None, "than": [], "over": "", "name": ""}
    goals = [
        goal | {"what": "start & <stop>", "at_least": 2, "than": ["theirs"]},
        goal | {"what": "start & <stop>", "at_least": 2.1, "than": ["theirs"]},
        goal | {"what": "start & <stop>", "at_most": 0.001, "over": "bare"},
        goal | {"what": "start & <stop>", "at_most": 0.002},
        goal | {"what": "rate", "at_least": 1.5, "than": ["theirs", "ours, slow"]},
        goal | {"what": "rate", "at_least": 2000.0, "name": "ours, slow"},
        goal | {"what": "rate", "at_least": 1, "than": ["theirs", "nobody"]},
    ]
    return {
        "quick": quick,
        "machine": {"CPU": "A | B", "cores": "2"},
        "versions": {"Zig": "0.15.2"},
        "modules": {
            "jwt": {
                "date": "2026-01-02 03:04 UTC",
                "seconds": 90,
                "load": 0.25,
                "comparisons": [start, rate],
                "goals": goals,
            }
        },
    }


VERDICTS = [
    ("at least 2 x theirs", "2.00 x", "3.00 x", "met"),
    ("at least 2.1 x theirs", "2.00 x", "3.00 x", "MISSED"),
    ("at most 1 ms over bare", "+1.50 ms", "+500 µs", "MISSED"),
    ("at most 2 ms", "2.00 ms", "1.00 ms", "met"),
    ("at least 1.5 x the best of theirs, ours, slow", "1.50 x", "1.60 x", "met"),
    ("ours, slow: at least 2,000/s", "1,000/s", "1,000/s", "MISSED"),
    ("at least 1 x the best of theirs, nobody", "-", "-", "NOT MEASURED"),
]


def test_every_goal_has_its_verdict_at_the_top_and_the_unmet_ones_are_named_in_the_readme():
    files = page.render(made_up(), README)
    text = files[page.FOLDER / "index.md"]
    rows = [
        line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| jwt |")
    ]
    assert [tuple(row[2:]) for row in rows] == VERDICTS
    readme = files[page.README]
    assert readme.startswith(f"before\n{page.BEGIN}") and readme.endswith(f"{page.END}after\n")
    for shown in (text, readme):
        assert "3 of 7 goals are met. The others:" in shown
        unmet = re.findall(r"^- (MISSED|NOT MEASURED): (?:start & <stop>|rate), (.*);", shown, re.M)
        assert unmet == [
            (verdict, wanted) for wanted, _, _, verdict in VERDICTS if verdict != "met"
        ]


def test_the_tables_have_median_spread_and_ratio():
    text = page.render(made_up(), README)[page.FOLDER / "index.md"]
    assert "| ours | 2.00 ms | 1.00 ms | 9.00 ms | 3 |  |\n" in text
    assert "| theirs | 4.00 ms | 3.00 ms | 5.00 ms | 3 | 2.00 x |\n" in text
    assert "| theirs | 2.00 M/s | 1.50 M/s | 2.50 M/s | 2 | 1.50 x |\n" in text
    assert "A \\| B" in text
    readme = page.render(made_up(), README)[page.README]
    assert "| rate | 3.00 M/s | theirs 2.00 M/s (1.50) |\n" in readme


def test_figures_of_a_quick_run_stay_out_of_the_readme():
    files = page.render(made_up(quick=True), README)
    assert page.README not in files
    assert "these figures are rough" in files[page.FOLDER / "index.md"]


def test_a_chart_has_a_bar_of_the_right_length_for_everybody():
    files = page.render(made_up(), README)
    charts = [text for path, text in files.items() if path.suffix == ".svg"]
    assert len(charts) == 2
    for text, medians in zip(charts, ([2, 0.5, 4], [3e6, 1000, 2e6]), strict=True):
        svg = ElementTree.fromstring(text)
        bars = [one for one in svg.iter(f"{SVG}rect") if one.get("class") != "page"]
        lengths = [float(bar.get("width")) for bar in bars]
        longest = max(medians)
        for length, value in zip(lengths, medians, strict=True):
            assert length / max(lengths) == pytest.approx(value / longest, abs=0.005)
        tops = [float(one.get("y")) for one in svg.iter(f"{SVG}text") if one.get("x") == "752"]
        assert all(below - above >= 20 for above, below in pairwise(tops))
        assert max(float(bar.get("x")) for bar in bars) + max(lengths) <= page.WIDTH - 90


def test_samples_are_kept_with_four_digits_a_line_for_each_list():
    text = run.dumps({"samples": {"a": [0.123456, 2.0], "b": [3.0]}, "name": "x [1, 2] µ"})
    assert json.loads(text) == {"samples": {"a": [0.1235, 2.0], "b": [3.0]}, "name": "x [1, 2] µ"}
    assert '"a": [ 0.1235, 2.0 ],\n' in text


# ---- what is kept in the repository -------------------------------------------------------------


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    return json.loads(page.RESULTS.read_text())


def test_the_kept_page_charts_and_summary_are_those_of_the_kept_figures(kept: dict[str, Any]):
    files = page.render(kept, page.README.read_text())
    again = "run python tests/benchmarks/page.py"
    for path, text in files.items():
        assert path.read_text() == text, again
        if path.suffix == ".svg":
            ElementTree.fromstring(text)
    assert {*page.FOLDER.glob("*.svg")} == {path for path in files if path.suffix == ".svg"}, again
    assert list(kept["modules"]) == list(page.TITLES)


def test_the_kept_page_gives_every_goal_its_true_verdict(kept: dict[str, Any]):
    text = (page.FOLDER / "index.md").read_text()
    goals_at_top = text.split("## Goals")[1].split("## How")[0]
    shown = [line.strip("| ").split(" | ")[-1] for line in goals_at_top.splitlines()[4:] if line]
    true = []
    for module in kept["modules"].values():
        compared = {one["what"]: one for one in module["comparisons"]}
        for goal in module["goals"]:
            one = compared[goal["what"]]
            middle = {name: median(samples) for name, samples in one["samples"].items()}
            if not {*goal["than"], *filter(None, (goal["over"], goal["name"]))} <= {*middle}:
                true.append("NOT MEASURED")
                continue
            value = middle[goal["name"] or next(iter(middle))]
            if goal["than"] and one["better"] == "lower":
                value = min(middle[name] for name in goal["than"]) / value
            elif goal["than"]:
                value /= max(middle[name] for name in goal["than"])
            elif goal["over"]:
                value -= middle[goal["over"]]
            low, high = goal["at_least"], goal["at_most"]
            met = (low is None or value >= low) and (high is None or value <= high)
            true.append("met" if met else "MISSED")
    assert shown == true and len(true) > 40
