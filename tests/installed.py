"""Runs tests against the pyplue that is installed in some Python environment, such as a wheel's.

    python tests/installed.py [--python FILE] [ARG ...]

FILE is that environment's Python, this one when left out. It needs pyplue and what the tests need:
`FILE -m pip install 'WHEEL[jwt,ratelimit,ssh,postgres,vt,vt-svg]' --group test`. The other
arguments go to pytest; unless they name tests, all of what is installed run.

They run in a copy of the source tree that has no Python package, no libraries and no executables of
its own: what is not in the wheel is not there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from source_tree import ROOT, copy_tree

# The others are about the source tree or its builds.
TESTS = ["tests/ffi", "tests/jwt", "tests/ratelimit", "tests/ssh", "tests/vt", "tests/interop"]
NODE_MODULES = ["bun", "tests/interop/vibetunnel"]
ASK = """
import json, pyplue, sysconfig
from pyplue import ffi, ssh
print(json.dumps({
    "package": pyplue.__path__[0],
    "libraries": {library.name: str(library.path) for library in ffi.LIBRARIES.values()},
    "scripts": sysconfig.get_path("scripts"),
    "libssh": ssh.libssh_version(),
}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(usage="%(prog)s [--python FILE] [ARG ...]")
    parser.add_argument("--python", default=sys.executable)
    options, words = parser.parse_known_args()
    python = shutil.which(options.python)
    if python is None:
        sys.exit(f"{options.python} is no program: --python takes the Python with pyplue installed")
    python = os.path.abspath(python)
    with tempfile.TemporaryDirectory(prefix="installed-") as folder:
        tree = copy_tree(Path(folder) / "tree")
        shutil.rmtree(tree / "pyplue")
        for place in NODE_MODULES:
            (tree / place / "node_modules").symlink_to(ROOT / place / "node_modules")
        environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        ask = [python, "-c", ASK]
        answer = subprocess.run(
            ask, cwd=tree, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        if answer.returncode != 0:
            sys.exit(f"{python} has no pyplue that works: install the wheel there first")
        found = json.loads(answer.stdout)
        if Path(found["package"]).is_relative_to(ROOT / "pyplue"):
            sys.exit(f"{python} has the source tree installed, not a wheel: give --python")
        print(f"{found['package']}, libssh {found['libssh']}", flush=True)
        # Bun has no package of ours that could be installed: its files load these libraries.
        for name, path in found["libraries"].items():
            environment[f"{name.upper()}_LIBRARY"] = path
        environment["PATH"] = os.pathsep.join(
            [found["scripts"], str(ROOT / "bun/node_modules/.bin"), environment["PATH"]]
        )
        named = any((ROOT / word.partition("::")[0]).exists() for word in words)
        command = [python, "-m", "pytest", *words, *([] if named else TESTS)]
        return subprocess.run(command, cwd=tree, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
