"""Fresh Debian machines in folders: Python, git and ssh, and nothing that could compile.

A machine is what debootstrap downloads, unpacked but not configured, entered with chroot in a
network and a process table of its own. One for another CPU runs under qemu.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from build_hooks.release import kept

SUITE = "bookworm"
PACKAGES = "python3,python3-venv,git,openssh-client"
MOUNTS = """
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
ip link set lo up
exec chroot "$root" "$@"
"""
ENTER = ["unshare", "--mount", "--pid", "--fork", "--net", "sh", "-ec", MOUNTS, "sh"]
BINFMT = Path("/proc/sys/fs/binfmt_misc")


class Machine:
    """A root folder with a Debian system of `architecture`, "amd64" or "arm64"."""

    def __init__(self, folder: Path, architecture: str) -> None:
        self.root = folder / architecture
        subprocess.run(["cp", "-a", _unpacked(architecture), self.root], check=True)
        if architecture == "arm64":
            _run_arm_programs_with_qemu()

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs `command` on the machine; standard error comes with the output."""
        inside = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **environment}
        words = ["/usr/bin/env", "-i", *(f"{name}={value}" for name, value in inside.items())]
        return subprocess.run(
            [*ENTER, str(self.root), *words, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def _unpacked(architecture: str) -> Path:
    """A machine that nobody has used, kept between runs: half a minute of unpacking."""
    key = hashlib.sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:16]
    name = f"machines/{architecture}-{key}"
    return kept.folder(name, lambda work: _debootstrap(architecture, work / "root"))


def _debootstrap(architecture: str, root: Path) -> Path:
    command = ["debootstrap", "--foreign", f"--arch={architecture}", "--variant=minbase"]
    command += [f"--include={PACKAGES}", SUITE, str(root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    packages = root / "var/cache/apt/archives"
    for package in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg-deb", "-x", package, root], check=True)
        package.unlink()
    for name in ("passwd", "group"):
        master = root / "usr/share/base-passwd" / f"{name}.master"
        (root / "etc" / name).write_bytes(master.read_bytes())
    return root


def _run_arm_programs_with_qemu() -> None:
    """Tells the kernel what Debian's qemu-user-static comes with, where nobody has."""
    if not (BINFMT / "register").exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", BINFMT], check=True)
    if not (BINFMT / "qemu-aarch64").exists():
        rule = Path("/usr/lib/binfmt.d/qemu-aarch64.conf").read_bytes()
        # One write is one rule.
        file = os.open(BINFMT / "register", os.O_WRONLY)
        os.write(file, rule.strip())
        os.close(file)
