"""SSH clients that nobody here wrote, each under the real git: they clone, push and fetch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pygit2
import pytest
from ssh.forge import PEERS, Client, Forge, Server, Sshd, commit, serve, sshd

CLIENTS = Path(__file__).resolve().parent / "ssh_clients"


@pytest.fixture(scope="module")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Forge:
    return Forge(tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="module", params=["plue", *PEERS])
def server(request: pytest.FixtureRequest, forge: Forge) -> Iterator[Server | Sshd]:
    with serve(forge) if request.param == "plue" else sshd(forge) as running:
        yield running


def dropbear_key(forge: Forge) -> str:
    """Dropbear reads private keys in a format of its own."""
    converted = forge.directory / "alice.dropbear"
    if not converted.exists():
        source = forge.keys["alice"].private
        command = ["dropbearconvert", "openssh", "dropbear", str(source), str(converted)]
        subprocess.run(command, check=True, capture_output=True)
    return str(converted)


def command_of(name: str, client: Client) -> list[str]:
    """What stands in the place of `ssh`."""
    key = str(client.forge.keys["alice"].private)
    peer = [key, str(client.server.known_hosts)]
    if name == "openssh":
        return client.ssh_command
    if name == "dropbear":
        # -y -y: dbclient reads known hosts from the real home directory only.
        return ["dbclient", "-y", "-y", "-i", dropbear_key(client.forge)]
    if name in ("paramiko", "asyncssh"):
        return [sys.executable, str(CLIENTS / f"{name}_client.py"), *peer]
    runtime = name.removeprefix("ssh2-")
    return [runtime, str(CLIENTS / "ssh2_client.mjs"), *peer]


PROGRAMS = {"openssh": "ssh", "dropbear": "dbclient", "ssh2-node": "node", "ssh2-bun": "bun"}
CASES = [
    *(("openssh", protocol) for protocol in (0, 1, 2)),
    *((name, 2) for name in ("paramiko", "asyncssh", "ssh2-node", "ssh2-bun")),
    ("dropbear", 0),  # it cannot send GIT_PROTOCOL
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-v{case[1]}")
def test_a_client_clones_pushes_and_fetches(
    server: Server, forge: Forge, tmp_path: Path, need: Callable[[str], str], case
):
    name, protocol = case
    if name in PROGRAMS:
        need(PROGRAMS[name])
    repository = f"alice/{name}-{protocol}"
    bare = forge.repository(repository)
    client = Client(server, "alice", directory=tmp_path)
    client.ssh_command = command_of(name, client)
    plain = client.environment
    client.environment = lambda wanted: plain(wanted) | {"GIT_SSH_VARIANT": "ssh"}
    clone = client.clone(repository, "clone", protocol=protocol)
    assert forge.objects(clone)
    content = bytes(range(256)) * 8192
    pushed = commit(forge, clone, "two megabytes", content)
    client.git("push", "-q", "origin", "main", cwd=clone, protocol=protocol)
    assert forge.git("rev-parse", "main", cwd=bare) == pushed
    again = client.clone(repository, "again", protocol=protocol)
    assert (again / "two megabytes").read_bytes() == content
    forge.objects(again)
    client.git("fetch", "-q", cwd=clone, protocol=protocol)
    refused = client.try_git("clone", client.url("bob/private"), "no", protocol=protocol)
    assert refused.returncode != 0
    assert "plue" in refused.stderr or "not" in refused.stderr


def test_libgit2_with_libssh2_clones_and_pushes(server: Server, forge: Forge, tmp_path: Path):
    """pygit2 brings its own SSH client and its own git."""
    bare = forge.repository("alice/libgit2")
    url = Client(server).url("alice/libgit2")
    private = forge.keys["alice"].private
    pair = pygit2.Keypair(server.user, str(private.with_suffix(".pub")), str(private), "")

    class Callbacks(pygit2.RemoteCallbacks):
        def credentials(self, url, username_from_url, allowed_types):
            return pair

        def certificate_check(self, certificate, valid, host):
            return True

    clone = pygit2.clone_repository(url, str(tmp_path / "clone"), callbacks=Callbacks())
    who = pygit2.Signature("Alice", "alice@example.org")
    tree = clone.head.peel(pygit2.Tree).id
    pushed = clone.create_commit("HEAD", who, who, "By libgit2", tree, [clone.head.target])
    clone.remotes["origin"].push(["refs/heads/main"], callbacks=Callbacks())
    assert forge.git("rev-parse", "main", cwd=bare) == str(pushed)
    clone.remotes["origin"].fetch(callbacks=Callbacks())
    forge.objects(tmp_path / "clone")
