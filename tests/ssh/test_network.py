"""Far clients: 50 and 170 ms of round trip, beside OpenSSH's sshd in the same run.

PLUE_SSH_FAR_MB=40 and PLUE_SSH_FAR_ROUNDS=3 for a whole run by hand; `pytest -s` prints the rates,
nothing asserts them.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from .delayed_link import SERVER_ADDRESS, delayed_link, permitted
from .forge import Client, Forge, serve, sshd

FAR_MB = int(os.environ.get("PLUE_SSH_FAR_MB", "2"))
FAR_ROUNDS = int(os.environ.get("PLUE_SSH_FAR_ROUNDS", "1"))

pytestmark = pytest.mark.timeout(1800)


class FarClient(Client):
    """git in the namespace at the other end of the link."""

    def __init__(self, server, link, directory: Path) -> None:
        super().__init__(server, directory=directory)
        hosts = directory / "known_hosts"
        host = f"[{SERVER_ADDRESS}]:{server.port} {self.forge.keys['host'].line}\n"
        hosts.write_text(host)
        enter = ["ip", "netns", "exec", link.client]
        known = f"UserKnownHostsFile={hosts}"
        self.ssh_command = [*enter, self.ssh_command[0], "-o", known, *self.ssh_command[1:]]

    def url(self, repository: str) -> str:
        return f"ssh://{self.user}@{SERVER_ADDRESS}:{self.server.port}/{repository}"

    def environment(self, protocol: int = 2) -> dict[str, str]:
        return super().environment(protocol) | {"GIT_SSH_VARIANT": "ssh"}


@pytest.mark.parametrize("round_trip_ms", [50, 170])
def test_a_far_client_clones_and_pushes(forge: Forge, work: Path, round_trip_ms: int):
    if reason := permitted():
        pytest.skip(reason)
    with delayed_link(round_trip_ms) as link, ExitStack() as stack:
        enter = ("ip", "netns", "exec", link.server)
        servers = {
            "plue_ssh": serve(forge, prefix=enter, host=SERVER_ADDRESS),
            "sshd": sshd(forge, prefix=enter, address=SERVER_ADDRESS),
        }
        running = {label: stack.enter_context(server) for label, server in servers.items()}
        for number in range(FAR_ROUNDS):
            for label, server in running.items():
                place = work / f"{label}-{number}"
                place.mkdir()
                client = FarClient(server, link, place)
                rates = clone_and_push(client, f"alice/far-{round_trip_ms}-{label}-{number}")
                print(
                    f"\n{round_trip_ms} ms, {label}: clone {rates[0]:.1f}, push {rates[1]:.1f} MB/s"
                )


def clone_and_push(client: FarClient, name: str) -> tuple[float, float]:
    """MB/s both ways. All is packed beforehand, so that the network is measured and not git's
    compression. Each repository is served once: git would find there what it pushes again."""
    forge = client.forge
    there = packed(forge, name)
    forge.git("config", "receive.unpackLimit", "1", cwd=there)
    begun = time.monotonic()
    client.clone(name, "clone.git", "--bare")
    cloned = time.monotonic() - begun
    here = packed(forge, f"{name}-more")
    begun = time.monotonic()
    client.git("push", "-q", client.url(name), "main:refs/heads/more", cwd=here)
    pushed = time.monotonic() - begun
    assert forge.objects(here).replace("heads/main", "heads/more") in forge.objects(there)
    return FAR_MB / cloned, FAR_MB / pushed


def packed(forge: Forge, name: str) -> Path:
    path = forge.large(name, FAR_MB)
    forge.git("-c", "pack.compression=0", "repack", "-adq", "--window=0", cwd=path)
    return path
