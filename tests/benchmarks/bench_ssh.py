"""plue_ssh beside OpenSSH's sshd, npm's ssh2 on Bun and on Node, and asyncssh, all in one run.

    ./dev bench ssh

Every server serves the same repositories to the same clients: OpenSSH's ssh under git, and a small
libssh program for connections. curve25519 for all. Each figure is the best of its rounds, taken in
turns, so that a busy moment of the machine meets everybody. PLUE_BENCH_SSH_MB (180) is the size of
the pack, PLUE_BENCH_SSH_ROUNDS (3) the number of rounds.
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
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from ssh.forge import Client, Forge, Sshd, known_hosts, serve, sshd  # noqa: E402

MB = int(os.environ.get("PLUE_BENCH_SSH_MB", "180"))
ROUNDS = int(os.environ.get("PLUE_BENCH_SSH_ROUNDS", "3"))
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
    return MB / took


def push_rate(server: object, work: Path, source: Path) -> float:
    client = client_of(server, work)
    bare = receiver(server.forge)
    url = client.url(repository(server, "alice/receiver"))
    took = seconds(lambda: client.git("push", "-q", url, "main", cwd=source))
    shutil.rmtree(bare)
    return MB / took


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
    return MB / cloned, MB / pushed


def ls_remote_ms(server: object, work: Path) -> float:
    client = client_of(server, work)
    url = client.url(repository(server, "alice/project"))
    return 1000 * statistics.median(
        seconds(lambda: client.git("ls-remote", "-q", url)) for _ in range(LS_REMOTE)
    )


def tree_kb(pid: int) -> int:
    """Proportional set size of a process and all below it."""
    process, total = Path(f"/proc/{pid}"), 0
    try:
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total = int(line.split()[1])
        for task in (process / "task").iterdir():
            total += sum(map(tree_kb, map(int, (task / "children").read_text().split())))
    except (FileNotFoundError, ProcessLookupError):
        pass  # It has ended meanwhile.
    return total


async def idle_kb(server: object) -> float:
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
    before = tree_kb(server.pid)
    held = [await connect() for _ in range(IDLE)]
    await asyncio.sleep(0.5)
    each = (tree_kb(server.pid) - before) / IDLE
    for connection in (*held, *warm):
        connection.abort()
    return each


# ---- the table --------------------------------------------------------------------------------

ROWS = [
    ("connections/s at 50 parallel", "conn", True),
    (f"clone of {MB} MB, MB/s", "clone", True),
    (f"push of {MB} MB, MB/s", "push", True),
    ("git ls-remote, median ms", "ls", False),
    ("memory per idle connection, KB", "idle", False),
]


def show(figures: dict[str, dict[str, float]], limits: tuple[float, float]) -> None:
    names = list(figures)
    others = [name for name in names if name != "plue_ssh"]
    print(f"{'':32}" + "".join(f"{name:>12}" for name in names) + f"{'file://':>12}")
    for label, key, _ in ROWS:
        values = "".join(f"{figures[name][key]:12.1f}" for name in names)
        limit = {"clone": limits[0], "push": limits[1]}.get(key)
        print(f"{label:32}{values}" + (f"{limit:12.1f}" if limit else ""))
    print("\nplue_ssh is better by this factor (above 1: better)")
    print(f"{'':32}" + "".join(f"{name:>12}" for name in others) + f"{'file://':>12}")
    for label, key, more_is_better in ROWS:
        mine = figures["plue_ssh"][key]
        ratios = ""
        for name in others:
            other = figures[name][key]
            ratio = mine / other if more_is_better else other / max(mine, 0.001)
            ratios += f"{ratio:11.2f}x"
        limit = {"clone": limits[0], "push": limits[1]}.get(key)
        print(f"{label:32}{ratios}" + (f"{mine / limit:11.2f}x" if limit else ""))


def load_program(directory: Path) -> Path:
    program = directory / "ssh_connect"
    source = str(HERE / "ssh_connect.c")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-O2"]
    subprocess.run([*compiler, "-o", str(program), source, "-lssh", "-lpthread"], check=True)
    return program


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
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
        servers = {
            "plue_ssh": stack.enter_context(serve(forge)),
            "sshd": stack.enter_context(sshd(forge, forced=False)),
            "ssh2/bun": stack.enter_context(peer(forge, "bun", ssh2)),
            "ssh2/node": stack.enter_context(peer(forge, "node", ssh2)),
            "asyncssh": stack.enter_context(peer(forge, sys.executable, asyncssh_server)),
        }
        figures: dict[str, dict[str, float]] = {name: {} for name in servers}
        limits = (0.0, 0.0)
        for name, server in servers.items():  # first, while every process is fresh
            figures[name]["idle"] = asyncio.run(idle_kb(server))
        for _ in range(ROUNDS):
            cloned, pushed = file_rates(forge, work, source)
            limits = max(limits[0], cloned), max(limits[1], pushed)
            for name, server in servers.items():
                best = figures[name]
                best["conn"] = max(best.get("conn", 0), connections(server, program))
                best["clone"] = max(best.get("clone", 0), clone_rate(server, work))
                best["push"] = max(best.get("push", 0), push_rate(server, work, source))
                best["ls"] = min(best.get("ls", 1e9), ls_remote_ms(server, work))
        print(
            f"{os.cpu_count()} cores, {MB} MB, best of {ROUNDS} rounds, idle: {IDLE} connections\n"
        )
        show(figures, limits)


if __name__ == "__main__":
    main()
