"""Many clients, idle clients, stalled clients and clients killed at any moment: nothing is left.

Sizes for a whole run by hand: PLUE_SSH_CLIENTS=200 PLUE_SSH_IDLE=1000 PLUE_SSH_STALLED=300
PLUE_SSH_KILLS=1000 PLUE_SSH_ROUNDS=12. What a client waits meanwhile is printed (pytest -s), not
asserted.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncssh
import pytest

from .forge import Client, Forge, LoadClient, Server, commit, serve

CLIENTS = int(os.environ.get("PLUE_SSH_CLIENTS", "24"))
IDLE = int(os.environ.get("PLUE_SSH_IDLE", "150"))
STALLED = int(os.environ.get("PLUE_SSH_STALLED", "300"))
ROUNDS = int(os.environ.get("PLUE_SSH_ROUNDS", "6"))
KILLS = int(os.environ.get("PLUE_SSH_KILLS", "60"))

IDLE_KB = 64  # the contract: what one idle authenticated connection costs at most

pytestmark = pytest.mark.timeout(600)


def at_rest(server: Server, descriptors: int) -> None:
    """Nobody is connected, nothing runs and nothing is held."""
    server.settled(connections=0, gits_running=0)
    deadline = time.monotonic() + 10
    while server.descriptors() > descriptors or server.children():
        assert time.monotonic() < deadline, (server.descriptors(), server.children())
        time.sleep(0.05)


def kept_kb(memory: list[int]) -> int:
    """What came on top in the second half of the rounds: the first ones fill the allocator."""
    return memory[-1] - memory[(len(memory) - 1) // 2]


def test_many_clients_clone_and_push_at_once(forge: Forge, work: Path, load_client: LoadClient):
    """Round after round: nothing of one is left in the next."""
    name = "alice/busy"
    bare = forge.repository(name)
    with serve(forge) as own:
        client = Client(own, directory=work)
        load_client.run(own, "fetch", 400, forge.keys["alice"].private, 50)
        own.settled(connections=0)
        descriptors = own.descriptors()

        def work_as(reference: str) -> str:
            clone = client.clone(name, reference)
            pushed = commit(forge, clone, reference)
            client.git("push", "-q", "origin", f"main:refs/heads/{reference}", cwd=clone)
            shutil.rmtree(clone)
            return f"refs/heads/{reference} {pushed}"

        memory = []
        for number in range(ROUNDS):
            wanted = [f"r{number}c{n}" for n in range(CLIENTS)]
            with ThreadPoolExecutor(CLIENTS) as pool:
                pushed = list(pool.map(work_as, wanted))
            assert set(pushed) <= set(forge.objects(bare).splitlines())
            at_rest(own, descriptors)
            memory.append(own.memory_kb("Anonymous"))
        counters = own.counters()
        assert counters["gits_failed_total"] == 0
        assert counters["commands_total"] >= 2 * CLIENTS * ROUNDS
    print(f"{CLIENTS} clients at once, memory after each round: {memory} KB")
    assert kept_kb(memory) < 1024, memory


def test_thousands_of_connections_leave_nothing(forge: Forge, load_client: LoadClient):
    """Whole fetches, and clients that hang up in the middle of one."""
    each, at_once = 400, 50
    key = forge.keys["alice"].private
    with serve(forge) as own:
        load_client.run(own, "fetch", at_once, key, at_once)
        own.settled(connections=0)
        descriptors = own.descriptors()
        memory = []
        for _ in range(ROUNDS):
            for mode in ("fetch", "drop"):
                load_client.run(own, mode, each, key, at_once)
            at_rest(own, descriptors)
            memory.append(own.memory_kb("Anonymous"))
        assert own.counters()["authenticated_total"] == at_once + 2 * each * ROUNDS
    print(f"{2 * each} connections a round, memory after each: {memory} KB")
    # The allocator still takes a page now and then; half a KB for each connection would be more.
    assert kept_kb(memory) < 1024, memory


def test_idle_connections_cost_little(forge: Forge):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # also for the server
    settings = {"exec_grace_s": 0, "idle_timeout_s": 0, "keepalive_s": 0, "max_connections": 5000}

    async def measure(own: Server) -> float:
        async def connect() -> asyncssh.SSHClientConnection:
            async with few:
                return await asyncssh.connect(
                    "127.0.0.1",
                    own.port,
                    username="git",
                    client_keys=[key],
                    known_hosts=known,
                    config=None,
                    agent_path=None,
                )

        few = asyncio.Semaphore(16)
        key = asyncssh.read_private_key(str(forge.keys["alice"].private))
        known = asyncssh.read_known_hosts(str(own.known_hosts))
        warm = [await connect() for _ in range(4)]
        before = own.memory_kb()
        connections = await asyncio.gather(*(connect() for _ in range(IDLE)))
        assert own.counters()["authenticated"] == IDLE + len(warm)
        each = (own.memory_kb() - before) / IDLE
        for connection in (*connections, *warm):
            connection.abort()
        return each

    try:
        with serve(forge, **settings) as own:
            descriptors = own.descriptors()
            each = asyncio.run(measure(own))
            at_rest(own, descriptors)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(f"{IDLE} idle connections: {each:.1f} KB each")
    assert each <= IDLE_KB


def test_stalled_connections_hold_nobody_up(forge: Forge):
    with serve(forge, login_grace_s=4, max_unauthenticated=1024) as own:
        client = Client(own)
        own.settled(connections=0)
        descriptors = own.descriptors()

        def wait_ms() -> float:
            times = []
            for _ in range(8):
                begun = time.perf_counter()
                client.git("ls-remote", "-q", client.url("alice/project"))
                times.append((time.perf_counter() - begun) * 1000)
            return statistics.median(times)

        before = wait_ms()
        stalled = []
        for number in range(STALLED):
            peer = socket.create_connection(("127.0.0.1", own.port))
            if number % 2:
                peer.sendall(b"SSH-2.0-half a ban")
            stalled.append(peer)
        during = wait_ms()
        print(f"ls-remote: {before:.0f} ms alone, {during:.0f} ms beside {STALLED} stalled")
        own.wait_for("disconnected", reason="login_grace")
        at_rest(own, descriptors)
        for peer in stalled:
            peer.close()


def processor_s(server: Server) -> float:
    """Processor time that the server itself has used."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_out_of_descriptors_the_server_waits_and_recovers(forge: Forge):
    prefix = ("sh", "-c", 'ulimit -n 60 && exec "$@"', "sh")
    with serve(forge, prefix=prefix, login_grace_s=20) as own:
        descriptors = own.descriptors()
        peers = [socket.create_connection(("127.0.0.1", own.port)) for _ in range(120)]
        deadline = time.monotonic() + 10
        while own.descriptors() < 55:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = processor_s(own)
        time.sleep(2)
        assert processor_s(own) - before < 0.5, "it spins"
        for peer in peers:
            peer.close()
        at_rest(own, descriptors)
        client = Client(own)
        assert client.git("ls-remote", client.url("alice/project"))


def test_beyond_the_limit_of_strangers_friends_still_log_in_later(forge: Forge):
    with serve(forge, max_unauthenticated_per_ip=5, login_grace_s=2) as own:
        peers = [socket.create_connection(("127.0.0.1", own.port)) for _ in range(9)]
        own.wait_for("refused", reason="max_unauthenticated_per_ip")
        own.settled(connections=0)
        client = Client(own)
        assert client.git("ls-remote", client.url("alice/project"))
        for peer in peers:
            peer.close()


def killed(client: Client, arguments: list[str], after_s: float) -> None:
    """Runs git in a session of its own and kills it and its ssh at some moment."""
    process = subprocess.Popen(
        ["git", *arguments],
        env=client.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_clients(forge: Forge, own: Server, work: Path, count: int, longest_s: float) -> Path:
    """Clones and pushes a few megabytes `count` times, each ended at a random moment."""
    bare = forge.large(f"alice/killed-{os.urandom(3).hex()}", 4)
    name = bare.relative_to(forge.repositories).as_posix()
    client = Client(own, directory=work)
    source = client.clone(name, "source")
    commit(forge, source, "new.bin", os.urandom(3 << 20))
    random.seed(1)

    def one(number: int) -> None:
        after_s = random.uniform(0, longest_s)
        if number % 2:
            reference = f"main:refs/heads/k{number}"
            arguments = ["-C", str(source), "push", "-q", client.url(name), reference]
            killed(client, arguments, after_s)
        else:
            target = work / f"killed{number}"
            killed(client, ["clone", "-q", "--bare", client.url(name), str(target)], after_s)
            shutil.rmtree(target, ignore_errors=True)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(one, range(count)))
    own.settled(connections=0, gits_running=0)
    assert forge.objects(bare)
    return bare


def test_killed_clients_leave_nothing(forge: Forge, work: Path):
    with serve(forge, kill_grace_s=2) as own:
        Client(own, directory=work).clone("alice/project", "warm")
        own.settled(connections=0)
        descriptors = own.descriptors()
        bare = kill_clients(forge, own, work, KILLS, 0.25)
        at_rest(own, descriptors)
        kept = [*bare.glob("objects/tmp_objdir*"), *bare.glob("objects/incoming-*")]
        assert kept == [], "a half push: sshd leaves none either"
        client = Client(own, directory=work)
        assert client.git("ls-remote", client.url("alice/project"))


@pytest.mark.parametrize("host", ["table", "queue"], ids=["Python", "Bun"])
def test_stop_lets_gits_finish_then_ends_them(forge: Forge, need: Callable[[str], str], host: str):
    if host == "queue":
        need("bun")
    with serve(forge, host, drain_timeout_s=1, kill_grace_s=1) as own:
        command = [*Client(own).ssh_command, "-p", str(own.port), "git@127.0.0.1"]
        command.append("git-upload-pack 'alice/project'")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=forge.environment()
        ) as ssh:
            assert ssh.stdout.read(4)
            assert own.children()
            stop = own.ask("stop")
            assert 0.9 < stop["stopped_s"] < 5
            assert stop.get("turns", 50) > 20, "JavaScript stood still"
            assert own.children() == []
            assert ssh.wait(timeout=10) != 0
        port = own.ask("start")["port"]
        assert port != 0
        own.ask("stop")
