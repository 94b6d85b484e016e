"""Finds the Zig compiler and runs the root build.zig with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from setuptools_zig import ZigCompilerError
from setuptools_zig import zig as found_zig

ROOT = Path(__file__).resolve().parent.parent
REQUIRED_ZIG = "0.15.2"
# Patch releases of 0.15 share the language and the build API; 0.15.1 is the plan's minimum.
ACCEPTED_ZIG = ("0.15.1", REQUIRED_ZIG)


def compiler() -> str:
    """The Zig executable, of an accepted version: PY_ZIG, else PyPI's ziglang, else on PATH."""
    zig = os.environ.get("PY_ZIG", found_zig)
    cure = f"install ziglang=={REQUIRED_ZIG} or set PY_ZIG=/path/to/zig"
    try:
        answer = subprocess.run([zig, "version"], capture_output=True, text=True)
    except OSError:
        raise ZigCompilerError(f"no Zig compiler at '{zig}': {cure}") from None
    version = answer.stdout.strip()
    if answer.returncode != 0 or version not in ACCEPTED_ZIG:
        shown = version or f"exit status {answer.returncode}"
        raise ZigCompilerError(f"'{zig}' is Zig {shown}, pyplue needs {REQUIRED_ZIG}: {cure}")
    return zig


def build(prefix: Path, target: str | None, static: tuple[Path, Path] | None) -> None:
    """Runs `zig build` into `prefix`: lib/, bin/ and include/, for this machine or for `target`.

    `static` is libssh's source tree and the folder of libcrypto to link into plue_ssh. Zig's own
    cache makes a second run over unchanged sources a no-op.
    """
    command = [compiler(), "build", "--prefix", str(prefix), "--summary", "none"]
    if target is not None:
        command.append(f"-Dtarget={target}")
    if static is not None:
        command += [f"-Dlibssh={static[0].resolve()}", f"-Dlibcrypto={static[1].resolve()}"]
    answer = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    if answer.returncode != 0:
        raise ZigCompilerError(_last_line(answer.stderr))


def _last_line(stderr: str) -> str:
    """Zig's text in full, then the one line that says what to do about it."""
    for line in stderr.splitlines():
        if "libssh" in line and "not found" in line:
            return (
                f"{stderr}\nlibssh not found: apt-get install libssh-dev pkg-config | "
                "brew install libssh pkg-config | use a release wheel"
            )
    errors = [line for line in stderr.splitlines() if "error:" in line]
    first = errors[0].strip() if errors else "zig build failed without an error line"
    return f"{stderr}\npyplue could not be compiled, mend this first: {first}"
