"""plue_ssh beside OpenSSH's sshd, npm's ssh2 on Bun and on Node, and asyncssh, all in one run.

    ./dev bench ssh

Every server serves the same repositories to the same clients: OpenSSH's ssh under git, and a small
libssh program for connections. curve25519 for all. Each round starts all servers anew.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncssh

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

from report import Comparison, Goal, main  # noqa: E402
from ssh.forge import Client, Forge, Sshd, known_hosts, serve, sshd  # noqa: E402

from pyplue.ssh import libssh_version  # noqa: E402

MB = 180
PARALLEL = 50
IDLE = 100
LS_REMOTE = 12


class Peer:
    """A server on another SSH library, in the shape that Client takes."""

    user = "git"

    def __init__(self, forge: Forge, command: list[str]) -> None:
        keys = forge.directory / "bench_keys"
        keys.write_text(forge.keys["alice"].line + "\n")
        host = str(forge.keys["host"].private)
        self.forge = forge
        self.process = subprocess.Popen(
            [*command, str(forge.repositories), host, str(keys)],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.port = int(self.process.stdout.readline())
        self.pid = self.process.pid
        self.known_hosts = known_hosts(forge, self.port)


@contextmanager
def peer(forge: Forge, *command: str) -> Iterator[Peer]:
    server = Peer(forge, list(command))
    try:
        yield server
    finally:
        # PyPI's node is a wrapper with the real one as its child.
        os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait()


def repository(server: object, name: str) -> str:
    """sshd has no root of its own: git's path is absolute there."""
    if isinstance(server, Sshd):
        return f"{server.forge.repositories}/{name}.git"
    return f"{name}.git"


def client_of(server: object, work: Path) -> Client:
    return Client(server, "alice", "-o", "KexAlgorithms=curve25519-sha256", directory=work)


# ---- what is measured -------------------------------------------------------------------------


def connections(server: object, program: Path) -> float:
    """Connections a second: log in, git-upload-pack of a small repository, end; 50 in parallel."""
    count = 60 if isinstance(server, Sshd) else 400
    command = f"git-upload-pack '{repository(server, 'alice/project')}'"
    key = str(server.forge.keys["alice"].private)
    words = [str(server.port), server.user, key, command, str(PARALLEL), str(count)]
    answer = subprocess.run([str(program), *words], check=True, capture_output=True, text=True)
    rate, failed = answer.stdout.split()
    if int(failed):
        raise RuntimeError(f"{failed} connections failed: {answer.stderr[:300]}")
    return float(rate)


def seconds(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def clone_rate(server: object, work: Path) -> float:
    target = work / "clone.git"
    client = client_of(server, work)
    url = client.url(repository(server, "alice/big"))
    took = seconds(lambda: client.git("clone", "-q", "--bare", url, str(target)))
    shutil.rmtree(target)
    return MB * 1e6 / took


def push_rate(server: object, work: Path, source: Path) -> float:
    client = client_of(server, work)
    bare = receiver(server.forge)
    url = client.url(repository(server, "alice/receiver"))
    took = seconds(lambda: client.git("push", "-q", url, "main", cwd=source))
    shutil.rmtree(bare)
    return MB * 1e6 / took


def receiver(forge: Forge) -> Path:
    """An empty repository that keeps what is pushed as one pack, and waits for no disk."""
    bare = forge.repository("alice/receiver", empty=True)
    forge.git("config", "receive.unpackLimit", "1", cwd=bare)
    forge.git("config", "core.fsync", "none", cwd=bare)
    return bare


def file_rates(forge: Forge, work: Path, source: Path) -> tuple[float, float]:
    """The limit: the same git without SSH."""
    target = work / "clone.git"
    big = f"file://{forge.repositories}/alice/big.git"
    cloned = seconds(lambda: forge.git("clone", "-q", "--bare", big, str(target)))
    shutil.rmtree(target)
    bare = receiver(forge)
    pushed = seconds(lambda: forge.git("push", "-q", f"file://{bare}", "main", cwd=source))
    shutil.rmtree(bare)
    return MB * 1e6 / cloned, MB * 1e6 / pushed


def ls_remote_s(server: object, work: Path) -> float:
    client = client_of(server, work)
    url = client.url(repository(server, "alice/project"))
    return statistics.median(
        seconds(lambda: client.git("ls-remote", "-q", url)) for _ in range(LS_REMOTE)
    )


def tree_bytes(pid: int) -> int:
    """Proportional set size of a process and all below it."""
    process, total = Path(f"/proc/{pid}"), 0
    try:
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1]) * 1024
        for task in (process / "task").iterdir():
            total += sum(map(tree_bytes, map(int, (task / "children").read_text().split())))
    except (FileNotFoundError, ProcessLookupError):
        pass  # It has ended meanwhile.
    return total


async def idle_bytes(server: object) -> float:
    """What one more connection costs that is logged in and silent."""

    async def connect() -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            "127.0.0.1",
            server.port,
            username=server.user,
            client_keys=[str(server.forge.keys["alice"].private)],
            known_hosts=None,
            config=None,
            agent_path=None,
        )

    warm = [await connect() for _ in range(3)]
    await asyncio.sleep(0.5)
    before = tree_bytes(server.pid)
    held = [await connect() for _ in range(IDLE)]
    await asyncio.sleep(0.5)
    each = (tree_bytes(server.pid) - before) / IDLE
    for connection in (*held, *warm):
        connection.abort()
    return each


# ---- all of it --------------------------------------------------------------------------------

CONNECT = "connections with a small fetch, 50 in parallel"
CLONE, PUSH = "clone of 180 MB", "push of 180 MB"
LS_REMOTE_TIME, IDLE_MEMORY = "git ls-remote, median", "memory of an idle connection"
OURS, FILE = "plue_ssh", "file://, no SSH"
OTHERS = ("ssh2 on Bun", "ssh2 on Node", "asyncssh")

# Before 0.12, libssh itself is slower at connecting.
LIBSSH = tuple(map(int, libssh_version().split("/")[0].split(".")[:2]))
BEST_OTHER = 1.2 if LIBSSH >= (0, 12) else 1

GOALS = [
    Goal(CONNECT, at_least=12, than=("sshd",)),
    Goal(CONNECT, at_least=BEST_OTHER, than=OTHERS),
    Goal(CLONE, at_least=1.5, than=("sshd",)),
    Goal(CLONE, at_least=0.75, than=(FILE,)),
    Goal(PUSH, at_least=1, than=("sshd", *OTHERS)),
    Goal(PUSH, at_most=1.3, than=(OURS,), name=FILE),
    Goal(LS_REMOTE_TIME, at_least=5, than=("sshd",)),
    Goal(LS_REMOTE_TIME, at_least=1, than=("ssh2 on Bun",)),
    Goal(IDLE_MEMORY, at_least=20, than=("sshd",)),
]


def load_program(directory: Path) -> Path:
    program = directory / "ssh_connect"
    source = str(HERE / "ssh_connect.c")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-O2"]
    subprocess.run([*compiler, "-o", str(program), source, "-lssh", "-lpthread"], check=True)
    return program


def measure(quick: bool) -> list[Comparison]:
    found = {
        CONNECT: Comparison(CONNECT, "/s", "higher", {}, summary=True),
        CLONE: Comparison(CLONE, "B/s", "higher", {}, summary=True),
        PUSH: Comparison(PUSH, "B/s", "higher", {}, summary=True),
        LS_REMOTE_TIME: Comparison(LS_REMOTE_TIME, "s", "lower", {}, summary=True),
        IDLE_MEMORY: Comparison(IDLE_MEMORY, "B", "lower", {}, summary=True),
    }

    def keep(what: str, name: str, value: float) -> None:
        found[what].samples.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        forge = Forge(directory / "forge")
        work = directory / "work"
        work.mkdir()
        program = load_program(directory)
        forge.large("alice/big", MB)
        source = work / "source.git"
        forge.git("clone", "-q", "--bare", str(forge.repositories / "alice/big.git"), str(source))
        ssh2 = str(HERE / "ssh_servers" / "ssh2_server.mjs")
        asyncssh_server = str(HERE / "ssh_servers" / "asyncssh_server.py")
        for _ in range(1 if quick else 5):
            with ExitStack() as stack:
                servers = {
                    OURS: stack.enter_context(serve(forge)),
                    "sshd": stack.enter_context(sshd(forge, forced=False)),
                    "ssh2 on Bun": stack.enter_context(peer(forge, "bun", ssh2)),
                    "ssh2 on Node": stack.enter_context(peer(forge, "node", ssh2)),
                    "asyncssh": stack.enter_context(peer(forge, sys.executable, asyncssh_server)),
                }
                for name, server in servers.items():  # first, while every process is fresh
                    keep(IDLE_MEMORY, name, asyncio.run(idle_bytes(server)))
                for name, server in servers.items():
                    keep(CONNECT, name, connections(server, program))
                    keep(CLONE, name, clone_rate(server, work))
                    keep(PUSH, name, push_rate(server, work, source))
                    keep(LS_REMOTE_TIME, name, ls_remote_s(server, work))
                cloned, pushed = file_rates(forge, work, source)
                keep(CLONE, FILE, cloned)
                keep(PUSH, FILE, pushed)
    return list(found.values())


if __name__ == "__main__":
    main(measure, GOALS)
