"""The soak itself: its verdict can fail, and a short one of everything passes."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from soak import ssh_load
from soak.judge import TOLERANCES, Tolerance, trend

HERE = Path(__file__).resolve().parent
TIMES = [5.0 * number for number in range(360)]
"""Half an hour."""

# ---- the verdict --------------------------------------------------------------------------------


def noisy(level: float, noise: float, slope: float = 0.0) -> list[float]:
    chance = random.Random(1)
    return [level + slope * time_s + chance.gauss(0, noise) for time_s in TIMES]


@pytest.mark.parametrize("noise", [0, 50, 1000])
@pytest.mark.parametrize("level", [200, 40_000])
def test_noise_about_a_level_does_not_rise(level: float, noise: float):
    verdict = trend(TIMES, noisy(level, noise), TOLERANCES["anonymous_kb"])
    assert verdict and not verdict.rises


@pytest.mark.parametrize(("slope", "noise"), [(1, 0), (1, 50), (6, 500)])
@pytest.mark.parametrize("level", [200, 40_000])
def test_a_leak_rises(level: float, slope: float, noise: float):
    """Of a KB a second: 0.9 MB in the second half."""
    verdict = trend(TIMES, noisy(level, noise, slope), TOLERANCES["anonymous_kb"])
    assert verdict and verdict.rises
    assert verdict.rise == pytest.approx(slope * 900, rel=0.3)


def test_a_start_that_settles_is_given_time():
    """As much again in a minute as is too much in a quarter of an hour."""
    short = [time_s / 60 for time_s in TIMES]
    values = [20_000 + 1.4 * time_s for time_s in TIMES]
    for times, rises in ((TIMES, True), (short, False)):
        verdict = trend(times, values, TOLERANCES["anonymous_kb"])
        assert verdict and verdict.rises == rises


def test_what_settles_in_the_first_half_does_not_rise():
    values = [min(60_000.0, 20_000 + 50 * time_s) for time_s in TIMES]
    verdict = trend(TIMES, values, TOLERANCES["anonymous_kb"])
    assert verdict and not verdict.rises


def test_peaks_do_not_rise_even_at_the_end():
    chance = random.Random(2)
    values = [40_000.0 + 30_000 * (chance.random() < 0.15) for _ in TIMES]
    values[-9:] = [90_000] * 9
    verdict = trend(TIMES, values, TOLERANCES["anonymous_kb"])
    assert verdict and not verdict.rises


def test_a_descriptor_lost_every_three_minutes_rises_and_busy_ones_do_not():
    chance = random.Random(3)
    busy = [chance.choice((12.0, 12, 18, 24, 30)) for _ in TIMES]
    lost = [12.0 + time_s // 180 for time_s in TIMES]
    for values, rises in ((busy, False), (lost, True)):
        verdict = trend(TIMES, values, TOLERANCES["descriptors"])
        assert verdict and verdict.rises == rises


def test_too_few_samples_are_no_verdict():
    assert trend([], [], Tolerance(1)) is None
    assert trend(TIMES[:20], noisy(1, 0)[:20], Tolerance(1)) is None


# ---- what a load checks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen_at", "read_takes_s", "failures"),
    [
        (0.5, 0.2, []),
        (1.2, 2.5, []),  # this read has logged in before, and the machine is slow
        (2.9, 0.5, []),
        (3.2, 0.5, ["guest reads: not False in time"]),
        (1e9, 0.2, ["guest reads: not False in time"]),
    ],
)
def test_a_change_is_late_when_a_read_that_begins_late_has_not_seen_it(
    monkeypatch: pytest.MonkeyPatch, seen_at: float, read_takes_s: float, failures: list[str]
):
    now = 0.0
    failed: list[str] = []

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def reads(_: str) -> bool:
        answer = now < seen_at
        sleep(read_takes_s)
        return answer

    def check(holds: bool, what: str) -> bool:
        if not holds:
            failed.append(what)
        return holds

    monkeypatch.setattr(ssh_load, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    load = SimpleNamespace(check=check)
    ssh_load.Soak.becomes(SimpleNamespace(load=load, reads=reads), False, "guest")
    assert failed == failures


# ---- the command --------------------------------------------------------------------------------

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")


def soak(out: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "run.py"), "--out", str(out), *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd="/"
    )


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text())
    return found


def test_a_short_soak_of_everything_passes(tmp_path: Path, need: Callable[[str], str]):
    for program in ("git", "ssh"):
        need(program)
    said, _ = soak(tmp_path / "out", "0.25").communicate(timeout=200)
    assert "nothing rises, nothing failed" in said, said
    told = report(tmp_path / "out")
    assert told["findings"] == []
    assert {module for module, counts in told["operations"].items() if counts} == {
        *("jwt", "ratelimit", "ssh", "vt")
    }
    assert {"jwt", "ratelimit worker 1", "ssh server", "vt forwarder"} <= set(told["processes"])
    for name, process in told["processes"].items():
        assert process["second_half"]["anonymous_kb"], name


def test_a_leak_of_memory_and_descriptors_is_noticed(tmp_path: Path):
    run = soak(tmp_path / "out", "0.1", "--only", "jwt", "--leak")
    said, _ = run.communicate(timeout=60)
    assert run.returncode == 1, said
    found = " ".join(report(tmp_path / "out")["findings"])
    assert "jwt: anonymous_kb rose by" in found
    assert "jwt: descriptors rose by" in found
    assert "FINDING jwt: descriptors rose by" in said


def test_a_process_that_dies_is_noticed_and_ctrl_c_ends_with_a_report(tmp_path: Path):
    run = soak(tmp_path / "out", "0.5", "--only", "ratelimit")
    samples = tmp_path / "out" / "samples.csv"
    rows: list[dict[str, str]] = []
    end = time.monotonic() + 20
    while not any(row["process"] == "ratelimit worker 1" for row in rows):
        assert time.monotonic() < end
        time.sleep(0.1)
        if samples.exists():
            rows = list(csv.DictReader(samples.read_text().splitlines()))
    victim = next(int(row["pid"]) for row in rows if row["process"] == "ratelimit worker 1")
    os.kill(victim, signal.SIGKILL)
    time.sleep(1.5)
    run.send_signal(signal.SIGINT)
    said, _ = run.communicate(timeout=30)
    assert run.returncode == 1, said
    assert "soak ended early after" in said
    told = report(tmp_path / "out")
    assert told["interrupted"]
    found = " ".join(told["findings"])
    assert f"ratelimit worker 1 (process {victim}) has died" in found  # says who watches
    assert "worker 0 ended: -9" in found  # says who works with it
