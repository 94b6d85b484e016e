"""The single checks of `doctor`. None of them changes anything."""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pyplue.errors import PlueError
from pyplue.ssh.admin.host_key import read_host_key
from pyplue.ssh.admin.state import State
from pyplue.ssh.doctor import advisories, handshake
from pyplue.ssh.errors import SshConfigError, SshError
from pyplue.ssh.server import GitServer, Limits, libssh_version

Status = Literal["ok", "warning", "broken"]

# Without it `repo create` does not work: git init --initial-branch.
_GIT_MIN = (2, 28)
_POST_QUANTUM = ("mlkem", "sntrup")
_DISK_MIN_BYTES = 1 << 30
# What a connection with a git at work holds open: socket, epoll's copy of it, pipes, process.
_DESCRIPTORS_EACH = 8


@dataclass(frozen=True)
class Place:
    """What is to be checked: a state directory, and the options that `serve` would get."""

    state: State
    host: str
    port: int
    host_key: Path
    settings: Limits


@dataclass(frozen=True)
class Check:
    """What was found; `cure` unless it is well; `details` are for machines."""

    area: str
    status: Status
    text: str
    cure: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def all_checks(place: Place) -> Iterator[Check]:
    """Every check, each of which may find several things."""
    offer, problem = _offered(place)
    yield from libssh(offer)
    if problem is not None:
        yield problem
    if offer is not None:
        yield algorithms(offer)
    yield from host_keys(place)
    yield from repositories(place)
    yield git(place)
    yield from database(place)
    yield port(place)
    yield from process(place)


def _offered(place: Place) -> tuple[handshake.Offer | None, Check | None]:
    """Starts the server on a loopback port for a moment, with these settings and no user."""
    with tempfile.TemporaryDirectory() as folder:
        root, key = place.state.repositories, place.host_key
        settings: Limits = {**place.settings, "drain_timeout_s": 0}
        settings.pop("proxy_protocol_from", None)
        server = GitServer(
            root if root.is_dir() else folder,
            port=0,
            host_key=key if os.path.lexists(key) else Path(folder, "key"),
            **settings,
        )
        try:
            with server:
                return handshake.ask("127.0.0.1", server.port), None
        except (SshError, SshConfigError, OSError) as error:
            cure = "serve will not start before that is right"
            return None, Check("server", "broken", str(error), cure)


def libssh(offer: handshake.Offer | None) -> Iterator[Check]:
    version, package = libssh_version(), advisories.package()
    gcm = offer is not None and any("gcm" in cipher for cipher in offer.ciphers)
    verdicts = {
        hole: advisories.verdict(hole, version, package, gcm_offered=gcm)
        for hole in advisories.HOLES
    }
    origin = f" (package {package.name} {package.version})" if package else ""
    still_open = [hole for hole, verdict in verdicts.items() if verdict in ("open", "avoided")]
    left = f"{len(still_open)} of them not known to be fixed" if still_open else "all fixed"
    yield Check(
        "libssh",
        "ok",
        f"{version}{origin}: {len(verdicts)} known holes, {left}",
        details={
            "version": version,
            "package": package and f"{package.name} {package.version}",
            "holes": [
                {"cve": hole.cve, "what": hole.what, "fixed_in": hole.fixed, "verdict": verdict}
                for hole, verdict in verdicts.items()
            ],
        },
    )
    for hole in still_open:
        text = f"{hole.cve}: {hole.what}; fixed in libssh {hole.fixed}"
        if verdicts[hole] == "avoided":
            yield Check("libssh", "ok", f"{text}; this server {hole.avoided}")
        elif advisories.is_bundled():
            status: Status = "broken" if hole.severe else "warning"
            yield Check("libssh", status, text, "install a newer pyplue: libssh is inside it")
        else:
            yield Check(
                "libssh",
                "warning",
                text,
                "your distribution may have fixed it under this number: see its changelog"
                " (apt-get changelog libssh-4), update, or use a release wheel",
            )


def algorithms(offer: handshake.Offer) -> Check:
    quantum = [name for name in offer.kex if name.startswith(_POST_QUANTUM)]
    text = f"{', '.join(_shown(offer.kex))}; {', '.join(offer.ciphers)}"
    details = offer._asdict()
    if quantum:
        return Check("algorithms", "ok", f"post-quantum key exchange: {text}", details=details)
    return Check(
        "algorithms",
        "warning",
        f"no post-quantum key exchange: {text}",
        "what is recorded today may be read in some decades: libssh 0.12 has mlkem768x25519-sha256",
        details,
    )


def _shown(kex: list[str]) -> list[str]:
    """Without the marks that are no algorithms (RFC 8308, Terrapin's cure)."""
    return [name for name in kex if not name.startswith(("ext-info-", "kex-strict-"))]


def host_keys(place: Place) -> Iterator[Check]:
    for path in [place.host_key, *map(Path, place.settings.get("host_keys", []))]:
        try:
            status = path.stat()
        except FileNotFoundError:
            text = f"there is no {path} yet"
            yield Check("host key", "warning", text, "serve makes it at its first start")
            continue
        except OSError as error:
            yield Check("host key", "broken", f"{path}: {error.strerror}", "run it as its owner")
            continue
        if status.st_mode & 0o077:
            text = f"others can read {path}: it is no secret any more"
            yield Check(
                "host key", "broken", text,
                f"make a new one, or chmod 600 {path} if nobody else has been on this machine",
            )  # fmt: skip
            continue
        try:
            key = read_host_key(path)
        except PlueError as error:
            yield Check("host key", "warning", str(error), "see ssh-keygen -lf")
        else:
            details = {"path": str(path), "fingerprint": key.fingerprint, "type": key.type}
            text = f"{key.fingerprint} {key.type} {key.bits} bits, {path}"
            yield Check("host key", "ok", text, details=details)


def repositories(place: Place) -> Iterator[Check]:
    root = place.state.repositories
    area = "repositories"
    try:
        status = root.stat()
    except FileNotFoundError:
        text = f"there is no {root} yet"
        yield Check(area, "warning", text, "serve or repo create make it")
        return
    except OSError as error:
        yield Check(area, "broken", f"{root}: {error.strerror}", "run it as their owner")
        return
    if not stat.S_ISDIR(status.st_mode):
        yield Check(area, "broken", f"{root} is no directory", "name another one with --repos")
        return
    link = f", a link to {root.resolve()}" if root.is_symlink() else ""
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        yield Check(
            area, "broken", f"{root} cannot be written", "run the server as the directory's owner"
        )
        return
    free = shutil.disk_usage(root).free
    details = {"path": str(root), "free_bytes": free}
    yield Check(area, "ok", f"{root}{link}, {free >> 20:,} MiB free", details=details)
    if status.st_mode & stat.S_IWOTH:
        yield Check(area, "warning", f"everybody can write {root}", f"chmod o-w {root}")
    if status.st_uid != os.geteuid():
        text = f"{root} belongs to user number {status.st_uid}, not to who runs this"
        yield Check(area, "warning", text, "run the server as the directory's owner")
    if free < _DISK_MIN_BYTES:
        yield Check(area, "warning", f"{root} is nearly full", "pushes fail once it is: make room")


def git(place: Place) -> Check:
    name = place.settings.get("git", "git")
    path = shutil.which(name)
    if path is None:
        return Check("git", "broken", f"{name} is not to be found", "install git, or --set git=")
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("git", "broken", f"{path} does not run: {error}", "install git")
    found = re.search(r"(\d+)\.(\d+)[\w.-]*", done.stdout)
    if done.returncode or not found:
        return Check("git", "broken", f"{path} is no git", "install git, or --set git=")
    details = {"path": path, "version": found[0]}
    if (int(found[1]), int(found[2])) < _GIT_MIN:
        text = f"{path} is git {found[0]}"
        return Check("git", "warning", text, "repo create needs 2.28 or later", details)
    return Check("git", "ok", f"{found[0]}, {path}", details=details)


def database(place: Place) -> Iterator[Check]:
    try:
        from pyplue.ssh.doctor.database import database_checks  # needs SQLAlchemy
    except ModuleNotFoundError as error:
        yield Check(
            "database", "broken", f"{error.name} is not installed", "pip install 'pyplue[ssh]'"
        )
        return
    try:
        for status, text, cure, details in database_checks(place.state):
            yield Check("database", status, text, cure, details)
    except PlueError as error:
        yield Check("database", "broken", str(error), "nobody is let in without it: start it")


def port(place: Place) -> Check:
    where = f"{place.host} port {place.port}"
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((place.host, place.port))
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _who_is_there(place, where)
        cures = {
            errno.EACCES: "ports below 1024 are root's: use another, or a service manager",
            errno.EADDRNOTAVAIL: "that is no address of this machine: use one that is, or 0.0.0.0",
        }
        cure = cures.get(error.errno or 0, "use another address or port")
        return Check("port", "broken", f"{where}: {error.strerror}", cure)
    return Check("port", "ok", f"{where} is free")


def _who_is_there(place: Place, where: str) -> Check:
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (recognised, not bound)
    proxy = bool(place.settings.get("proxy_protocol_from"))
    try:
        host = loopback.get(place.host, place.host)
        banner = handshake.ask(host, place.port, through_proxy=proxy).banner
    except (OSError, PlueError):
        banner = ""
    if banner == "SSH-2.0-plue":
        return Check("port", "ok", f"{where}: a server is running")
    text = f"{where} is in use" + (f" by {banner}" if banner else "")
    return Check("port", "broken", text, "stop that program, or use another --port")


def process(place: Place) -> Iterator[Check]:
    if os.geteuid() == 0:
        yield Check(
            "process", "warning", "this is root, and so would be git and its hooks",
            "run the server as a user of its own",
        )  # fmt: skip
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = place.settings.get("max_connections", 4096)
    if most != resource.RLIM_INFINITY and most < wanted * _DESCRIPTORS_EACH:
        yield Check(
            "process", "warning",
            f"{most:,} descriptors are enough for {most // _DESCRIPTORS_EACH:,} connections with a "
            f"git at work, not for {wanted:,}",
            "raise LimitNOFILE= or ulimit -Hn, or lower max_connections",
        )  # fmt: skip
    directory = place.state.directory
    if directory.is_dir() and directory.stat().st_mode & 0o022:
        yield Check("process", "broken", f"others can write {directory}", f"chmod 700 {directory}")
