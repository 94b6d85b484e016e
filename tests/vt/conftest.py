"""One home directory for each test, and a collection of all the recordings that the tests make."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vt import players
from vt.harness import Home, Session, eventually
from vt.library import vt

# The largest recordings are decoded by their own tests; a player would take minutes for them.
LARGEST_KEPT = 2_000_000


@pytest.fixture(scope="session")
def forwarder(need: Callable[[str], str]) -> list[str]:
    """The command under test. VT_FORWARDER names another, for example the Node forwarder:
    `VT_FORWARDER="node .../dist/vibetunnel-cli fwd" pytest tests/vt`."""
    other = os.environ.get("VT_FORWARDER")
    return shlex.split(other) if other else [need("vibetunnel-fwd")]


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where a copy of every recording is kept, for asciinema to show them all at the end.

    Every process that runs tests has one: what it records, it plays.
    """
    folder = tmp_path_factory.mktemp("recordings")
    yield folder
    if player := shutil.which("asciinema"):
        players.check_all(player, folder)


@pytest.fixture
def home(forwarder: list[str], recordings: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    home = Home(forwarder)
    yield home
    name = "".join(c if c.isalnum() else "_" for c in request.node.name)[:80]
    for session in home.sessions():
        recording = session.path / "stdout"
        if not made_by_the_forwarder(session):
            continue
        if recording.is_file() and 0 < recording.stat().st_size <= LARGEST_KEPT:
            shutil.copy(recording, recordings / f"{name}-{session.id}.cast")
    home.close()


def made_by_the_forwarder(session: Session) -> bool:
    """Some tests write recordings by hand, to see how readers take bad ones."""
    try:
        return "version" in session.info
    except (OSError, ValueError, AssertionError):
        return False


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """No test of libvt_fwd leaves a session, a descriptor or a thread of the library behind."""
    before = len(os.listdir("/dev/fd"))
    yield
    eventually(lambda: vt.vt_fwd_running() == 0, what="sessions still run")
    eventually(lambda: len(os.listdir("/dev/fd")) <= before, what="descriptors are left")
