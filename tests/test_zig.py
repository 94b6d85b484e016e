"""Every package's Zig tests, in Debug and in ReleaseSafe: one `zig build test` from the root."""

from __future__ import annotations

import subprocess
import sys

import pytest
from source_tree import ROOT


@pytest.mark.timeout(900)
def test_the_zig_tests_pass_in_debug_and_release_safe():
    command = [sys.executable, "-m", "ziglang", "build", "test", "--summary", "all"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-8000:]
    assert "tests passed" in answer.stderr
