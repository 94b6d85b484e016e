"""Every Python, TypeScript and C program on a page runs, so that none of them can lie.

Blocks with a title are files of their page's shell blocks, see test_pages.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_blocks import Block, all_blocks, answers, missing_line
from source_tree import ROOT

from pyplue import ffi


def block_id(block: Block) -> str:
    return block.name


def run(command: list[str | Path], cwd: Path) -> str:
    # Terminal sessions in a directory of their own, with a path short enough for sockets.
    with tempfile.TemporaryDirectory(prefix="vt.", dir="/tmp") as sessions:
        environment = {**os.environ, "VIBETUNNEL_CONTROL_DIR": sessions}
        answer = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
        )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


def check_answer(block: Block, printed: str) -> None:
    said = answers(block)
    assert said is None or missing_line(said, printed) is None, printed


@pytest.mark.parametrize("block", all_blocks("python"), ids=block_id)
def test_a_python_example_runs(block: Block, tmp_path: Path):
    program = tmp_path / "example.py"
    program.write_text(block.text)
    check_answer(block, run([sys.executable, program], tmp_path))


@pytest.mark.parametrize("block", all_blocks("ts"), ids=block_id)
def test_a_typescript_example_runs(block: Block, need: Callable[[str], str], tmp_path: Path):
    """The package plue is bun/."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "plue").symlink_to(ROOT / "bun")
    program = tmp_path / "example.ts"
    program.write_text(block.text)
    check_answer(block, run([need("bun"), program], tmp_path))


@pytest.mark.parametrize("block", all_blocks("c"), ids=block_id)
def test_a_c_example_compiles_and_runs(block: Block, tmp_path: Path):
    source, program = tmp_path / "example.c", tmp_path / "example"
    source.write_text(block.text)
    includes = [f"-I{folder}" for folder in ROOT.glob("zig/*/include")]
    used = re.findall(r"#include [<\"](plue_\w+|vt_fwd)\.h", block.text)
    libraries = [library.path for library in ffi.LIBRARIES.values() if library.name in used]
    folders = {f"-Wl,-rpath,{path.parent}" for path in libraries}
    compiler = [sys.executable, "-m", "ziglang", "cc", "-Wall", "-Wextra", "-Werror", *includes]
    run([*compiler, "-o", program, source, *libraries, *folders], tmp_path)
    check_answer(block, run([program], tmp_path))
