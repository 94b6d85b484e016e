"""./dev: help worth reading, and clear words on a machine that lacks what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from source_tree import ROOT, copy_tree


def dev(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(cwd / "dev"), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_names_every_command(flag: str):
    answer = dev(flag)
    assert answer.returncode == 0
    for command in ("demo", "test", "check", "wheels", "bench", "soak", "fuzz", "docs", "clean"):
        assert f"  {command}" in answer.stdout


@pytest.mark.parametrize("arguments", [(), ("frobnicate",)])
def test_no_or_an_unknown_command_is_a_usage_error(arguments: tuple[str, ...]):
    answer = dev(*arguments)
    assert answer.returncode == 2
    assert "usage: ./dev COMMAND" in answer.stderr


@pytest.fixture
def bare_machine(tmp_path: Path) -> Path:
    """A PATH with the usual small tools and a git, and nothing else."""
    folder = tmp_path / "path"
    folder.mkdir()
    for tool in ("cat", "cksum", "dirname", "env", "grep", "id", "printf", "rm", "sh", "test"):
        (folder / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
    return folder


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_without_python_it_says_which_one_to_install(bare_machine: Path, tmp_path: Path):
    tree = copy_tree(tmp_path / "tree")
    answer = dev("demo", cwd=tree, PATH=str(bare_machine))
    assert answer.returncode == 1
    assert "python3 is missing: install Python 3.10 or later" in answer.stderr


def test_an_old_python_is_refused_by_name(bare_machine: Path, tmp_path: Path):
    tree = copy_tree(tmp_path / "tree")
    program(bare_machine, "python3", '[ "$1" = -V ] && echo Python 3.8.10; exit 1')
    answer = dev("demo", cwd=tree, PATH=str(bare_machine))
    assert answer.returncode == 1
    assert "python3 is Python 3.8.10, pyplue needs Python 3.10 or later" in answer.stderr


# A Python that is new enough and lacks only the venv module, as on a fresh Debian.
NO_VENV = 'case "$2" in *ensurepip*) exit 1;; esac; exit 0'


def test_a_missing_system_package_without_a_package_manager_is_named(bare_machine, tmp_path):
    tree = copy_tree(tmp_path / "tree")
    program(bare_machine, "python3", NO_VENV)
    answer = dev("demo", cwd=tree, PATH=str(bare_machine))
    assert answer.returncode == 1
    assert "python3-venv" in answer.stderr
    assert "Neither apt-get nor brew is here" in answer.stderr


def test_without_root_and_sudo_it_says_what_an_administrator_should_run(bare_machine, tmp_path):
    tree = copy_tree(tmp_path / "tree")
    program(bare_machine, "python3", NO_VENV)
    program(bare_machine, "apt-get", "exit 0")
    (bare_machine / "id").unlink()
    program(bare_machine, "id", "echo 1000")
    answer = dev("demo", cwd=tree, PATH=str(bare_machine))
    assert answer.returncode == 1
    assert "installing system packages with apt-get:" in answer.stderr
    assert "not root and no sudo: ask an administrator to run: env" in answer.stderr


def test_with_sudo_it_installs_through_it(bare_machine, tmp_path):
    tree = copy_tree(tmp_path / "tree")
    log = tmp_path / "log"
    program(bare_machine, "python3", NO_VENV)
    program(bare_machine, "apt-get", "exit 0")
    program(bare_machine, "sudo", f'echo "$@" >>{log}; exit 0')
    (bare_machine / "id").unlink()
    program(bare_machine, "id", "echo 1000")
    dev("demo", cwd=tree, PATH=str(bare_machine))
    called = log.read_text()
    assert "apt-get update" in called
    assert "apt-get install -y" in called
    assert "python3-venv" in called
