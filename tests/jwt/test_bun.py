"""The tests of bun/plue_jwt.ts, run by a real Bun against the installed library."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

from source_tree import ROOT

from pyplue import ffi


def test_the_bun_tests_pass(need: Callable[[str], str]):
    answer = subprocess.run(
        [need("bun"), "test", "plue_jwt.test.ts"],
        cwd=ROOT / "bun",
        env={**os.environ, "PLUE_JWT_LIBRARY": str(ffi.jwt.path)},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert answer.returncode == 0, answer.stderr[-8000:]
    assert " 0 fail" in answer.stderr
