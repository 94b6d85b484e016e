"""What is fetched, unpacked or compiled once and kept between runs: ~/.cache/pyplue."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def root() -> Path:
    """The folder of all that is kept, in XDG_CACHE_HOME when that is set."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pyplue"


def folder(name: str, make: Callable[[Path], Path]) -> Path:
    """The folder `name`, which must hold all that its contents depend on.

    When it is not there, `make` gets an empty folder and returns the finished one inside. Whoever
    wants it meanwhile waits: it is made once, and there only when it is whole.
    """
    path = root() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            with tempfile.TemporaryDirectory(dir=path.parent) as work:
                make(Path(work)).rename(path)
    return path
