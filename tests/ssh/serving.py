"""`python -m pyplue.ssh` as people run it: a state directory with a team, and `serve` on it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyplue.ssh.admin.main import main
from pyplue.ssh.public_keys import parse_key
from pyplue.ssh.store import Store

from .forge import COMMAND_TIMEOUT_S, Client, Forge, Server, known_hosts

PROGRAM = [sys.executable, "-m", "pyplue.ssh"]
LARGE_MB = 12
"""More than is on its way at any time."""


def run(
    *words: str | Path, input: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [*PROGRAM, *map(str, words)],
        input=input,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        env={**os.environ, **environment},
    )


class Team:
    """A state directory: alice owns alice/project with some history, bob is another user."""

    def __init__(self, forge: Forge, directory: Path, database: str | None = None) -> None:
        self.forge = forge
        self.directory = directory
        self.state = directory / "state"
        self.state.mkdir(mode=0o700)
        self.repositories = self.state / "repositories"
        self.database = database or str(self.state / "plue.sqlite")
        self.options = ["--state", str(self.state)]
        if database:
            self.options += ["--database", database]
        shutil.copyfile(forge.keys["host"].private, self.state / "ssh_host_ed25519_key")
        (self.state / "ssh_host_ed25519_key").chmod(0o600)
        self.store = Store(self.database, self.repositories)
        for name in ("alice", "bob"):
            self.store.users.add(name)
            self.store.keys.add(name, forge.keys[name].line)
        shutil.copytree(forge.directory / "template.git", self.path("alice/project"))
        self.store.repositories.create("alice/project", adopt=True)

    def path(self, repository: str) -> Path:
        return self.repositories / f"{repository}.git"

    def fingerprint(self, name: str) -> str:
        return parse_key(self.forge.keys[name].line).fingerprint

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        return run(*self.options, *words)

    def ask(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """The same within this process, which takes no time."""
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            try:
                status = main([*self.options, *map(str, words)])
            except SystemExit as end:
                status = int(end.code or 0)
        return subprocess.CompletedProcess(words, status, out.getvalue(), errors.getvalue())

    def large(self, repository: str, megabytes: int = LARGE_MB) -> None:
        """A repository that takes a while to clone."""
        source = self.forge.repositories / f"large/serving-{megabytes}.git"
        if not source.exists():
            self.forge.large(f"large/serving-{megabytes}", megabytes)
        shutil.copytree(source, self.path(repository))
        self.store.repositories.create(repository, adopt=True)


class Serving(Server):
    """`serve` on a team's state directory. What it logs goes to a file, as JSON."""

    def __init__(self, team: Team, *options: str, prefix: tuple[str, ...] = ()) -> None:
        self.team = team
        self.forge = team.forge
        self.stderr = team.directory / f"serve-{time.monotonic_ns()}.log"
        words = [*PROGRAM, *team.options, "serve", "--json", "--log-format", "json"]
        port = [] if "--port" in options else ["--port", "0"]
        with self.stderr.open("w") as stderr:
            self.process = subprocess.Popen(
                [*prefix, *words, *port, *options],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        line = self.process.stdout.readline()
        assert line, f"the server did not start: {self.stderr.read_text()}"
        self.hello = json.loads(line)
        self.port, self.pid = self.hello["port"], self.hello["pid"]
        self.known_hosts = known_hosts(self.forge, self.port)

    def lines(self, log: str | None = None) -> list[dict[str, Any]]:
        """What it has logged so far."""
        lines = [json.loads(line) for line in self.stderr.read_text().splitlines()]
        return [line for line in lines if log is None or line["log"] == log]

    def wait_for_line(self, log: str, message: str = "", **fields: object) -> dict[str, Any]:
        """The newest line with those fields, waited for up to twenty seconds."""
        deadline = time.monotonic() + 20
        while True:
            for line in reversed(self.lines(log)):
                if fields.items() <= line.items() and message in line.get("message", ""):
                    return line
            assert time.monotonic() < deadline, f"no {log} {message} {fields} in {self.lines()}"
            time.sleep(0.02)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def gits(self) -> list[int]:
        """The gits at work for clients, whichever thread has started them."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]


@contextmanager
def serving(team: Team, *options: str, prefix: tuple[str, ...] = ()) -> Iterator[Serving]:
    """Ends with SIGTERM and status 0, unless the test has ended it."""
    server = Serving(team, *options, prefix=prefix)
    try:
        yield server
        if server.process.poll() is None:
            assert server.end() == 0, server.stderr.read_text()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()
        server.process.stdout.close()


class Frozen:
    """git and its ssh, stopped in the middle of what they do until `thaw`."""

    def __init__(self, client: Client, *words: str | Path, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            ["git", *map(str, words)],
            cwd=cwd or client.directory,
            env=client.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def freeze_when(self, ready: Callable[[], bool]) -> None:
        wait_until(ready)
        os.killpg(self.process.pid, signal.SIGSTOP)
        assert self.process.poll() is None, "it was over too soon"

    def thaw(self) -> tuple[int, str]:
        """Its exit status and messages."""
        os.killpg(self.process.pid, signal.SIGCONT)
        _, messages = self.process.communicate(timeout=COMMAND_TIMEOUT_S)
        return self.process.returncode, messages


def wait_until(ready: Callable[[], object], what: str = "it") -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)


def received(folder: Path, more_than: int = 1 << 20) -> bool:
    """Whether a pack is on its way into this repository."""
    packs = [*folder.glob("objects/pack/tmp_*"), *folder.glob("objects/*/pack/tmp_*")]
    return any(pack.stat().st_size > more_than for pack in packs)
