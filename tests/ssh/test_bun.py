"""The Bun module's own tests, with the real Bun."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from source_tree import ROOT


def test_the_bun_tests_pass(need: Callable[[str], str]):
    answer = subprocess.run(
        [need("bun"), "test", "plue_ssh.test.ts"],
        cwd=ROOT / "bun",
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr[-6000:]
    assert " 0 fail" in answer.stderr
