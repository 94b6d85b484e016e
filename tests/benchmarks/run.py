"""Measures modules beside the alternatives: `./dev bench`.

Without a name all of them, and makes the page of docs/benchmarks. With names only those, printing
their tables; with --page too, their figures take the place of the earlier ones on the page.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import page
from report import ROOT

HERE = Path(__file__).resolve().parent
NAMES = list(page.TITLES)

PYPI = (
    *("PyJWT", "joserfc", "Authlib", "superjwt", "python-jose", "orjson"),
    *("limits", "pyrate-limiter", "throttled-py"),
    *("asyncssh", "SQLAlchemy", "psycopg", "pexpect"),
)
NPM = {"fast-jwt": "bun", "jose": "bun", "ssh2": "bun", "vibetunnel": "tests/interop/vibetunnel"}


def output(*command: str) -> str:
    """What a program says about its version, which is on standard error for some."""
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return answer.stdout.strip()


def versions() -> dict[str, str]:
    from pyplue import ffi, ssh

    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    found = {
        "pyplue": f"{version('pyplue')}, SHA-256 by {ffi.jwt.jwt_cpu_path().decode()}",
        "libssh": ssh.libssh_version(),
        "Python": platform.python_version(),
        "Zig": output(sys.executable, "-m", "ziglang", "version"),
        "Bun": output("bun", "--version"),
        "Node": output("node", "--version"),
        "git": output("git", "--version").removeprefix("git version "),
        "OpenSSH": output("ssh", "-V").removeprefix("OpenSSH_"),
        "PostgreSQL": output(str(postgres[-1]) if postgres else "postgres", "--version"),
        "script": output("script", "--version").removeprefix("script from "),
        "asciinema": output("asciinema", "--version").removeprefix("asciinema "),
    }
    found |= {name: version(name) for name in PYPI}
    for name, folder in NPM.items():
        package = ROOT / folder / "node_modules" / name / "package.json"
        found[name] = json.loads(package.read_text())["version"]
    return found


def machine() -> dict[str, str]:
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        cpu = names[1] if names else cpu
    elif shutil.which("sysctl"):
        cpu = output("sysctl", "-n", "machdep.cpu.brand_string")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "CPU": cpu,
        "cores": str(os.cpu_count()),
        "memory": f"{memory / 1e9:.1f} GB",
        "system": f"{platform.system()} {platform.release()} on {platform.machine()}",
        "libc": " ".join(platform.libc_ver()) or "the system's",
    }


def measure(name: str, quick: bool) -> dict[str, Any]:
    """One module's figures, from a process of its own, which prints them too."""
    print(f"\n==== {page.TITLES[name]}", flush=True)
    date, load, begin = datetime.now(timezone.utc), os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        script = [sys.executable, str(HERE / f"bench_{name}.py"), "--json", str(figures)]
        subprocess.run([*script, *(["--quick"] if quick else [])], check=True)
        return {
            "date": f"{date:%Y-%m-%d %H:%M} UTC",
            "seconds": round(time.monotonic() - begin),
            "load": round(load, 2),
            **json.loads(figures.read_text()),
        }


def dumps(results: dict[str, Any]) -> str:
    """JSON that a diff can show: four digits, and a line for each list of samples."""
    short = json.loads(
        json.dumps(results), parse_float=lambda digits: float(f"{float(digits):.4g}")
    )
    text = json.dumps(short, indent=1, ensure_ascii=False)
    return re.sub(r"\[[^\[\]{}]+\]", lambda one: " ".join(one[0].split()), text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--quick", action="store_true", help="few short rounds: rough figures")
    parser.add_argument("--page", action="store_true", help="put the named modules on the page")
    options = parser.parse_args()
    if unknown := set(options.name) - set(NAMES):
        parser.error(f"no benchmark is called {', '.join(unknown)}: there are {', '.join(NAMES)}")
    about = {"quick": options.quick, "machine": machine(), "versions": versions()}
    results = {**about, "modules": {}}
    if options.name and options.page:
        results = json.loads(page.RESULTS.read_text())
        for key in about:
            if about[key] != results[key]:
                sys.exit(f"the page is of another run ({key} differs): ./dev bench, without a name")
    failed = []
    for name in options.name or NAMES:
        try:
            results["modules"][name] = measure(name, options.quick)
        except subprocess.CalledProcessError:
            failed.append(name)
    modules = results["modules"]
    results["modules"] = {name: modules[name] for name in NAMES if name in modules}
    if options.page or not options.name:
        page.FOLDER.mkdir(parents=True, exist_ok=True)
        page.RESULTS.write_text(dumps(results))
        page.write(json.loads(page.RESULTS.read_text()))
        print(f"\nwrote {page.FOLDER.relative_to(ROOT)}")
    if failed:
        sys.exit(f"failed, without new figures: {', '.join(failed)}")


if __name__ == "__main__":
    main()
