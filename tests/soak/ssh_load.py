"""`python -m pyplue.ssh serve` on SQLite with a thousand users, and the real git as its clients:
several at once, some killed halfway, some with forged keys, some that stall, while keys and
permissions come and go."""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ssh.big_team import fill
from ssh.forge import Client, Forge, Key, LoadClient, commit, make_key
from ssh.serving import Serving, Team

from pyplue.ssh.public_keys import parse_key
from soak.load import Load

USERS, KEYS = 1000, 3000
WRITERS = 3
PROJECT, LARGE, LARGE_MB = "alice/project", "alice/large", 6
LOGIN_GRACE_S = 3
COUNTS_AFTER_S = 1.0
"""Every change of users, keys and permissions."""


def forged(directory: Path, shown: Key, secret: Key) -> Key:
    """A private key file that shows one key and signs with another: the public half, which is in
    the file three times, is exchanged."""

    def body(text: str) -> bytes:
        return base64.b64decode("".join(text.split("\n")[1:-2]))

    def point(key: Key) -> bytes:
        return base64.b64decode(key.line.split()[1])[-32:]

    text = secret.private.read_text()
    changed = body(text).replace(point(secret), point(shown))
    first, *_, last, _ = text.split("\n")
    path = directory / "forged"
    path.write_text(f"{first}\n{base64.encodebytes(changed).decode()}{last}\n")
    path.chmod(0o600)
    path.with_suffix(".pub").write_text(shown.line + "\n")
    return Key(path)


@dataclass
class Writer:
    """One clone and one branch on the server, which only grows."""

    soak: Soak
    number: int
    pushed: str = ""
    confirmed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.load, self.client = self.soak.load, self.soak.client("alice")
        self.branch = f"refs/heads/writer{self.number}"
        self.clone = self.client.clone(PROJECT, f"writer{self.number}")
        self.reader = self.client.clone(PROJECT, f"reader{self.number}")

    def round(self) -> None:
        random.choice((self.push, self.push, self.fetch, self.fresh, self.kill_push, self.kill))()

    def _commit(self) -> str:
        content = os.urandom(random.choice((100, 5000, 200_000)))
        return commit(self.soak.team.forge, self.clone, f"w{random.randrange(20)}", content)

    def _words(self) -> list[str]:
        # To the URL: no tracking reference, whose lock a killed push would leave behind.
        return ["push", "-q", self.client.url(PROJECT), f"HEAD:{self.branch}"]

    def push(self) -> None:
        head = self._commit()
        answer = self.client.try_git(*self._words(), cwd=self.clone)
        if self.load.check(answer.returncode == 0, f"push: {answer.stderr}"):
            self.confirmed.append(head)
            self.load.count(pushes=1)

    def fetch(self) -> None:
        if not self.confirmed:
            return self.push()
        protocol = random.choice((0, 1, 2))
        words = ["fetch", "-q", self.client.url(PROJECT), self.branch]
        answer = self.client.try_git(*words, cwd=self.reader, protocol=protocol)
        if self.load.check(answer.returncode == 0, f"fetch: {answer.stderr}"):
            seen = self.soak.git("merge-base", "--is-ancestor", self.confirmed[-1], "FETCH_HEAD",
                                 cwd=self.reader)  # fmt: skip
            self.load.check(seen == 0, f"{self.confirmed[-1]} is confirmed, a fetch has it not")
            self.load.count(fetches=1)
        return None

    def fresh(self) -> None:
        target = self.client.directory / f"fresh{self.number}"
        options = random.choice(([], ["--depth", "1"], ["--bare"]))
        words = ["clone", "-q", *options, self.client.url(PROJECT), str(target)]
        answer = self.client.try_git(*words)
        if self.load.check(answer.returncode == 0, f"clone: {answer.stderr}"):
            self.load.check(self.soak.git("rev-parse", "HEAD", cwd=target) == 0, "no HEAD")
            self.load.count(clones=1)
        shutil.rmtree(target, ignore_errors=True)

    def kill_push(self) -> None:
        """It may have arrived, or not: the next push goes on from it."""
        self._commit()
        self.soak.killed(self.client, self._words(), self.clone, 0.08)

    def kill(self) -> None:
        target = self.client.directory / f"killed{self.number}"
        words = ["clone", "-q", "--bare", self.client.url(LARGE), str(target)]
        self.soak.killed(self.client, words, None, 0.25)
        shutil.rmtree(target, ignore_errors=True)

    def check_repository(self, bare: Path) -> None:
        """Every commit whose push was confirmed is there, and on the branch."""
        for head in self.confirmed:
            there = self.soak.git("merge-base", "--is-ancestor", head, self.branch, cwd=bare)
            self.load.check(there == 0, f"{head} was confirmed and is not in the repository")


class Soak:
    """The server, and what its clients share."""

    def __init__(self, load: Load) -> None:
        self.load = load
        forge = Forge(load.folder / "forge")
        self.team = Team(forge, load.folder)
        fill(self.team.store, USERS, KEYS)
        self.team.large(LARGE, LARGE_MB)
        forge.keys["forged"] = forged(forge.directory, forge.keys["alice"], forge.keys["mallory"])
        for name in ("guest", "other-guest"):
            forge.keys[name] = make_key(forge.directory, name)
        self.server = Serving(
            self.team,
            *("--set", f"login_grace_s={LOGIN_GRACE_S}", "--set", "kill_grace_s=2"),
        )
        self.work = load.folder / "work"
        self.work.mkdir()
        program = load.folder.parent / "load_client"
        self.load_client = LoadClient(program) if program.exists() else None
        self.guests = 0

    def client(self, key: str) -> Client:
        return Client(self.server, key, directory=self.work)

    def git(self, *words: str, cwd: Path) -> int:
        environment = self.team.forge.environment()
        return subprocess.run(
            ["git", *words], cwd=cwd, env=environment, capture_output=True, timeout=60
        ).returncode

    def killed(self, client: Client, words: list[str], cwd: Path | None, longest_s: float) -> None:
        """git and its ssh, killed at some moment."""
        process = subprocess.Popen(
            ["git", *words],
            cwd=cwd or client.directory,
            env=client.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(random.uniform(0, longest_s))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self.load.count(killed=1)

    def reads(self, key: str, repository: str = PROJECT) -> bool:
        client = self.client(key)
        answer = client.try_git("ls-remote", client.url(repository))
        self.load.count(logins=1)
        return answer.returncode == 0

    def becomes(self, wanted: bool, key: str) -> None:
        """A change counts soon; from then on it always does."""
        time.sleep(COUNTS_AFTER_S)
        end = time.monotonic() + 2  # the machine may be busy
        begun = time.monotonic()
        while self.reads(key) != wanted:
            # One that began before may have logged in before, however long it took then.
            if not self.load.check(begun < end, f"{key} reads: not {wanted} in time"):
                return
            begun = time.monotonic()
        self.load.check(self.reads(key) == wanted, f"{key} reads: {wanted} for a moment only")

    # ---- what happens again and again ----

    def permissions(self) -> None:
        store = self.team.store
        self.load.check(not self.reads("bob"), "bob reads what he has no permission for")
        store.access.grant(PROJECT, "bob", "read")
        self.becomes(True, "bob")
        bob = self.client("bob")
        words = ["push", "-q", bob.url(PROJECT), "HEAD:refs/heads/bob"]
        answer = bob.try_git(*words, cwd=self.work / "reader0")
        self.load.check(answer.returncode != 0, "bob pushes with permission to read")
        store.access.revoke(PROJECT, "bob")
        self.becomes(False, "bob")
        self.load.count(changes=2)

    def keys(self) -> None:
        self.guests += 1
        store, name = self.team.store, f"guest{self.guests}"
        key = ("guest", "other-guest")[self.guests % 2]
        store.users.add(name)
        store.keys.add(name, self.team.forge.keys[key].line)
        store.access.grant(PROJECT, name, "read")
        self.becomes(True, key)
        if self.guests % 3:
            store.keys.remove(parse_key(self.team.forge.keys[key].line).fingerprint)
            self.becomes(False, key)
            store.users.remove(name)
        else:
            store.users.remove(name)
            self.becomes(False, key)
        self.load.count(changes=5)

    def strangers(self) -> None:
        for key in ("mallory", "forged"):
            client = self.client(key)
            answer = client.try_git("ls-remote", client.url(PROJECT))
            refused = answer.returncode != 0 and "Permission denied" in answer.stderr
            self.load.check(refused, f"{key}: {answer.returncode} {answer.stderr}")
            self.load.count(refused=1)
        alice = self.client("alice")
        for command in ("sh", "git-upload-pack '../host'", f"git-upload-archive '{PROJECT}'"):
            answer = alice.ssh(command)
            self.load.check(answer.returncode not in (0, None), f"{command} ran")
            self.load.count(refused=1)

    def stalls(self) -> None:
        """Connections that never log in are hung up on."""
        peers = []
        for number in range(6):
            peer = socket.create_connection(("127.0.0.1", self.server.port))
            peer.sendall((b"", b"SSH-2.0-half a ban", b"SSH-2.0-all\r\n", b"\0" * 40)[number % 4])
            peers.append(peer)
        end = time.monotonic() + LOGIN_GRACE_S + 10
        for peer in peers:
            peer.settimeout(max(0.01, end - time.monotonic()))
            try:
                while peer.recv(65536):
                    pass
            except ConnectionResetError:
                pass
            except TimeoutError:
                self.load.fail("a connection that does not log in is kept")
            peer.close()
        self.load.count(stalled=len(peers))

    def connections(self) -> None:
        """Many in a short time: whole fetches, clients that hang up in the middle, guesses."""
        assert self.load_client is not None
        key = self.team.forge.keys["alice"].private
        for mode in ("fetch", "drop"):
            self.load_client.run(self.server, mode, 24, key, 6)
        stranger = self.team.forge.keys["mallory"].private
        with self.load_client.running(self.server, "guess", 6, [stranger], 2) as process:
            _, _, let_in = self.load_client.result(process)
        self.load.check(let_in == 0, f"{let_in} logins by guessing")
        self.load.count(logins=48, refused=6)

    # ---- the end ----

    def at_rest(self, descriptors: int) -> None:
        """Nobody is connected any more, and nothing of them is left."""
        end = time.monotonic() + 20
        while self.server.children() or self.server.descriptors() > descriptors:
            if time.monotonic() > end:
                held = self.server.descriptors(), self.server.children()
                self.load.fail(f"the server rests with {held}, not with {descriptors} descriptors")
                return
            time.sleep(0.1)

    def check_log(self) -> None:
        known = {"alice", "bob", *(f"guest{number + 1}" for number in range(self.guests))}
        for line in self.server.lines():
            self.load.check(line.get("user") in {None, *known}, f"somebody else got in: {line}")
            if line["level"] == "error" or "Traceback" in line.get("message", ""):
                self.load.fail(f"the server logs an error: {line}")


def main() -> None:
    load = Load()
    soak = Soak(load)
    try:
        load.watch("ssh server", soak.server.pid)
        writers = [Writer(soak, number) for number in range(WRITERS)]
        for writer in writers:
            writer.push()
        soak.strangers()
        soak.at_rest(1000)
        descriptors = soak.server.descriptors()
        load.watch("ssh clients", os.getpid())
        rounds: list[tuple[Callable[[], object], float]] = [
            *((writer.round, 0.2) for writer in writers),
            (soak.permissions, 0.3),
            (soak.keys, 0.5),
            (soak.strangers, 0.03),
            (soak.stalls, 0.7),
        ]
        if soak.load_client:
            rounds.append((soak.connections, 0.1))
        load.run(*rounds)
        load.attempt(lambda: soak.at_rest(descriptors))
        load.check(soak.server.end() == 0, "the server did not end well")
        load.attempt(soak.check_log)
        bare = soak.team.path(PROJECT)
        for path in (bare, soak.team.path(LARGE)):
            load.attempt(lambda path=path: soak.team.forge.objects(path))
        for writer in writers:
            load.attempt(lambda writer=writer: writer.check_repository(bare))
    finally:
        if soak.server.process.poll() is None:
            soak.server.process.kill()
    load.done()


if __name__ == "__main__":
    main()
