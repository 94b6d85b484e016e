"""Files of a release that are the same bytes each time: wheels, the sdist, the bare archives."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

from build_hooks.release.targets import Target
from build_hooks.zig import ROOT


def settle_wheel(wheel: Path, epoch: int) -> None:
    """Rewrites `wheel` with sorted entries, one time for all, plain modes and the best compression.

    What its RECORD says of the files stays true: their contents are not touched.
    """
    when = time.gmtime(epoch)[:6]
    with zipfile.ZipFile(wheel) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    # The metadata goes last, as the wheel format recommends.
    names = sorted(contents, key=lambda name: (".dist-info/" in name, name))
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, when)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix: the mode counts
            entry.external_attr = (0o100755 if ".data/scripts/" in name else 0o100644) << 16
            archive.writestr(entry, contents[name], compresslevel=9)


def settle_sdist(sdist: Path, epoch: int) -> None:
    """Rewrites the .tar.gz `sdist` with sorted entries, one time for all and nobody's name."""
    with tarfile.open(sdist) as archive:
        files = {
            member.name: (archive.extractfile(member).read(), member.mode)  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.isfile()
        }
    _write_tar_gz(sdist, files, epoch)


def write_archive(wheel: Path, target: Target, folder: Path, epoch: int) -> Path:
    """The archive for people without Python, made of the contents of `wheel`.

    It unpacks to package/, as npm's do: `bun add ./plue-0.1.0-linux-x64.tgz` installs it.
    """
    files: dict[str, tuple[bytes, int]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            path = Path(name)
            if name.startswith("pyplue/_native/"):
                place, mode = f"lib/{path.name}", 0o755
            elif ".data/scripts/" in name:
                place, mode = f"bin/{path.name}", 0o755
            elif ".dist-info/licenses/" in name:
                place, mode = f"licenses/{name.partition('.dist-info/licenses/')[2]}", 0o644
            else:
                continue
            files[place] = (archive.read(name), mode)
    for header in sorted(ROOT.glob("zig/*/include/*.h")):
        files[f"include/{header.name}"] = (header.read_bytes(), 0o644)
    manifest = json.loads((ROOT / "bun" / "package.json").read_text())
    for pattern in manifest["files"]:
        for source in sorted((ROOT / "bun").glob(pattern)):
            if not source.name.endswith(".test.ts"):
                files[source.name] = (source.read_bytes(), 0o644)
    programs = sorted(Path(name).name for name in files if name.startswith("bin/"))
    files["package.json"] = (_package_json(manifest, target, programs), 0o644)
    path = folder / f"plue-{manifest['version']}-{target.name}.tgz"
    _write_tar_gz(path, {f"package/{name}": entry for name, entry in files.items()}, epoch)
    return path


def _package_json(manifest: dict[str, Any], target: Target, programs: list[str]) -> bytes:
    """The manifest of bun/, for one platform and without what only its development needs."""
    kept = {key: value for key, value in manifest.items() if key not in ("private", "files")}
    kept.pop("devDependencies")
    kept["bin"] = {name: f"bin/{name}" for name in programs}
    kept |= target.npm
    return (json.dumps(kept, indent=2) + "\n").encode()


def _write_tar_gz(path: Path, files: dict[str, tuple[bytes, int]], epoch: int) -> None:
    with (
        open(path, "wb") as raw,
        gzip.GzipFile("", "wb", compresslevel=9, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(files):
            content, mode = files[name]
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.mode = (
                len(content),
                epoch,
                0o755 if mode & 0o100 else 0o644,
            )
            archive.addfile(entry, io.BytesIO(content))
