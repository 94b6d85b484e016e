"""Every Python, TypeScript and C example in a README runs, so that none of them can lie.

Blocks of one file that follow each other in one language are separate programs. A shell block is
not run, except that each `./dev` command in it must be one that ./dev knows.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from source_tree import ROOT

from pyplue import ffi


class Example(NamedTuple):
    name: str
    language: str
    text: str


def examples(*languages: str) -> list[Example]:
    found = []
    for page in [
        ROOT / "README.md",
        *sorted(ROOT.glob("pyplue/*/README.md")),
        *sorted(ROOT.glob("zig/*/README.md")),
    ]:
        text = page.read_text()
        for block in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, block.start()) + 1
            if block[1] in languages:
                found.append(Example(f"{page.relative_to(ROOT)}:{line}", block[1], block[2]))
    return found


def ids(example: Example) -> str:
    return example.name


def run(command: list[str | Path], cwd: Path) -> None:
    # Terminal sessions in a directory of their own, with a path short enough for sockets.
    with tempfile.TemporaryDirectory(prefix="vt.", dir="/tmp") as sessions:
        environment = {**os.environ, "VIBETUNNEL_CONTROL_DIR": sessions}
        answer = subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
        )
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize("example", examples("python"), ids=ids)
def test_a_python_example_runs(example: Example, tmp_path: Path):
    program = tmp_path / "example.py"
    program.write_text(example.text)
    run([sys.executable, program], tmp_path)


@pytest.mark.parametrize("example", examples("ts", "typescript"), ids=ids)
def test_a_typescript_example_runs(example: Example, need: Callable[[str], str], tmp_path: Path):
    """Imports of ./plue_*.ts are those of bun/."""
    program = tmp_path / "example.ts"
    program.write_text(re.sub(r'"(?:\./)?(plue_\w+\.ts)"', rf'"{ROOT}/bun/\1"', example.text))
    run([need("bun"), program], tmp_path)


@pytest.mark.parametrize("example", examples("c"), ids=ids)
def test_a_c_example_compiles_and_runs(example: Example, tmp_path: Path):
    source, program = tmp_path / "example.c", tmp_path / "example"
    source.write_text(example.text)
    includes = [f"-I{folder}" for folder in ROOT.glob("zig/*/include")]
    used = re.findall(r"#include [<\"](plue_\w+|vt_fwd)\.h", example.text)
    libraries = [library.path for library in ffi.LIBRARIES.values() if library.name in used]
    folders = {f"-Wl,-rpath,{path.parent}" for path in libraries}
    compiler = [sys.executable, "-m", "ziglang", "cc", "-Wall", "-Wextra", "-Werror", *includes]
    run([*compiler, "-o", program, source, *libraries, *folders], tmp_path)
    run([program], tmp_path)


@pytest.mark.parametrize("example", examples("sh", "console"), ids=ids)
def test_a_dev_command_in_a_shell_example_exists(example: Example):
    usage = subprocess.run([ROOT / "dev", "--help"], capture_output=True, text=True, check=True)
    for command in re.findall(r"\./dev (\w+)", example.text):
        assert re.search(rf"^  {command}\b", usage.stdout, re.MULTILINE), command
