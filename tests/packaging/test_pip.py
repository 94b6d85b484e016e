"""pip builds, installs and rebuilds pyplue as its users do it, and fails with the cure."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)


def interpreters() -> list[str]:
    """Every Python from 3.10 to 3.14 on this machine: on PATH, or where pyenv keeps them."""
    found = {}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(10, 15):
        on_path = shutil.which(f"python3.{minor}")
        candidates = [
            *sorted(pyenv.glob(f"3.{minor}.*/bin/python")),
            *([on_path] if on_path else []),
        ]
        for candidate in candidates:
            probe = "import sys, ensurepip; print(sys.version_info[1])"
            answer = subprocess.run([candidate, "-c", probe], capture_output=True, text=True)
            if answer.stdout.strip() == str(minor):
                found[minor] = str(candidate)
    return list(found.values()) or [sys.executable]


def make_venv(interpreter: str, folder: Path) -> Path:
    subprocess.run([interpreter, "-m", "venv", folder], check=True)
    return folder / "bin" / "python"


def report(python: Path, cwd: Path) -> str:
    answer = subprocess.run(
        [python, "-m", "pyplue"], cwd=cwd, capture_output=True, text=True, check=True
    )
    return answer.stdout


def test_the_wheel_is_tagged_for_the_platform_alone(wheel: Path):
    assert wheel.name.startswith("pyplue-0.1.0-py3-none-")
    tags = [
        line
        for line in zipfile.ZipFile(wheel)
        .read("pyplue-0.1.0.dist-info/WHEEL")
        .decode()
        .splitlines()
        if line.startswith(("Tag:", "Root-Is-Purelib:"))
    ]
    assert "Root-Is-Purelib: false" in tags
    assert any(tag.startswith("Tag: py3-none-") for tag in tags)


def test_the_wheel_holds_libraries_and_executables_and_no_sources(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    for library in ("libplue_jwt", "libvt_fwd"):
        assert any(name.startswith(f"pyplue/_native/{library}.") for name in names)
    for program in ("plue-jwt", "vibetunnel-fwd", "vt"):
        assert f"pyplue-0.1.0.data/scripts/{program}" in names
    assert "pyplue/py.typed" in names
    assert not [name for name in names if name.endswith((".zig", ".h", ".ts"))]
    assert not [name for name in names if name.startswith(("tests", "build_hooks"))]


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda path: str(path))
def test_one_wheel_serves_every_python(interpreter: str, wheel: Path, run_pip, tmp_path: Path):
    python = make_venv(interpreter, tmp_path / "venv")
    answer = run_pip("install", "--no-deps", "--no-index", wheel, python=python)
    assert answer.returncode == 0, answer.stdout
    assert "libplue_jwt" in report(python, tmp_path)
    native = subprocess.run([python.parent / "plue-jwt", "--help"], capture_output=True, text=True)
    assert native.returncode == 0
    assert "usage" in native.stdout.lower()


def test_pip_install_from_source_needs_nothing_installed_before(tree: Path, run_pip, tmp_path):
    """With pip's own isolated build environment, as a user runs it."""
    python = make_venv(sys.executable, tmp_path / "venv")
    answer = run_pip("install", tree, python=python)
    assert answer.returncode == 0, answer.stdout
    assert str(tmp_path) in report(python, tmp_path)


def test_an_editable_install_builds_once_and_rebuilds_nothing(tree: Path, run_pip, tmp_path):
    python = make_venv(sys.executable, tmp_path / "venv")
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "-e", tree]
    needed = run_pip(
        "install", "-q", "setuptools>=77", "setuptools-zig>=0.5.3", "ziglang==0.15.2", python=python
    )
    assert needed.returncode == 0, needed.stdout

    def state() -> dict[Path, tuple[int, int]]:
        built = [
            *tree.glob("pyplue/_native/*"),
            *tree.glob("build/native/zig/*/*"),
            *tree.glob(".zig-cache/o/*"),
        ]
        return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in built}

    first = run_pip(*install, python=python)
    assert first.returncode == 0, first.stdout
    assert str(tree) in report(python, tmp_path)
    before = state()
    assert before
    second = run_pip(*install, python=python)
    assert second.returncode == 0, second.stdout
    assert state() == before


def test_without_zig_the_last_words_are_how_to_get_it(tree: Path, run_pip):
    environment = {**os.environ, "PY_ZIG": "/nonexistent/zig"}
    answer = run_pip("wheel", "--no-deps", "--no-build-isolation", tree, env=environment)
    assert answer.returncode != 0
    assert "Traceback" not in answer.stdout
    assert (
        "no Zig compiler at '/nonexistent/zig': install ziglang==0.15.2 or set PY_ZIG="
        in answer.stdout
    )


def test_another_zig_is_refused_with_the_version_that_works(tree: Path, run_pip, tmp_path: Path):
    old = tmp_path / "zig"
    old.write_text("#!/bin/sh\necho 0.13.0\n")
    old.chmod(0o755)
    environment = {**os.environ, "PY_ZIG": str(old)}
    answer = run_pip("wheel", "--no-deps", "--no-build-isolation", tree, env=environment)
    assert answer.returncode != 0
    assert "Traceback" not in answer.stdout
    assert "is Zig 0.13.0, pyplue needs 0.15.2: install ziglang==0.15.2" in answer.stdout


def test_a_compile_error_ends_with_the_line_to_mend(tree: Path, run_pip):
    source = tree / "zig/jwt/src/lib.zig"
    good = source.read_text()
    source.write_text(good + "\nconst broken: u8 = 256;\ncomptime { _ = broken; }\n")
    try:
        answer = run_pip("wheel", "--no-deps", "--no-build-isolation", tree)
    finally:
        source.write_text(good)
    assert answer.returncode != 0
    assert "Traceback" not in answer.stdout
    [cure] = [line for line in answer.stdout.splitlines() if "mend this first" in line]
    assert "lib.zig:" in cure
    assert "256" in cure


def test_an_unpinned_target_is_refused(tree: Path, run_pip):
    answer = run_pip(
        "wheel", "--no-deps", "--no-build-isolation", "-C", "target=x86_64-linux-gnu", tree
    )
    assert answer.returncode != 0
    assert "Traceback" not in answer.stdout
    assert "cannot tag a wheel for target 'x86_64-linux-gnu'" in answer.stdout
