"""The sources that a release wheel links statically: which, from where, with which checksums.

Both come as Debian source packages: the upstream release as it was published, and Debian's security
fixes on top of it. `apt-get source` fetches them on a Debian system; on any other, put the files
into the folder that the error names. What arrives is used only when its SHA-256 is the one below.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from build_hooks.release import ReleaseError, kept


class SourceError(ReleaseError):
    """A source is missing or not the one that was pinned."""


class Source(NamedTuple):
    """One Debian source package; `files` are name and SHA-256, the upstream archive first.

    `changes` are ours: file, text that stands there once, and what it becomes.
    """

    package: str
    version: str
    files: tuple[tuple[str, str], ...]
    changes: tuple[tuple[str, str, str], ...] = ()

    @property
    def upstream(self) -> str:
        """The version that the project itself released, "3.5.7"."""
        return self.version.partition("-")[0]


LIBSSH = Source(
    "libssh",
    "0.12.2-1",
    (
        (
            "libssh_0.12.2.orig.tar.xz",
            "49560f677d96e3706a904ac2de1116e25f3680937d51e5c92198fcba4a1c1e9f",
        ),
    ),
    # What a client may send before it hears from us: 4 MB instead of 2, or pushes from far away
    # are slower than to OpenSSH's sshd. With older libssh, old_libssh.zig does the same.
    changes=(
        (
            "src/channels.c",
            "#define WINDOW_DEFAULT (64*CHANNEL_MAX_PACKET)",
            "#define WINDOW_DEFAULT (128*CHANNEL_MAX_PACKET)",
        ),
    ),
)
OPENSSL = Source(
    "openssl",
    "3.5.7-1~deb13u2",
    (
        (
            "openssl_3.5.7.orig.tar.gz",
            "a8c0d28a529ca480f9f36cf5792e2cd21984552a3c8e4aa11a24aa31aeac98e8",
        ),
        (
            "openssl_3.5.7-1~deb13u2.debian.tar.xz",
            "593a47654ead460a3b609503733f80bef552ff0802799d3b47784faacc50809f",
        ),
    ),
)
# Debian's releases that still carry these versions.
SUITES = ("trixie", "sid")


def unpacked(source: Source) -> Path:
    """The source tree of `source`, patched; fetched and unpacked when it is not there yet.

    Raises SourceError when it can be had neither from what is kept nor through apt-get.
    """
    key = hashlib.sha256(json.dumps(source).encode()).hexdigest()[:16]
    name = f"sources/{source.package}-{source.upstream}-{key}"
    return kept.folder(name, lambda work: _unpack_all(source, fetch(source), work))


def _unpack_all(source: Source, files: list[Path], work: Path) -> Path:
    _unpack(files[0], work)
    [top] = work.iterdir()
    for archive in files[1:]:
        _unpack(archive, top)
        _patch(top)
    for name, there, instead in source.changes:
        text = (top / name).read_text()
        if text.count(there) != 1:
            raise SourceError(f"{name} of {top.name} does not have '{there}' once")
        (top / name).write_text(text.replace(there, instead))
    return top


def fetch(source: Source) -> list[Path]:
    """The files of `source`, each with the pinned checksum."""
    folder = kept.root() / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / name).exists() for name, _ in source.files):
        _apt_get_source(source, folder)
    for name, expected in source.files:
        if not (folder / name).exists():
            raise SourceError(
                f"{name} is not to be had: put it into {folder}. It belongs to Debian's source "
                f"package {source.package} {source.version}, whose archive keeps every version "
                f"(snapshot.debian.org). Or pin a newer release in {__file__}"
            )
        actual = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        if actual != expected:
            raise SourceError(
                f"{folder / name} is not the pinned file: its SHA-256 is {actual}, not {expected}. "
                "Remove it and run again"
            )
    return [folder / name for name, _ in source.files]


def _apt_get_source(source: Source, folder: Path) -> None:
    """Asks the Debian mirrors that this system is set up with; leaves its own lists alone."""
    if shutil.which("apt-get") is None:
        return
    query = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Origin: Debian"]
    mirrors = sorted({*subprocess.run(query, capture_output=True, text=True).stdout.split()})
    with tempfile.TemporaryDirectory() as temporary:
        lists = Path(temporary, "lists")
        (lists / "partial").mkdir(parents=True)
        entries = Path(temporary, "sources.list")
        # Trusted for no more than the files whose checksums are known here.
        places = [f"{mirror} {suite}" for mirror in mirrors for suite in SUITES]
        entries.write_text("".join(f"deb-src [trusted=yes] {place} main\n" for place in places))
        options = ["-qq", "-o", f"Dir::Etc::sourcelist={entries}", "-o", "Dir::Etc::sourceparts=-"]
        options += ["-o", f"Dir::State::lists={lists}", "-o", "APT::Sandbox::User=root"]
        # A mirror that lacks a suite makes update end badly, while the others have answered.
        subprocess.run(["apt-get", *options, "update"], capture_output=True)
        download = ["source", "--download-only", f"{source.package}={source.version}"]
        subprocess.run(["apt-get", *options, *download], cwd=temporary, capture_output=True)
        for name, _ in source.files:
            if Path(temporary, name).exists():
                shutil.copyfile(Path(temporary, name), folder / name)


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as tar:
        # Python 3.10 and 3.11 got the filter in their later releases.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(folder, **safe)  # noqa: S202, its checksum is pinned


def _patch(tree: Path) -> None:
    """Applies Debian's patches in their order."""
    patches = tree / "debian" / "patches"
    for name in (patches / "series").read_text().split():
        with open(patches / name, "rb") as text:
            subprocess.run(
                ["patch", "-s", "-p1", "--no-backup-if-mismatch"], cwd=tree, stdin=text, check=True
            )
