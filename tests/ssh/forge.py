"""A forge for the tests: people with keys, repositories, a server process and git as its client."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyplue.ssh import libssh_version
from pyplue.ssh.doctor.advisories import is_bundled

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# What the server under test is built on: the system's libssh, or one of its own, as in a wheel.
LIBSSH = tuple(map(int, libssh_version().partition("/")[0].split(".")))
BUNDLED = is_bundled()

# No test may hang: a command that takes longer has failed.
COMMAND_TIMEOUT_S = float(os.environ.get("PLUE_SSH_COMMAND_TIMEOUT_S", "60"))

# PLUE_SSH_PEERS=1 runs the tables of real git against OpenSSH's sshd too: it checks the tests.
PEERS = ["sshd"] if os.environ.get("PLUE_SSH_PEERS") == "1" else []

RULES = {
    "alice": ["write alice/*", "read public/*"],
    "bob": ["write bob/*", "write public/*"],
}


@dataclass(frozen=True)
class Key:
    """A private key file and its public line."""

    private: Path

    @property
    def line(self) -> str:
        return " ".join(self.private.with_suffix(".pub").read_text().split()[:2])


def make_key(directory: Path, name: str, kind: str = "ed25519", *options: str) -> Key:
    private = directory / name
    command = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", name, "-f", str(private), *options]
    subprocess.run(command, check=True)
    return Key(private)


@dataclass
class Forge:
    """What is the same for every server: one directory with people, their keys and repositories."""

    directory: Path
    keys: dict[str, Key] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repositories = self.directory / "repositories"
        self.home = self.directory / "home"
        for path in (self.repositories, self.home):
            path.mkdir(parents=True)
        (self.home / ".gitconfig").write_text(
            "[user]\n\tname = Alice\n\temail = alice@example.org\n[init]\n\tdefaultBranch = main\n"
            "[core]\n\tfsync = none\n[gc]\n\tauto = 0\n[advice]\n\tdetachedHead = false\n"
            '[protocol "file"]\n\tallow = always\n[maintenance]\n\tauto = false\n'
        )
        for name in ("alice", "bob", "mallory", "host"):
            self.keys[name] = make_key(self.directory, name)
        self.keys["alice-ecdsa"] = make_key(self.directory, "alice-ecdsa", "ecdsa")
        self.keys["alice-rsa"] = make_key(self.directory, "alice-rsa", "rsa", "-b", "2048")
        self._template = self.directory / "template.git"
        self.git("init", "-q", "--bare", str(self._template))
        stream = _history(3, {"README": b"hello\n", "src/main.zig": b"pub fn main() void {}\n"})
        self.git("fast-import", "--quiet", cwd=self._template, input=stream)
        self.git("tag", "v1.0", "main~1", cwd=self._template)
        for name in ("alice/project", "bob/private", "public/library"):
            self.repository(name)

    def people(self) -> dict[str, dict[str, list[str]]]:
        mine = [self.keys[name].line for name in ("alice", "alice-ecdsa", "alice-rsa")]
        return {
            "alice": {"keys": mine, "rules": RULES["alice"]},
            "bob": {"keys": [self.keys["bob"].line], "rules": RULES["bob"]},
        }

    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "SSH_"))}
        return {
            **clean,
            "HOME": str(self.home),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "LC_ALL": "C.UTF-8",
        }

    def git(self, *args: str, cwd: Path | None = None, input: bytes | None = None) -> str:
        """Runs git on this machine alone; its standard output, stripped."""
        answer = subprocess.run(
            ["git", *args],
            check=False,
            cwd=cwd or self.directory,
            env=self.environment(),
            input=input,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
        )
        assert answer.returncode == 0, (args, answer.stderr.decode(errors="replace"))
        return answer.stdout.decode(errors="replace").strip()

    def repository(self, name: str, *, empty: bool = False, bare: bool = True) -> Path:
        """A new repository on the server: three commits, a tag, or nothing at all."""
        path = self.repositories / (f"{name}.git" if bare else name)
        if not bare:
            self.git("clone", "-q", str(self._template), str(path))
        elif empty:
            self.git("init", "-q", "--bare", str(path))
        else:
            shutil.copytree(self._template, path)
        return path

    def large(self, name: str, megabytes: int) -> Path:
        """A repository of incompressible files of one megabyte each."""
        path = self.repository(name, empty=True)
        files = {f"{index}.bin": os.urandom(1 << 20) for index in range(megabytes)}
        self.git("fast-import", "--quiet", cwd=path, input=_history(1, files))
        return path

    def many(self, name: str, files: int, commits: int) -> Path:
        """A repository of many small files and many commits."""
        path = self.repository(name, empty=True)
        content = {f"d{i % 200}/f{i}.txt": f"file {i}\n".encode() for i in range(files)}
        self.git("fast-import", "--quiet", cwd=path, input=_history(commits, content))
        return path

    def objects(self, repository: Path) -> str:
        """What every reference points to: equal in equal repositories. Fails unless whole."""
        self.git("fsck", "--full", "--strict", "--no-dangling", cwd=repository)
        return self.git("for-each-ref", "--format=%(refname) %(objectname)", cwd=repository)


def _history(commits: int, files: dict[str, bytes]) -> bytes:
    """A fast-import stream: the first commit adds `files`, each further one changes one of them."""
    out: list[bytes] = []

    def commit(number: int) -> None:
        text = f"Change number {number}\n".encode()
        who = b"Alice <alice@example.org> %d +0000" % (1_700_000_000 + number)
        out.append(b"commit refs/heads/main\n")
        out.append(b"author %s\ncommitter %s\ndata %d\n%s" % (who, who, len(text), text))

    commit(0)
    names = list(files)
    for name, data in files.items():
        out.append(b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(data), data))
    for number in range(1, commits):
        commit(number)
        data = b"changed in commit %d\n" % number
        name = names[number % len(names)].encode()
        out.append(b"M 100644 inline %s\ndata %d\n%s\n" % (name, len(data), data))
    out.append(b"done\n")
    return b"feature done\n" + b"".join(out)


def known_hosts(forge: Forge, port: int) -> Path:
    """A file that knows the server's host key, so that every client checks it."""
    path = forge.directory / f"known_hosts_{port}"
    path.write_text(f"[127.0.0.1]:{port} {forge.keys['host'].line}\n")
    return path


class At:
    """All that `Client` needs to know of a server: the port it is reached at."""

    user = "git"

    def __init__(self, forge: Forge, port: int) -> None:
        self.forge, self.port = forge, port
        self.known_hosts = known_hosts(forge, port)


class Server:
    """A running server process: GitServer under Python or Bun, see `serve`."""

    user = "git"

    def __init__(
        self, forge: Forge, process: subprocess.Popen[str], events: Path, pushes: Path
    ) -> None:
        self.forge = forge
        self.process = process
        self._events = events
        self._pushes = pushes
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server did not start: {_stderr(process)}")
        hello = json.loads(line)
        self.port, self.pid = hello["port"], hello["pid"]
        self.metrics = hello.get("metrics")
        self.known_hosts = known_hosts(forge, self.port)

    def ask(self, request: str) -> dict[str, Any]:
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the server has died: {_stderr(self.process)}"
        return json.loads(line)

    def counters(self) -> dict[str, Any]:
        return self.ask("counters")

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """What has been logged so far; it arrives a moment later than what caused it."""
        lines = self._events.read_text().splitlines() if self._events.exists() else []
        return [e for e in map(json.loads, lines) if name is None or e["event"] == name]

    def wait_for(self, name: str, **fields: object) -> dict[str, Any]:
        """The newest event of that name with those fields, waited for up to ten seconds."""
        deadline = time.monotonic() + 10
        while True:
            for event in reversed(self.events(name)):
                if fields.items() <= event.items():
                    return event
            assert time.monotonic() < deadline, f"no {name} {fields} in {self.events()}"
            time.sleep(0.02)

    def pushes(self) -> list[dict[str, Any]]:
        """What `on_push` has been told of so far."""
        text = self._pushes.read_text() if self._pushes.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def wait_for_push(self, repository: str, count: int = 1) -> list[dict[str, Any]]:
        """All pushes to `repository` once there are so many, waited for up to ten seconds."""
        deadline = time.monotonic() + 10
        while True:
            found = [push for push in self.pushes() if push["repository"] == repository]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, (repository, count, found)
            time.sleep(0.02)

    def settled(self, **wanted: int) -> dict[str, Any]:
        """The counters once the gauges `wanted` are reached, within twenty seconds."""
        deadline = time.monotonic() + 20
        while not wanted.items() <= (counters := self.counters()).items():
            assert time.monotonic() < deadline, (wanted, counters, self.children())
            time.sleep(0.05)
        return counters

    def children(self) -> list[str]:
        """Command lines of the server's child processes, zombies included."""
        return [
            Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") or f"zombie {pid}"
            for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ] + [
            f"child of thread {task.name}"
            for task in Path(f"/proc/{self.pid}/task").iterdir()
            if task.name != str(self.pid) and (task / "children").read_text().strip()
        ]

    def has_no_children(self) -> bool:
        """Whether every child has ended and been waited for, within ten seconds."""
        deadline = time.monotonic() + 10
        while self.children() and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.children() == []

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_kb(self, field: str = "Pss") -> int:
        """Proportional set size: what the process costs this machine. Or "Anonymous": what it has
        allocated, whoever else maps the same libraries."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1])
        raise AssertionError(f"no {field} line")

    def close(self) -> None:
        """Stops the server and checks that it ended well."""
        self.process.stdin.close()
        try:
            code = self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert code == 0, f"the server ended with {code}: {_stderr(self.process)}"


def _stderr(process: subprocess.Popen[str]) -> str:
    process.kill()
    return Path(process.stderr_path).read_text()[-4000:]  # type: ignore[attr-defined]


@contextmanager
def serve(
    forge: Forge,
    path: str = "table",
    *,
    prefix: tuple[str, ...] = (),
    people: dict[str, dict[str, list[str]]] | None = None,
    on_push: dict[str, float] | None = None,
    metrics: bool = False,
    **settings: object,
) -> Iterator[Server]:
    """A server for `forge`. Decisions come from the key "table", a Python "callback" or Bun's
    "queue"; `settings` go to the library; `on_push` has it write down pushes, see `PushFile`;
    `prefix` is a command to run it under."""
    run = forge.directory / f"server-{time.monotonic_ns()}"
    run.mkdir()
    options = {
        "repositories": str(forge.repositories),
        "host_key": str(forge.keys["host"].private),
        "events": str(run / "events.jsonl"),
        "people": people or forge.people(),
        "metrics": metrics,
        "path": path,
        "pushes": {"path": str(run / "pushes.jsonl"), **on_push} if on_push is not None else None,
        "settings": {
            "git_config": {"core.fsync": "none", "gc.auto": "0"},
            "max_unauthenticated_per_ip": 1024,
            **settings,
        },
    }
    program = (
        ["bun", str(HERE / "server_process.ts")]
        if path == "queue"
        else [sys.executable, str(HERE / "server_process.py")]
    )
    with open(run / "stderr", "w") as stderr:
        process = subprocess.Popen(
            [*prefix, *program, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=ROOT,
        )
    process.stderr_path = run / "stderr"  # type: ignore[attr-defined]
    try:
        server = Server(forge, process, run / "events.jsonl", run / "pushes.jsonl")
        yield server
        server.close()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class LoadClient:
    """load_client.c: thousands of connections in seconds. Its head says what the modes do."""

    program: Path

    @contextmanager
    def running(
        self, server: Server, mode: str, count: int, keys: list[Path], threads: int = 16
    ) -> Iterator[subprocess.Popen[str]]:
        words = [mode, str(server.port), str(count), str(threads), *map(str, keys)]
        with subprocess.Popen(
            [str(self.program), *words], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def result(self, process: subprocess.Popen[str]) -> tuple[int, int, int]:
        """Tries or connections made, those that went wrong, and logins."""
        output, _ = process.communicate(timeout=10 * COMMAND_TIMEOUT_S)
        assert process.returncode == 0
        done, failed, let_in = map(int, output.split())
        return done, failed, let_in

    def run(self, server: Server, mode: str, count: int, key: Path, threads: int) -> None:
        """Every one of `count` connections logs in and does what it should."""
        with self.running(server, mode, count, [key], threads) as process:
            assert self.result(process) == (count, 0, count)


class Sshd:
    """OpenSSH's sshd with forced commands, as a check of the tests and for comparisons."""

    def __init__(
        self, forge: Forge, prefix: tuple[str, ...], address: str, forced: bool = True
    ) -> None:
        self.forge = forge
        self.user = getpass.getuser()
        run = forge.directory / f"sshd-{time.monotonic_ns()}"
        run.mkdir(mode=0o755)
        script = [sys.executable, str(HERE / "forced_command.py"), str(forge.repositories)]
        lines = []
        for person in forge.people().values():
            command = shlex.join([*script, json.dumps(person["rules"])])
            quoted = command.replace("\\", "\\\\").replace('"', '\\"')
            only = f'restrict,command="{quoted}" ' if forced else ""
            lines += [f"{only}{key}" for key in person["keys"]]
        (run / "keys").write_text("\n".join(lines) + "\n")
        self.port = free_port()
        (run / "config").write_text(
            f"Port {self.port}\nListenAddress {address}\nHostKey {forge.keys['host'].private}\n"
            f"AuthorizedKeysFile {run / 'keys'}\nStrictModes no\nUsePAM no\nPidFile none\n"
            "PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "AcceptEnv GIT_PROTOCOL\nMaxStartups 1000\nPerSourceMaxStartups none\n"
        )
        Path("/run/sshd").mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [*prefix, shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-f", str(run / "config")],
            stderr=subprocess.DEVNULL,
        )
        self.pid = self.process.pid
        self.known_hosts = known_hosts(forge, self.port)
        if not prefix:
            wait_for_port(self.port)
        else:
            time.sleep(0.5)  # in another network, where its port cannot be tried from here

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=10)


@contextmanager
def sshd(
    forge: Forge,
    *,
    prefix: tuple[str, ...] = (),
    address: str = "127.0.0.1",
    forced: bool = True,
) -> Iterator[Sshd]:
    """sshd; without `forced` commands it runs whatever a client asks for, at its own speed."""
    server = Sshd(forge, prefix, address, forced)
    try:
        yield server
    finally:
        server.close()


def short_path() -> str:
    """For a Unix socket, whose path must be short."""
    return f"/tmp/plue-{os.urandom(6).hex()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.02)


class Client:
    """git and ssh as one person uses them against one server."""

    def __init__(
        self,
        server: Server | Sshd | At,
        key: str | None = "alice",
        *options: str,
        user: str | None = None,
        directory: Path | None = None,
    ) -> None:
        self.server = server
        self.forge = server.forge
        self.user = user or server.user
        self.directory = directory or self.forge.directory
        identity = ["-i", str(self.forge.keys[key].private)] if key else []
        self.ssh_command = [
            *("ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentityAgent=none"),
            *("-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"),
            *("-o", f"UserKnownHostsFile={server.known_hosts}", *identity, *options),
        ]

    def url(self, repository: str) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.server.port}/{repository}"

    def environment(self, protocol: int = 2) -> dict[str, str]:
        return {
            **self.forge.environment(),
            "GIT_SSH_COMMAND": shlex.join(self.ssh_command),
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "protocol.version",
            "GIT_CONFIG_VALUE_0": str(protocol),
        }

    def try_git(
        self, *args: str, cwd: Path | None = None, protocol: int = 2
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", *args],
            check=False,
            cwd=cwd or self.directory,
            env=self.environment(protocol),
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
        )

    def git(self, *args: str, cwd: Path | None = None, protocol: int = 2) -> str:
        answer = self.try_git(*args, cwd=cwd, protocol=protocol)
        assert answer.returncode == 0, (args, answer.stdout, answer.stderr)
        return answer.stdout.strip()

    def clone(self, repository: str, name: str, *options: str, protocol: int = 2) -> Path:
        path = self.directory / name
        self.git("clone", "-q", *options, self.url(repository), str(path), protocol=protocol)
        return path

    def ssh(
        self, *command: str, input: bytes = b"", options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[bytes]:
        """Runs a raw command over ssh, as git would."""
        destination = ["-p", str(self.server.port), *options, f"{self.user}@127.0.0.1"]
        return subprocess.run(
            check=False,
            args=[*self.ssh_command, *destination, "--", *command],
            env=self.forge.environment(),
            input=input,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
        )


def commit(forge: Forge, worktree: Path, name: str, content: bytes = b"more\n") -> str:
    """Adds a file and commits it; the commit's id."""
    (worktree / name).parent.mkdir(parents=True, exist_ok=True)
    (worktree / name).write_bytes(content)
    forge.git("add", "-A", cwd=worktree)
    forge.git("commit", "-q", "-m", f"Add {name}", cwd=worktree)
    return forge.git("rev-parse", "HEAD", cwd=worktree)
