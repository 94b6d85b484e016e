"""Far clients: 50 and 170 ms of round trip, beside OpenSSH's sshd in the same run.

`./dev bench ssh_far` measures with larger repositories; here nothing asserts the rates.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .delayed_link import SERVER_ADDRESS, DelayedLink, delayed_link, permitted
from .forge import Client, Forge, serve, sshd

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


@contextmanager
def far_servers(forge: Forge, round_trip_ms: float) -> Iterator[tuple[DelayedLink, dict]]:
    with delayed_link(round_trip_ms) as link, ExitStack() as stack:
        enter = ("ip", "netns", "exec", link.server)
        servers = {
            "plue_ssh": serve(forge, prefix=enter, host=SERVER_ADDRESS),
            "sshd": sshd(forge, prefix=enter, address=SERVER_ADDRESS),
        }
        yield link, {label: stack.enter_context(server) for label, server in servers.items()}


@pytest.mark.parametrize("round_trip_ms", [50, 170])
def test_a_far_client_clones_and_pushes(forge: Forge, work: Path, round_trip_ms: int):
    if reason := permitted():
        pytest.skip(reason)
    with far_servers(forge, round_trip_ms) as (link, servers):
        for label, server in servers.items():
            place = work / f"{label}-{round_trip_ms}"
            place.mkdir()
            clone_and_push(FarClient(server, link, place), f"alice/{place.name}", 2)


def clone_and_push(client: FarClient, name: str, megabytes: int) -> tuple[float, float]:
    """Seconds both ways. All is packed beforehand, so that the network is measured and not git's
    compression. Each repository is served once: git would find there what it pushes again."""
    forge = client.forge
    there = packed(forge, name, megabytes)
    forge.git("config", "receive.unpackLimit", "1", cwd=there)
    begun = time.monotonic()
    client.clone(name, "clone.git", "--bare")
    cloned = time.monotonic() - begun
    here = packed(forge, f"{name}-more", megabytes)
    begun = time.monotonic()
    client.git("push", "-q", client.url(name), "main:refs/heads/more", cwd=here)
    pushed = time.monotonic() - begun
    assert forge.objects(here).replace("heads/main", "heads/more") in forge.objects(there)
    return cloned, pushed


def packed(forge: Forge, name: str, megabytes: int) -> Path:
    path = forge.large(name, megabytes)
    forge.git("-c", "pack.compression=0", "repack", "-adq", "--window=0", cwd=path)
    return path
