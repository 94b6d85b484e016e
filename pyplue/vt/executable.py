"""Where vibetunnel-fwd is."""

from __future__ import annotations

import shutil
import sysconfig
from functools import lru_cache
from pathlib import Path

from pyplue.vt.errors import SpawnError


@lru_cache(maxsize=1)
def forwarder() -> str:
    """The executable that was installed beside this Python, else the one on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "vibetunnel-fwd"
    found = str(beside) if beside.exists() else shutil.which("vibetunnel-fwd")
    if found is None:
        raise SpawnError(
            f"vibetunnel-fwd is not in {beside.parent} nor on PATH: install pyplue again: "
            "pip install --force-reinstall pyplue"
        )
    return found
