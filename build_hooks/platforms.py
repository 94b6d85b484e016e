"""Zig target triples and the wheel platform tags they stand for.

A wheel tag promises the oldest system it runs on, so a triple must name that system: a glibc or a
macOS without a version is refused.
"""

from __future__ import annotations

import re

_CPUS = {"x86_64": "x86_64", "aarch64": "aarch64"}


def wheel_tag(triple: str) -> str:
    """The platform tag of a wheel for `triple`, for example `x86_64-linux-gnu.2.17`.

    Raises ValueError, with the accepted forms, for any other triple.
    """
    match = re.fullmatch(
        r"(?P<cpu>\w+)-(?:linux-gnu\.(?P<glibc>\d+\.\d+)|(?P<musl>linux-musl)"
        r"|macos\.(?P<macos>\d+\.\d+))",
        triple,
    )
    if match is None or match["cpu"] not in _CPUS:
        raise ValueError(
            f"cannot tag a wheel for target '{triple}': use x86_64 or aarch64 with "
            "-linux-gnu.2.17, -linux-musl or -macos.13.0"
        )
    cpu = _CPUS[match["cpu"]]
    if match["glibc"]:
        return f"manylinux_{match['glibc'].replace('.', '_')}_{cpu}"
    if match["musl"]:
        return f"musllinux_1_2_{cpu}"
    mac_cpu = "arm64" if cpu == "aarch64" else cpu
    return f"macosx_{match['macos'].replace('.', '_')}_{mac_cpu}"


def library_suffix(triple: str | None, host: str) -> str:
    """`.dylib` for macOS, `.so` elsewhere; `host` is sys.platform and counts without a triple."""
    is_macos = "macos" in triple if triple is not None else host == "darwin"
    return ".dylib" if is_macos else ".so"
