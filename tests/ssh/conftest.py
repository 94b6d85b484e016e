"""One forge for all SSH tests, and a server for those that need no settings of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .forge import HERE, PEERS, Forge, LoadClient, Server, Sshd, serve, sshd
from .postgres import Postgres
from .serving import Team

SERVERS = ["table", "callback", "queue", *PEERS]


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory, need: Callable[[str], str]) -> Forge:
    for program in ("git", "ssh", "ssh-keygen"):
        need(program)
    return Forge(tmp_path_factory.mktemp("forge"))


@pytest.fixture(scope="module")
def server(forge: Forge) -> Iterator[Server]:
    """A server whose decisions come from the key table."""
    with serve(forge) as running:
        yield running


@pytest.fixture(scope="module", params=SERVERS)
def any_server(
    request: pytest.FixtureRequest, forge: Forge, need: Callable[[str], str]
) -> Iterator[Server | Sshd]:
    """The same tests for every way a decision can be made."""
    if request.param == "queue":
        need("bun")
    context = sshd(forge) if request.param == "sshd" else serve(forge, request.param)
    with context as running:
        yield running


@pytest.fixture(scope="session")
def zig_cc() -> list[str]:
    """The C compiler that builds what tests need in C."""
    return [sys.executable, "-m", "ziglang", "cc", "-O2", "-Wall", "-Wextra", "-Werror"]


@pytest.fixture(scope="session")
def load_client(tmp_path_factory: pytest.TempPathFactory, zig_cc: list[str]) -> LoadClient:
    """load_client.c, built."""
    program = tmp_path_factory.mktemp("load") / "load_client"
    source = str(HERE / "load_client.c")
    subprocess.run([*zig_cc, "-o", str(program), source, "-lssh", "-lpthread"], check=True)
    return LoadClient(program)


@pytest.fixture(scope="session")
def postgres(need: Callable[[str], str]) -> Iterator[Postgres]:
    """A PostgreSQL server of our own."""
    server = Postgres(need("initdb"), need("postgres"))
    yield server
    server.remove()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database: the same tests for both kinds."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/forge.sqlite"
    else:
        server: Postgres = request.getfixturevalue("postgres")
        url = server.new_database()
        yield url
        server.drop(url)


@pytest.fixture
def team(forge: Forge, tmp_path: Path) -> Team:
    """A state directory with users, keys and a repository, in SQLite."""
    return Team(forge, tmp_path)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """An empty directory for one test's clones."""
    return tmp_path
