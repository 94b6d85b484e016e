"""`python -m pyplue`: what is installed; `python -m pyplue demo`: does it work here."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Callable

import pyplue
from pyplue import demo, ffi, ssh
from pyplue.errors import PlueError


def _jwt() -> str:
    return f"{ffi.jwt.jwt_version().decode()}, SHA-256 by {ffi.jwt.jwt_cpu_path().decode()}"


def _ratelimit() -> str:
    return str(ffi.ratelimit.ratelimit_version(), "ascii")


def _ssh() -> str:
    return f"{ssh.version()} on libssh {ssh.libssh_version()}"


def _vt() -> str:
    return str(ffi.vt.vt_fwd_version(), "ascii")


# What each library says of itself.
DESCRIPTIONS: dict[str, Callable[[], str]] = {
    "jwt": _jwt,
    "ratelimit": _ratelimit,
    "ssh": _ssh,
    "vt": _vt,
}


def report() -> int:
    """Prints versions, library paths and the CPU path in use; 1 if a library is not usable."""
    rows = [
        ("pyplue", pyplue.__version__),
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
    ]
    status = 0
    for name, library in ffi.LIBRARIES.items():
        try:
            rows.append((name, f"{DESCRIPTIONS[name]()}, {library.path}"))
        except PlueError as error:
            rows.append((name, f"not usable: {error}"))
            status = 1
    for label, text in rows:
        print(f"{label:10} {text}")
    return status


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pyplue",
        description="Says what of pyplue is installed: versions, library paths, CPU path.",
        epilog="The modules have commands of their own: python -m pyplue.jwt --help",
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=["demo"],
        help="do each module's main job once on this machine; exits 1 if anything fails",
    )
    return demo.run() if parser.parse_args(argv).command == "demo" else report()


if __name__ == "__main__":
    sys.exit(main())
