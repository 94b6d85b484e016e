"""Known holes of libssh that a server can be reached through, and which of them are open here.

Sources: libssh's release notes and advisories, and the changelogs of Debian's package. Holes in
SFTP, SCP, GSSAPI and the client half are left out: this server has none of them.
"""

from __future__ import annotations

import functools
import gzip
import re
import subprocess
from pathlib import Path
from typing import Literal, NamedTuple


class Hole(NamedTuple):
    """`fixed` is libssh's first release without it, `debian_12` that of Debian 12's package."""

    cve: str
    what: str
    fixed: str
    debian_12: str
    severe: bool = False
    """Somebody may get in, or read along."""
    avoided: str = ""
    """What this server does about it on a libssh that has it."""


HOLES = [
    Hole("CVE-2018-10933", "login without a key", "0.8.4", "", True),
    Hole("CVE-2021-3634", "memory is overwritten at a new key exchange", "0.9.6", "", True),
    Hole("CVE-2023-1667", "a wrong guess in the key exchange crashes it", "0.10.5", ""),
    Hole("CVE-2023-2283", "a signature is not checked when memory runs out", "0.10.5", "", True),
    Hole("CVE-2023-48795", "Terrapin: the first packets can be cut off", "0.10.6", ""),
    Hole("CVE-2023-6918", "digests that failed are used", "0.10.6", ""),
    Hole("CVE-2025-4878", "memory that was never set is freed", "0.11.2", "0.10.6-0+deb12u2"),
    Hole("CVE-2025-5372", "keys that were never derived are used", "0.11.2",
         "0.10.6-0+deb12u2", True),
    Hole("CVE-2025-5987", "errors of ChaCha20-Poly1305 go unnoticed", "0.11.2",
         "0.10.6-0+deb12u2"),
    Hole("CVE-2025-8114", "an error in the key exchange crashes it", "0.11.3",
         "0.10.6-0+deb12u2"),
    Hole("CVE-2025-8277", "repeated wrong guesses eat up memory", "0.11.3", "0.10.6-0+deb12u2"),
    Hole("CVE-2026-0966", "printing nothing in hexadecimal writes before a buffer", "0.12.0",
         "0.10.6-0+deb12u3"),
    Hole("CVE-2026-59843", "packets of no bytes keep it busy for ever", "0.12.2",
         "0.10.6-0+deb12u3", avoided="refuses channels with such packets"),
    Hole("CVE-2026-59847", "AES-GCM does not notice changed data", "0.12.2", "0.10.6-0+deb12u3",
         True, "does not offer AES-GCM unless --set ciphers= does"),
    Hole("CVE-2026-59850", "data for a closed channel uses freed memory", "0.12.2",
         "0.10.6-0+deb12u3", True),
]  # fmt: skip

Verdict = Literal["fixed", "fixed by the package", "avoided", "open"]


class Package(NamedTuple):
    """The distribution's package that the libssh in this process comes from."""

    name: str
    version: str
    changelog: str
    """Its text, or "" where the machine keeps none."""


def verdict(hole: Hole, version: str, package: Package | None, *, gcm_offered: bool) -> Verdict:
    """How a hole stands in libssh `version`."""
    if _numbers(version) >= _numbers(hole.fixed):
        return "fixed"
    if package and (hole.cve in package.changelog or _has_debian_fix(hole, package.version)):
        return "fixed by the package"
    avoided = hole.avoided and not (gcm_offered and "GCM" in hole.what)
    return "avoided" if avoided else "open"


@functools.cache
def package() -> Package | None:
    """None when libssh is inside the library itself, or no package manager knows it."""
    path = _loaded_from()
    owner = _run("dpkg-query", "-S", str(path)) if path else ""
    name = owner.partition(": ")[0].partition(",")[0]
    version = _run("dpkg-query", "-W", "-f=${Version}", name) if name else ""
    if not version:
        return None
    return Package(name.partition(":")[0], version, _changelog(name.partition(":")[0]))


def is_bundled() -> bool:
    """Whether libssh is a part of our own library, which no distribution mends."""
    return Path("/proc/self/maps").exists() and _loaded_from() is None


def _numbers(version: str) -> tuple[int, ...]:
    """ "0.10.6/openssl/zlib" is (0, 10, 6)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _has_debian_fix(hole: Hole, version: str) -> bool:
    """Where the changelog is not installed, as in most containers."""
    ours, fixed = (re.fullmatch(r"0\.10\.6-0\+deb12u(\d+)", v) for v in (version, hole.debian_12))
    return bool(ours and fixed and int(ours[1]) >= int(fixed[1]))


def _loaded_from() -> Path | None:
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return None
    found = re.search(r"\s(/\S*/libssh\.so[.\d]*)$", maps, re.MULTILINE)
    return Path(found[1]) if found else None


def _changelog(name: str) -> str:
    for file in ("changelog.Debian.gz", "changelog.gz"):
        try:
            with gzip.open(f"/usr/share/doc/{name}/{file}", "rt", errors="replace") as text:
                return text.read(1 << 20)
        except (OSError, EOFError):
            continue
    return ""


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""
