"""`./dev wheels`: every file of a release, made on one Linux machine."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from build_hooks.release import (
    ReleaseError,
    archives,
    checks,
    environment,
    libcrypto,
    sources,
)
from build_hooks.release.targets import TARGETS, Target
from build_hooks.zig import REQUIRED_ZIG, ROOT, compiler


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="./dev wheels",
        description="Makes the wheels with libssh and libcrypto built in, the archives for people "
        "without Python, the sdist and SHA256SUMS, and checks each of them.",
        epilog="The same sources give the same bytes. Times inside are SOURCE_DATE_EPOCH's, or the "
        "latest commit's. Compiled libcrypto is kept in ~/.cache/pyplue: about a minute for each "
        "platform the first time.",
    )
    parser.add_argument(
        "targets",
        nargs="*",
        metavar="PLATFORM",
        help=f"all when left out: {', '.join(target.name for target in TARGETS)}",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder, default dist")
    arguments = parser.parse_args(argv)
    known = {target.name: target for target in TARGETS}
    if unknown := sorted({*arguments.targets} - {*known}):
        parser.error(f"no platform is called {unknown[0]}: {', '.join(known)}")
    try:
        made = release([known[name] for name in arguments.targets] or [*TARGETS], arguments.out)
    except ReleaseError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    for path in made:
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.name}")
    return 0


def release(targets: list[Target], out: Path) -> list[Path]:
    """Makes and checks the files for `targets` in `out`, in place of an earlier release's there."""
    zig = subprocess.run([compiler(), "version"], capture_output=True, text=True).stdout.strip()
    if zig != REQUIRED_ZIG:
        raise ReleaseError(f"a release is made with Zig {REQUIRED_ZIG}, not {zig}: unset PY_ZIG")
    epoch = source_date_epoch()
    out.mkdir(parents=True, exist_ok=True)
    for pattern in ("pyplue-*.whl", "pyplue-*.tar.gz", "plue-*.tgz", "SHA256SUMS"):
        for earlier in out.glob(pattern):
            earlier.unlink()
    sdist = build_sdist(out, epoch)
    checks.check_sdist(sdist, tracked_files())
    made = [sdist]
    for target in targets:
        start = time.monotonic()
        wheel = build_wheel(target, out, epoch)
        archive = archives.write_archive(wheel, target, out, epoch)
        checks.check_wheel(wheel, target)
        checks.check_archive(archive, target)
        checks.check_libcrypto(target.triple)
        made += [wheel, archive]
        print(f"{target.name}: made and checked in {time.monotonic() - start:.0f} s", flush=True)
    sums = out / "SHA256SUMS"
    sums.write_text(
        "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in made)
    )
    return [*made, sums]


def source_date_epoch() -> int:
    """Seconds since 1970 that stand for the time of the release in every file."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    question = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    answer = subprocess.run(question, capture_output=True, text=True)
    return int(answer.stdout) if answer.returncode == 0 else 315532800  # 1980, zip's oldest


def tracked_files() -> set[str] | None:
    """What git knows of the tree, or None where the tree is a copy without git."""
    question = ["git", "-C", str(ROOT), "ls-files", "-z"]
    answer = subprocess.run(question, capture_output=True, text=True)
    top = ["git", "-C", str(ROOT), "rev-parse", "--show-prefix"]
    inside = subprocess.run(top, capture_output=True, text=True)
    if inside.returncode != 0 or inside.stdout.strip():
        print("not a git repository: the sdist may hold files that are not part of it")
        return None
    return {*answer.stdout.split("\0")}


def build_wheel(target: Target, out: Path, epoch: int) -> Path:
    """The wheel for `target`, with everything linked statically that a user may not have."""
    libssh = sources.unpacked(sources.LIBSSH)
    # What setuptools left of an earlier build would get into this wheel.
    for leftover in ("lib", "scripts", "bdist"):
        for path in (ROOT / "build" / target.triple).glob(f"{leftover}*"):
            shutil.rmtree(path)
    settings = {
        "target": target.triple,
        "libssh": str(libssh),
        "libcrypto": str(libcrypto.built(target.triple)),
    }
    with tempfile.TemporaryDirectory() as folder:
        _pip(
            ["wheel", "--no-deps", "--no-build-isolation", "-w", folder, str(ROOT)]
            + [f"-C{name}={value}" for name, value in settings.items()],
            epoch,
        )
        [wheel] = Path(folder).glob("*.whl")
        archives.settle_wheel(wheel, epoch)
        return Path(shutil.move(wheel, out / wheel.name))


def build_sdist(out: Path, epoch: int) -> Path:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", folder]
        _run([*command, str(ROOT)], epoch)
        [sdist] = Path(folder).glob("*.tar.gz")
        archives.settle_sdist(sdist, epoch)
        return Path(shutil.move(sdist, out / sdist.name))


def _pip(words: list[str], epoch: int) -> None:
    _run([sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *words], epoch)


def _run(command: list[str], epoch: int) -> None:
    done = subprocess.run(
        command,
        env=environment(SOURCE_DATE_EPOCH=str(epoch)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode != 0:
        raise ReleaseError(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
