"""Every package compiles for the platforms that wheels are made for, and for what they say."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from source_tree import ROOT

from build_hooks import zig

pytestmark = pytest.mark.timeout(900)

# Each system, CPU and C library at least once; all six wheels are the release's business.
TARGETS = [
    "aarch64-linux-gnu.2.17",
    "x86_64-linux-musl",
    "x86_64-macos.13.0",
    "aarch64-macos.13.0",
]


def kind(path: Path) -> tuple[str, str]:
    """What an executable or a library is by its header: the system's format and the CPU."""
    head = path.read_bytes()[:20]
    if head[:4] == b"\x7fELF":
        return "linux", {62: "x86_64", 183: "aarch64"}[struct.unpack_from("<H", head, 18)[0]]
    assert head[:4] == b"\xcf\xfa\xed\xfe", f"{path} is neither ELF nor Mach-O"
    return "macos", {0x01000007: "x86_64", 0x0100000C: "aarch64"}[
        struct.unpack_from("<I", head, 4)[0]
    ]


@pytest.mark.parametrize("target", TARGETS)
def test_all_packages_compile(target: str, tmp_path: Path) -> None:
    # Debug: what compiles is the same, and it takes a fraction of the time.
    arguments = [f"-Dtarget={target}", "-Doptimize=Debug", "--summary", "none"]
    answer = subprocess.run(
        [zig.compiler(), "build", "--prefix", tmp_path, *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    cpu, system = target.split("-")[:2]
    suffix = ".dylib" if "macos" in system else ".so"
    built = [*(tmp_path / "bin").iterdir(), *(tmp_path / "lib").glob(f"*{suffix}")]
    names = {path.name for path in built}
    assert {"vibetunnel-fwd", f"libplue_jwt{suffix}", f"libvt_fwd{suffix}"} <= names
    for path in built:
        if path.read_bytes().startswith(b"#!"):
            continue  # a script is the same everywhere
        assert kind(path) == (system.split(".")[0], cpu), path.name
