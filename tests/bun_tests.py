"""The tests of the Bun modules, run by a real Bun."""

from __future__ import annotations

import os
import subprocess

from source_tree import ROOT


def run(bun: str, name: str, **environment: str) -> None:
    """Fails with what Bun says unless every test of bun/`name` passes."""
    answer = subprocess.run(
        [bun, "test", name],
        cwd=ROOT / "bun",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert answer.returncode == 0, answer.stderr[-8000:]
    assert " 0 fail" in answer.stderr
