"""Far clients: 50 and 170 ms of round trip, beside OpenSSH's sshd in the same run.

PLUE_SSH_FAR_MB=50 for a whole run by hand; `pytest -s` prints the rates, nothing asserts them.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from .delayed_link import SERVER_ADDRESS, delayed_link, permitted
from .forge import Client, Forge, commit, serve, sshd

FAR_MB = int(os.environ.get("PLUE_SSH_FAR_MB", "2"))

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
    name = f"alice/far-{round_trip_ms}"
    forge.large(name, FAR_MB)
    content = os.urandom(FAR_MB << 20)
    with delayed_link(round_trip_ms) as link:
        enter = ("ip", "netns", "exec", link.server)
        servers = {
            "plue_ssh": lambda: serve(forge, prefix=enter, host=SERVER_ADDRESS),
            "sshd": lambda: sshd(forge, prefix=enter, address=SERVER_ADDRESS),
        }
        for label, context in servers.items():
            place = work / label
            place.mkdir()
            with context() as server:
                client = FarClient(server, link, place)
                begun = time.monotonic()
                clone = client.clone(name, "clone")
                cloned = time.monotonic()
                pushed = commit(forge, clone, "more.bin", content)
                committed = time.monotonic()
                client.git("push", "-q", "origin", f"main:refs/heads/{label}", cwd=clone)
                done = time.monotonic()
            rates = FAR_MB / (cloned - begun), FAR_MB / (done - committed)
            print(
                f"{round_trip_ms} ms, {label}: clone {rates[0]:.1f} MB/s, push {rates[1]:.1f} MB/s"
            )
            assert f"refs/heads/{label} {pushed}" in forge.objects(
                forge.repositories / f"{name}.git"
            )
