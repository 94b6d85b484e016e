"""The kept corpus and a second of fuzzing find nothing; a planted mistake is found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz import run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="libFuzzer is used on Linux")


@pytest.fixture(scope="module", autouse=True)
def program() -> None:
    run.build()


def test_every_target_has_a_kept_corpus_and_every_corpus_a_target():
    answer = subprocess.run([run.PROGRAM], capture_output=True, text=True)
    assert answer.returncode == 2
    named = answer.stderr.split("These are the targets:\n")[1].split()
    assert sorted(named) == sorted({*run.TARGETS, "self_check"} - run.PYTHON_TARGETS)
    assert sorted(path.name for path in run.CORPUS.iterdir()) == sorted(run.TARGETS)


@pytest.mark.parametrize("target", run.targets_here())
def test_nothing_is_found(target: str, tmp_path: Path):
    result = run.fuzz(target, 1, tmp_path / "learnt", tmp_path / "findings")
    assert not result.findings, result.log[-4000:]
    # All of the corpus was run, and then more.
    assert result.executions > len(list((run.CORPUS / target).iterdir()))
    assert result.edges > 50


def test_coverage_leads_to_a_planted_mistake_and_its_input_shows_it_again(tmp_path: Path):
    result = run.fuzz("self_check", 60, tmp_path / "learnt", tmp_path / "findings")
    assert result.findings, result.log[-4000:]
    data = result.findings[0].read_bytes()
    assert data.startswith(b"PLUE" + 0x0123456789ABCDEF.to_bytes(8, "big"))
    again = run.replay("self_check", result.findings)
    assert again.returncode != 0
    assert "FINDING Found" in again.stdout
