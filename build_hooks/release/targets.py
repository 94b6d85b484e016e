"""The platforms that a release has files for."""

from __future__ import annotations

from typing import NamedTuple

from build_hooks.platforms import wheel_tag


class Target(NamedTuple):
    """One platform: Zig's triple with the oldest system, and its name among Bun's and npm's."""

    triple: str
    name: str

    @property
    def tag(self) -> str:
        """The platform tag of its wheel."""
        return wheel_tag(self.triple)

    @property
    def npm(self) -> dict[str, list[str]]:
        """What package.json says so that no other platform installs it."""
        system, cpu, *musl = self.name.split("-")
        libc = {"libc": ["musl" if musl else "glibc"]} if system == "linux" else {}
        return {"os": [system], "cpu": [cpu], **libc}


TARGETS = (
    Target("x86_64-linux-gnu.2.28", "linux-x64"),
    Target("aarch64-linux-gnu.2.28", "linux-arm64"),
    Target("x86_64-linux-musl", "linux-x64-musl"),
    Target("aarch64-linux-musl", "linux-arm64-musl"),
    Target("aarch64-macos.13.0", "darwin-arm64"),
    Target("x86_64-macos.13.0", "darwin-x64"),
)

# One of each kind, for tests: glibc, musl and Mach-O have checks of their own, ARM runs under qemu.
TESTED = tuple(it for it in TARGETS if it.name not in ("linux-arm64-musl", "darwin-x64"))
