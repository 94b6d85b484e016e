"""examples/plue-ssh.service, as systemd reads it."""

from __future__ import annotations

import configparser
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from source_tree import ROOT

from .serving import run

UNIT = ROOT / "examples" / "plue-ssh.service"


def test_systemd_finds_nothing_wrong_with_the_unit(need: Callable[[str], str], tmp_path: Path):
    need("systemd-analyze")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/plue/bin/python", sys.executable))
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_the_unit_runs_a_command_that_is_one(tmp_path: Path):
    line = next(line for line in UNIT.read_text().splitlines() if line.startswith("ExecStart="))
    program, *words = line.removeprefix("ExecStart=").split()
    assert (program, words[:2]) == ("/opt/plue/bin/python", ["-m", "pyplue.ssh"])
    # What it says about a database that cannot be: the options before it were understood.
    answer = run(*words[2:], PLUE_SSH_STATE=str(tmp_path), PLUE_SSH_DATABASE="mysql://x/y")
    assert answer.returncode == 2
    assert "no database at a mysql: URL" in answer.stderr


def test_systemd_goes_on_trying_to_start_it():
    """Its defaults give up after five starts, which take half a second each without a database."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(UNIT)
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "on-failure"
    assert float(unit["Service"]["RestartSec"]) >= 1
