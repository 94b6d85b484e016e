"""The copied tree, pip and the wheel that the packaging tests share."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from source_tree import ROOT, copy_tree


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With what Zig has compiled in the tree already, which is the same here: it took a minute."""
    copied = copy_tree(tmp_path_factory.mktemp("tree"))
    shutil.copytree(ROOT / ".zig-cache", copied / ".zig-cache", ignore=lambda *_: {"tmp"})
    return copied


@pytest.fixture(scope="session")
def run_pip() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs pip of an interpreter (this one by default) and hands back what it printed."""

    def run(
        *arguments: str | Path, python: Path | str = sys.executable, **kwargs: object
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **kwargs,
        )

    return run


@pytest.fixture(scope="session")
def wheel(tree: Path, run_pip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel for this machine, built once from the copied tree."""
    folder = tmp_path_factory.mktemp("wheel")
    answer = run_pip("wheel", "--no-deps", "--no-build-isolation", "-w", folder, tree)
    assert answer.returncode == 0, answer.stdout
    [built] = folder.glob("*.whl")
    return built
