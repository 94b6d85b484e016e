"""The executable plue-ssh: serves, reads its keys again on SIGHUP, ends well, and under valgrind.

PLUE_SSH_VALGRIND=100 runs it under valgrind while that many clients are killed at random moments;
PLUE_SSH_PROGRAM names a program for it that knows of valgrind (zig build -Dvalgrind
-Doptimize=ReleaseSafe in zig/ssh): without, Zig reads strings in vectors, beyond their ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .forge import Client, Forge, Server, commit, known_hosts
from .test_load import kill_clients

PROGRAM = os.environ.get("PLUE_SSH_PROGRAM") or str(Path(sysconfig.get_path("scripts"), "plue-ssh"))
UNDER_VALGRIND = int(os.environ.get("PLUE_SSH_VALGRIND", "0"))


class Command(Server):
    """plue-ssh as a Server: what it knows of itself are its events on standard output."""

    def __init__(self, forge: Forge, directory: Path, *prefix: str) -> None:
        self.forge = forge
        self.directory = directory
        config = {
            "repositories": str(forge.repositories),
            "kill_grace_s": 2,
            "drain_timeout_s": 1,
            "push_queue": 64,
        }
        (directory / "config.json").write_text(json.dumps(config))
        self.write_keys(forge.people())
        self._events = directory / "events.jsonl"
        host_key = str(forge.keys["host"].private)
        words = ["--config", str(directory / "config.json"), "--keys", str(directory / "keys.json")]
        self.stderr = directory / "stderr"
        with self._events.open("w") as events, self.stderr.open("w") as errors:
            self.process = subprocess.Popen(
                [*prefix, PROGRAM, "serve", *words, "--host-key", host_key, "--port", "0"],
                stdout=events,
                stderr=errors,
            )
        self.pid = self.process.pid
        self.port = self.wait_for("listening")["port"]
        self.known_hosts = known_hosts(forge, self.port)

    def write_keys(self, people: dict) -> None:
        rows = [{"principal": name, **person} for name, person in people.items()]
        (self.directory / "keys.json").write_text(json.dumps(rows))

    def settled(self, **_: int) -> dict[str, int]:
        deadline = time.monotonic() + 60
        while len(self.events("disconnected")) < len(self.events("accepted")) or self.children():
            assert time.monotonic() < deadline, self.children()
            time.sleep(0.1)
        return {}

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)


@contextmanager
def command(forge: Forge, directory: Path, *prefix: str) -> Iterator[Command]:
    server = Command(forge, directory, *prefix)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def test_it_serves_and_ends_well(forge: Forge, work: Path):
    with command(forge, work) as server:
        client = Client(server, directory=work)
        clone = client.clone("alice/project", "clone")
        pushed = commit(forge, clone, "by the command")
        client.git("push", "-q", "origin", "main:refs/heads/by-the-command", cwd=clone)
        assert server.end() == 0
        assert server.events("stopped")
        [push] = server.events("push")
        assert push["updates"] == [
            {"ref": "refs/heads/by-the-command", "old": "0" * 40, "new": pushed}
        ]
        assert server.stderr.read_text() == ""


def test_sighup_reads_the_keys_again(forge: Forge, work: Path):
    with command(forge, work) as server:
        client = Client(server)
        assert client.git("ls-remote", client.url("alice/project"))
        people = forge.people()
        del people["alice"]
        server.write_keys(people)
        server.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while client.ssh("id").returncode != 255:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert server.end() == 0


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 2, "a command is missing"),
        (["fly"], 2, "fly"),
        (["serve"], 2, "--config is missing"),
        (["serve", "--config", "/nowhere"], 2, "--keys is missing"),
        (["serve", "--config", "/nowhere", "--keys", "/nowhere"], 1, "/nowhere"),
        (["serve", "--port", "70000"], 2, "70000"),
        (["serve", "--colour", "red"], 2, "--colour"),
    ],
)
def test_wrong_words_are_explained(words, status, says):
    answer = subprocess.run([PROGRAM, *words], capture_output=True, text=True)
    assert answer.returncode == status
    assert says in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "panic" not in answer.stderr


@pytest.mark.timeout(900)
@pytest.mark.skipif(not UNDER_VALGRIND, reason="PLUE_SSH_VALGRIND=100 runs it")
def test_valgrind_finds_no_error_while_clients_are_killed(forge: Forge, work: Path, need):
    log = work / "valgrind.log"
    valgrind = [need("valgrind"), "--error-exitcode=99", "--leak-check=full"]
    valgrind += ["--errors-for-leak-kinds=definite", f"--log-file={log}"]
    with command(forge, work, *valgrind) as server:
        kill_clients(forge, server, work, UNDER_VALGRIND, 1.5)
        client = Client(server)
        assert client.git("ls-remote", client.url("alice/project"))
        assert server.end() == 0, log.read_text()[-6000:]
    print(log.read_text()[-1200:])
