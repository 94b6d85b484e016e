"""`python -m pyplue.ssh` is the executable `plue-ssh`, which needs no Python once it runs."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path


def main() -> int:
    scripts = Path(sysconfig.get_path("scripts")) / "plue-ssh"
    program = str(scripts) if scripts.exists() else shutil.which("plue-ssh")
    if program is None:
        print(f"plue-ssh is not in {scripts.parent} nor on PATH: install pyplue again: "
              "pip install --force-reinstall pyplue", file=sys.stderr)  # fmt: skip
        return 1
    sys.stdout.flush()
    os.execv(program, ["plue-ssh", *sys.argv[1:]])  # noqa: S606 (no shell is the point)


if __name__ == "__main__":
    sys.exit(main())
