"""Much data, odd windows, rekeying, slow and silent clients: every byte arrives, memory is bounded.

Sizes for a whole run by hand: PLUE_SSH_BIG_MB=200 PLUE_SSH_FILES=20000 PLUE_SSH_COMMITS=5000
PLUE_SSH_SLOW_S=200.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncssh
import pytest

from .forge import Client, Forge, Server, commit, serve
from .raw_client import (
    CHANNEL_DATA,
    CHANNEL_OPEN,
    OPEN_CONFIRMATION,
    RawClient,
    string,
    u32,
)

BIG_MB = int(os.environ.get("PLUE_SSH_BIG_MB", "24"))
FILES = int(os.environ.get("PLUE_SSH_FILES", "2000"))
COMMITS = int(os.environ.get("PLUE_SSH_COMMITS", "500"))
SLOW_S = int(os.environ.get("PLUE_SSH_SLOW_S", "6"))
MINUTE_S = 62  # the longest default deadline that could end a silent client is 60 s

pytestmark = pytest.mark.timeout(1800)

# What a server may hold for one connection whose client does not read: windows and buffers.
HELD_KB = 12 * 1024


@pytest.fixture(scope="module")
def big(forge: Forge) -> Path:
    return forge.large("alice/big", BIG_MB)


@pytest.fixture(scope="module")
def many(forge: Forge) -> Path:
    return forge.many("alice/many", FILES, COMMITS)


def there_and_back(client: Client, forge: Forge, repository: str, work: Path) -> None:
    """Clones a repository, pushes it into an empty one and compares all three."""
    original = forge.objects(forge.repositories / f"{repository}.git")
    clone = client.clone(repository, "mirror", "--mirror")
    assert forge.objects(clone) == original
    copy = forge.repository(f"{repository}-{os.urandom(3).hex()}", empty=True)
    name = copy.relative_to(forge.repositories).as_posix()
    client.git("push", "-q", "--mirror", client.url(name), cwd=clone)
    assert forge.objects(copy) == original


@pytest.mark.parametrize("repository", ["alice/big", "alice/many"])
def test_a_large_repository_goes_there_and_back(server, forge, work, big, many, repository):
    there_and_back(Client(server, directory=work), forge, repository, work)


@pytest.mark.parametrize("who", ["client", "server", "both"])
def test_rekeying_every_megabyte_loses_nothing(forge, work, big, who):
    options = ("-o", "RekeyLimit=1M") if who != "server" else ()
    settings = {"rekey_bytes": 1 << 20} if who != "client" else {}
    with serve(forge, **settings) as own:
        there_and_back(Client(own, "alice", *options, directory=work), forge, "alice/big", work)


@pytest.mark.parametrize("cipher", ["chacha20-poly1305@openssh.com", "aes256-ctr"])
def test_every_cipher_carries_a_pack(server, forge, work, big, cipher):
    client = Client(server, "alice", "-c", cipher, directory=work)
    assert forge.objects(client.clone("alice/big", "clone", "--bare"))


# Reads by fits and starts, so that what it has not taken piles up in the server, and in libssh.
FITFUL_GIT = """\
#!{python}
import hashlib, os, random, time
seen = hashlib.sha256()
while data := os.read(0, 1 << 16):
    seen.update(data)
    if random.random() < 0.05:
        time.sleep(0.01)
print(seen.hexdigest())
"""


def test_gits_that_read_by_fits_and_starts_get_every_byte_in_order(forge, work):
    """What arrives while what came before is handed on: libssh 0.12 reads the socket at any call.

    That went wrong in one of twenty pushes on a busy machine, and in none on an idle one.
    """
    git = work / "git"
    git.write_text(FITFUL_GIT.format(python=sys.executable))
    git.chmod(0o755)
    noise = os.urandom((1 << 20) + 7) * 24
    expected = hashlib.sha256(noise).hexdigest()

    def push(client: Client) -> str:
        command = [*client.ssh_command, "-p", str(client.server.port), "git@127.0.0.1"]
        command.append("git-receive-pack 'alice/project'")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ssh:
            sent = 0
            while sent < len(noise):
                burst = random.choice([100_000, 400_000, 800_000])
                ssh.stdin.write(noise[sent : sent + burst])
                ssh.stdin.flush()
                sent += burst
                time.sleep(random.choice([0.001, 0.003, 0.006]))
            return ssh.communicate()[0].decode().strip()

    with serve(forge, git=str(git)) as own, ThreadPoolExecutor() as pool:
        assert [*pool.map(push, [Client(own)] * 8)] == [expected] * 8


def test_a_slow_reader_holds_little_memory_and_nobody_up(forge, work, big):
    """A pipe that lets one megabyte a second through; the clone is ended when that was seen."""
    throttle = (
        "import sys, time\n"
        "while data := sys.stdin.buffer.read1(65536):\n"
        "    sys.stdout.buffer.write(data); sys.stdout.buffer.flush()\n"
        "    time.sleep(len(data) / (1 << 20))\n"
    )
    with serve(forge) as own:
        client = Client(own, directory=work)
        client.clone("alice/project", "warm")
        before = own.memory_kb()
        slow = f'f() {{ {shlex.join(client.ssh_command)} "$@" | '
        slow += f"{shlex.join([sys.executable, '-c', throttle])}; }}; f"
        environment = client.environment() | {"GIT_SSH_COMMAND": slow, "GIT_SSH_VARIANT": "ssh"}
        command = ["git", "clone", "-q", "--bare", client.url("alice/big"), str(work / "slow")]
        with subprocess.Popen(command, env=environment, start_new_session=True) as reader:
            grown = 0
            for number in range(SLOW_S):
                client.clone("alice/project", f"other{number}")
                grown = max(grown, own.memory_kb() - before)
                try:
                    reader.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    pass
            if BIG_MB <= SLOW_S:
                assert reader.wait(timeout=BIG_MB * 3) == 0
            else:
                assert reader.poll() is None, "the reader was not slow"
                os.killpg(reader.pid, signal.SIGTERM)
        if BIG_MB <= SLOW_S:
            assert forge.objects(work / "slow") == forge.objects(big)
        assert grown < HELD_KB, f"{grown} KB for one slow reader"
        own.settled(connections=0, gits_running=0)


def test_channels_opened_while_a_clone_is_sent(forge):
    """libssh reads, and opens channels, while the server writes to one of them: the list of
    channels grew under the loop over it. It takes luck, hence the rounds."""
    few, many = 16, 60
    repository = forge.large("alice/six", 6)
    want = f"want {forge.git('rev-parse', 'HEAD', cwd=repository)}\n"
    request = f"{len(want) + 4:04x}{want}00000009done\n".encode()
    with serve(forge, max_channels=many) as own:
        for turn in range(15):
            with RawClient(own) as client:
                client.log_in(forge.keys["alice"])
                clone, *_ = [client.open(number=n, window=1 << 30) for n in range(few)]
                assert clone is not None
                assert client.request(clone, "exec", string("git-upload-pack 'alice/six'"))
                client.send(CHANNEL_DATA, u32(clone), string(request))
                received, opened = 0, few
                while received < turn << 16:
                    received += len(client.expect(CHANNEL_DATA)[1])
                packets: list[bytes] = []
                client.transport.packetizer.write_all = packets.append
                for number in range(few, many):
                    fields = (string("session"), u32(number), u32(1 << 20), u32(32768))
                    client.send(CHANNEL_OPEN, *fields)
                client.socket.sendall(b"".join(packets))
                while opened < many:
                    client.expect(OPEN_CONFIRMATION)
                    opened += 1
        own.settled(connections=0, gits_running=0)


@contextmanager
def silent_push(forge: Forge, work: Path, silence_s: int, **timers: int) -> Iterator[None]:
    """Begins a push whose client says nothing for `silence_s` before its pack; then it succeeds."""
    name = f"alice/silent-{os.urandom(3).hex()}"
    bare = forge.repository(name)
    with serve(forge, **timers) as own:
        client = Client(own, directory=work)
        clone = client.clone(name, "clone")
        pushed = commit(forge, clone, "late")
        ssh = shlex.join(client.ssh_command)
        slow = shlex.join(["sh", "-c", f'(sleep {silence_s}; cat) | {ssh} "$@"', "sh"])
        environment = client.environment() | {"GIT_SSH_COMMAND": slow, "GIT_SSH_VARIANT": "ssh"}
        command = ["git", "push", "-q", "origin", "main"]
        with subprocess.Popen(command, cwd=clone, env=environment) as push:
            begun = time.monotonic()
            yield
            assert push.wait(timeout=silence_s + 60) == 0
            assert time.monotonic() - begun >= silence_s - 1
    assert forge.git("rev-parse", "main", cwd=bare) == pushed


@pytest.fixture(scope="module", autouse=True)
def minute(forge: Forge, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExitStack]:
    """A push by a client that is silent for a minute, beside all other tests of this module."""
    with ExitStack() as stack:
        stack.enter_context(silent_push(forge, tmp_path_factory.mktemp("minute"), MINUTE_S))
        yield stack


def test_a_client_that_is_silent_before_its_pack_succeeds(forge, work):
    """Timers may end an idle connection, never one whose git is at work."""
    timers = {"exec_grace_s": 1, "idle_timeout_s": 1, "login_grace_s": 2, "keepalive_s": 1}
    with silent_push(forge, work, 5, **timers, keepalive_count=2):
        pass


def test_an_idle_connection_without_git_is_ended(forge, work):
    """The same timers do their work where no git runs."""
    with serve(forge, exec_grace_s=1) as own:
        answer = Client(own).ssh(options=("-N",))
        assert answer.returncode == 255
        own.wait_for("disconnected", reason="exec_grace")


def test_a_client_that_vanished_is_noticed(forge, work):
    """Stopped, it answers no keepalive; its git is ended with it."""
    with serve(forge, keepalive_s=1, keepalive_count=2) as own:
        client = Client(own, directory=work)
        command = [*client.ssh_command, "-p", str(own.port), "git@127.0.0.1"]
        command.append("git-upload-pack 'alice/project'")
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=forge.environment()
        ) as ssh:
            assert ssh.stdout.read(4)
            ssh.send_signal(signal.SIGSTOP)
            own.wait_for("disconnected", reason="keepalive")
            own.settled(connections=0, gits_running=0)
            ssh.kill()


async def _fetch(server: Server, request: bytes, window: int, packet: int) -> bytes:
    """Sends a fetch and the end of input at once, then reads through a window of that size."""
    async with asyncssh.connect(
        "127.0.0.1",
        server.port,
        username="git",
        client_keys=[str(server.forge.keys["alice"].private)],
        known_hosts=str(server.known_hosts),
        config=None,
        agent_path=None,
    ) as connection:
        process = await connection.create_process(
            "git-upload-pack 'alice/small'", encoding=None, window=window, max_pktsize=packet
        )
        process.stdin.write(request)
        process.stdin.write_eof()
        # Progress on stderr uses up the same window: it has to be read along.
        output, _ = await asyncio.gather(process.stdout.read(), process.stderr.read())
        done = await process.wait()
        assert done.exit_status == 0, done.stderr
        return output


@pytest.mark.parametrize(
    ("window", "packet"), [(100, 256), (1, 256), (4096, 1 << 20), (65536, 300)]
)
def test_an_early_end_and_a_tiny_window_lose_no_byte(forge, window, packet):
    """Protocol version 0 without side bands: the pack is the same bytes every time."""
    bare = forge.repositories / "alice/small.git"
    if not bare.exists():
        forge.repository("alice/small", empty=True)
        work = forge.directory / "small"
        forge.git("clone", "-q", str(bare), str(work))
        commit(forge, work, "noise", os.urandom(5_000))
        forge.git("push", "-q", "origin", "main", cwd=work)
        forge.git("config", "pack.threads", "1", cwd=bare)
    tip = forge.git("rev-parse", "main", cwd=bare)
    lines = [f"want {tip}\n".encode(), b"done\n"]
    first, last = (b"%04x%s" % (len(line) + 4, line) for line in lines)
    request = first + b"0000" + last
    command = ["git", "upload-pack", str(bare)]
    local = subprocess.run(
        command, input=request, capture_output=True, check=True, env=forge.environment()
    ).stdout
    with serve(forge) as own:
        remote = asyncio.run(_fetch(own, request, window, packet))
    # The advertisement before it may name other capabilities: the server configures git.
    wanted, arrived = (output[output.index(b"0008NAK\n") :] for output in (local, remote))
    assert wanted[8:12] == b"PACK"
    assert len(arrived) == len(wanted)
    assert hashlib.sha256(arrived).digest() == hashlib.sha256(wanted).digest()


def test_a_client_that_was_silent_for_a_minute_succeeds(minute):
    """With the deadlines that everybody gets."""
    minute.close()
