"""`GitServer` as Python sees it: settings, decisions, events, and errors with their cure."""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import re
import socket
import subprocess
import sys
import sysconfig
import textwrap
import threading
import time
from pathlib import Path

import pytest

from pyplue import ffi
from pyplue.ssh import GitServer, Principal, Push, SshConfigError, SshError, libssh_version
from pyplue.ssh.callbacks import Callbacks
from pyplue.ssh.events import logger
from pyplue.ssh.pushes import PushFeed

from .forge import BUNDLED, LIBSSH, Client, Forge, known_hosts, serve
from .raw_client import USERAUTH_PK_OK, USERAUTH_SUCCESS, RawClient, load


class InProcess:
    """A GitServer in this process, in the shape that Client takes."""

    user = "git"

    def __init__(self, forge: Forge, server: GitServer) -> None:
        self.forge, self.port = forge, server.port
        self.known_hosts = known_hosts(forge, server.port)


@pytest.fixture
def start(forge: Forge):
    """Starts a server, stopped at the end of the test."""
    running: list[GitServer] = []

    def with_settings(**settings) -> tuple[GitServer, Client]:
        settings.setdefault("host_key", forge.keys["host"].private)
        server = GitServer(forge.repositories, port=0, **settings)
        running.append(server)
        server.start()
        return server, Client(InProcess(forge, server))

    yield with_settings
    for server in running:
        server.stop()


def read(client: Client, repository: str = "alice/project") -> bool:
    answer = client.ssh(f"git-upload-pack '{repository}'", input=b"0000")
    return answer.returncode == 0 and b"refs/heads/main" in answer.stdout


def test_a_key_table_needs_no_function(start, forge):
    mine = Principal([forge.keys["alice"].line + " a comment"], ["read alice/*"])
    server, client = start(keys={"alice": mine})
    asked = server.counters()["decisions_total"]  # since this process began
    assert read(client)
    assert not read(client, "bob/private")
    assert client.ssh("git-receive-pack 'alice/project'").returncode != 0
    assert server.counters()["decisions_total"] == asked


@pytest.mark.parametrize("entry", ["line", "lines", "principal"])
def test_the_ways_to_write_a_table(start, forge, entry):
    line = forge.keys["alice"].line
    value = {"line": line, "lines": [line], "principal": Principal([line])}[entry]
    _, client = start(keys={"alice": value}, default_access="read")
    assert read(client)


def test_keys_alone_open_nothing(start, forge, caplog):
    _, client = start(keys={"alice": forge.keys["alice"].line})
    assert not read(client)
    assert "nobody may read" in caplog.text


def test_functions_decide(start, forge):
    asked = []

    def authenticate(user: str, key: str) -> str | None:
        asked.append((user, key))
        return "alice" if key == forge.keys["alice"].line else None

    def authorize(principal: str, repository: str, write: bool) -> bool:
        asked.append((principal, repository, write))
        return repository == "alice/project" and not write

    _, client = start(authenticate=authenticate, authorize=authorize)
    assert read(client)
    assert not read(client, "bob/private")
    assert asked[:2] == [("git", forge.keys["alice"].line), ("alice", "alice/project", False)]
    assert client.ssh("git-receive-pack '/alice/project.git'").returncode != 0
    assert asked[-1] == ("alice", "alice/project", True)


def test_a_table_and_a_function_together(start, forge):
    _, client = start(
        keys={"bob": Principal([forge.keys["bob"].line], ["read bob/*"])},
        authenticate=lambda user, key: "guest",
        authorize=lambda who, repository, write: who == "guest",
    )
    assert read(client)
    assert read(Client(client.server, "bob"), "bob/private")
    assert not read(Client(client.server, "bob"))


WRONG = {
    "an exception": lambda *_: 1 / 0,
    "True": lambda *_: True,
    "a number": lambda *_: 1,
    "empty": lambda *_: "",
    "bytes": lambda *_: b"alice",
    "too long": lambda *_: "a" * 300,
    "control characters": lambda *_: "alice\nadmin",
    "a NUL": lambda *_: "alice\0admin",
}


@pytest.mark.parametrize("authenticate", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_name_lets_nobody_in(start, authenticate, caplog):
    _, client = start(authenticate=authenticate, default_access="write")
    assert client.ssh("id").returncode == 255
    assert "refused" in caplog.text


@pytest.mark.parametrize("answer", [1, "yes", None, [], object()])
def test_what_is_not_true_allows_nothing(start, answer, caplog):
    _, client = start(
        authenticate=lambda user, key: "alice", authorize=lambda who, repository, write: answer
    )
    assert not read(client)
    assert "not bool" in caplog.text


class FailingLog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise SystemExit


@pytest.mark.parametrize("log_fails", [False, True])
@pytest.mark.parametrize("raised", [asyncio.CancelledError, SystemExit, KeyboardInterrupt])
def test_whatever_a_function_raises_is_a_no(raised, log_fails, caplog, monkeypatch):
    """Called as the library does: what is left to ctypes is printed, and no answer is given."""

    def fail(*_: object) -> None:
        raise raised

    left: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    handler = FailingLog() if log_fails else logging.NullHandler()
    logger.addHandler(handler)
    try:
        callbacks = Callbacks(fail, fail)
        name = ffi.buffer(256)
        address = ctypes.addressof(name)
        line, fingerprint = b"ssh-ed25519 AAAA", b"SHA256:me"
        let_in = callbacks._authenticate_pointer(b"git", line, fingerprint, address, 256)
        allowed = callbacks._authorize_pointer(b"alice", b"alice/project", True)
    finally:
        logger.removeHandler(handler)
    assert (let_in, allowed, left) == (False, False, [])
    assert not callbacks.running_here()
    if not log_fails:
        assert "authenticate failed for SHA256:me, which is refused" in caplog.text
        assert "authorize failed for b'alice'" in caplog.text


@pytest.mark.parametrize("log_fails", [False, True])
def test_whatever_on_push_raises_the_next_push_is_told(log_fails, caplog, monkeypatch):
    fields = ("repository", "path", "principal", "address", "fingerprint", "updates")
    notices = [
        {**dict.fromkeys(fields, ""), "confirmed": True, "connection": 1, "time": 0, "id": number}
        for number in range(3)
    ]
    told: list[Push] = []
    done: list[int] = []

    def on_push(push: Push) -> None:
        told.append(push)
        raise SystemExit

    feed = PushFeed(on_push)
    monkeypatch.setattr(feed, "_next", lambda: notices.pop(0) if notices else None)
    monkeypatch.setattr(ffi.ssh, "plue_ssh_push_done", done.append, raising=False)
    monkeypatch.setattr(feed, "_stop_at", time.monotonic() + 60)
    feed._arrived.set()
    handler = FailingLog() if log_fails else logging.NullHandler()
    logger.addHandler(handler)
    try:
        feed._run()
    finally:
        logger.removeHandler(handler)
    assert len(told) == 3
    assert done == [0, 1, 2]
    assert log_fails or "on_push failed" in caplog.text


def test_an_answer_that_comes_too_late_is_a_no(start):
    def slow(user: str, key: str) -> str:
        time.sleep(0.6)
        return "alice"

    server, client = start(authenticate=slow, default_access="read", decision_timeout_ms=200)
    before = server.counters()["decisions_timeout_total"]
    assert client.ssh("id").returncode == 255
    assert server.counters()["decisions_timeout_total"] > before


def ask(raw: RawClient, forge: Forge, offers: int) -> None:
    """Logs in without waiting for the answers to what comes first."""
    key = load(forge.keys["alice"])
    raw.request_auth()
    with raw.at_once():
        for _ in range(offers):
            raw.offer(key.asbytes())
        raw.sign(key.asbytes(), key)


def test_waiting_for_an_answer_takes_no_time_of_a_processor(start, forge):
    spent = []

    def slow(user: str, key: str) -> str:
        begun = time.process_time()
        time.sleep(1)
        spent.append(time.process_time() - begun)
        return "alice"

    _, client = start(authenticate=slow)
    with RawClient(client.server) as raw:
        ask(raw, forge, offers=1)
        raw.expect(USERAUTH_SUCCESS)
    assert spent[0] < 0.1


def test_answers_to_what_came_before_are_sent_while_a_decision_is_awaited(start, forge):
    is_answered = threading.Event()
    _, client = start(authenticate=lambda user, key: "alice" if is_answered.wait(9) else None)
    with RawClient(client.server) as raw:
        ask(raw, forge, offers=3)
        for _ in range(3):
            raw.expect(USERAUTH_PK_OK, within_s=5)
        is_answered.set()
        raw.expect(USERAUTH_SUCCESS)


def test_a_server_is_stopped_from_inside_its_own_callback(start):
    stopping = threading.Event()

    def authenticate(user: str, key: str) -> str | None:
        server.stop()
        stopping.set()
        return "alice"

    server, client = start(authenticate=authenticate, default_access="read", drain_timeout_s=0)
    client.ssh("id")
    assert stopping.wait(10)
    server.stop()
    assert server.port == 0


def test_keys_come_and_go_while_it_runs(start, forge):
    server, client = start(keys={})
    line = forge.keys["alice"].line
    assert not read(client)
    server.add_key("alice", line, ["read alice/*"])
    assert read(client)
    server.add_key("alice", line, [])
    assert not read(client)
    with pytest.raises(SshConfigError):
        server.add_key("bob", line)
    assert server.remove_key(line)
    assert not server.remove_key(line)
    assert client.ssh("id").returncode == 255
    server.replace_keys({"alice": Principal([line], ["read *"])})
    assert read(client)


def test_a_key_that_was_removed_stays_so_after_a_restart(start, forge):
    mine, other, bobs = (forge.keys[name].line for name in ("alice", "alice-ecdsa", "bob"))
    alice = Principal([mine + " laptop", other], ["read *"])
    server, _ = start(keys={"alice": alice})

    def restarted() -> tuple[int, bool]:
        """How many keys there are, and whether alice's first one reads."""
        server.stop()
        server.start()
        return server.counters()["keys"], read(Client(InProcess(forge, server)))

    assert server.remove_key(mine + " by another name")
    assert restarted() == (1, False)
    server.add_key("alice", mine, ["read bob/*\nread *"])
    server.add_key("bob", bobs)
    assert restarted() == (3, True)
    server.add_key("alice", mine, [])  # takes its rules away
    assert restarted() == (3, False)
    server.replace_keys({"bob": bobs})
    assert restarted() == (1, False)


def test_events_and_counters(start, forge, caplog):
    caplog.set_level(logging.DEBUG, "pyplue.ssh")
    server, client = start(keys={"alice": Principal([forge.keys["alice"].line], ["read *"])})
    before = server.counters()
    assert read(client)
    deadline = time.monotonic() + 5
    while "event" not in caplog.text and "finished" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    server.stop()
    events = [record.event for record in caplog.records if hasattr(record, "event")]
    names = [event["event"] for event in events]
    for wanted in ("listening", "authenticated", "command", "finished", "stopped"):
        assert wanted in names
    command = next(event for event in events if event["event"] == "command")
    assert (command["principal"], command["repository"]) == ("alice", "alice/project")
    after = server.counters()
    assert after["commands_total"] == before["commands_total"] + 1
    assert after["bytes_out_total"] > before["bytes_out_total"]


def test_an_event_queue_of_none_keeps_no_event(start, forge, caplog):
    caplog.set_level(logging.DEBUG, "pyplue.ssh")
    server, client = start(
        keys={"alice": Principal([forge.keys["alice"].line], ["read *"])}, event_queue=0
    )
    before = server.counters()["events_dropped_total"]
    assert read(client)
    server.stop()
    assert not [record for record in caplog.records if hasattr(record, "event")]
    assert server.counters()["events_dropped_total"] > before


def test_start_stop_and_start_again(forge):
    server = GitServer(
        forge.repositories,
        port=0,
        host_key=forge.keys["host"].private,
        keys={"alice": Principal([forge.keys["alice"].line], ["read *"])},
    )
    for _ in range(5):
        assert server.port == 0
        assert not server.running
        with server:
            assert server.running
            assert read(Client(InProcess(forge, server)))
        server.stop()


def test_one_server_for_a_process(start, forge):
    start()
    second = GitServer(forge.repositories, port=0, host_key=forge.keys["host"].private)
    with pytest.raises(SshError, match=r"stop\(\) it first"):
        second.start()
    second.stop()


def test_a_host_key_is_made_for_its_owner_alone(start, work):
    path = work / "new_key"
    server, _ = start(host_key=path)
    assert path.stat().st_mode & 0o777 == 0o600
    text = subprocess.run(
        ["ssh-keygen", "-y", "-f", str(path)], check=True, capture_output=True, text=True
    ).stdout
    assert text.startswith("ssh-ed25519 ")
    scan = ["ssh-keyscan", "-t", "ed25519", "-p", str(server.port), "127.0.0.1"]
    offered = subprocess.run(scan, check=True, capture_output=True, text=True).stdout
    assert text.split()[1] in offered


def test_a_host_key_stays_the_same(start, work):
    server, _ = start(host_key=work / "key")
    first = (work / "key").read_bytes()
    server.stop()
    server.start()
    assert (work / "key").read_bytes() == first


def test_versions():
    major, minor = libssh_version().split(".")[:2]
    assert (int(major), int(minor)) >= (0, 10)


# ---- what is wrong says so, with the cure, and leaves nothing running ---------------------------


def refused(error: type[Exception], words: str, **settings) -> None:
    threads = threading.active_count()
    descriptors = len(os.listdir("/proc/self/fd"))
    server = GitServer(**settings)
    try:
        with pytest.raises(error, match=words):
            server.start()
        assert server.port == 0
    finally:
        server.stop()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) <= descriptors


@pytest.fixture
def good(forge: Forge) -> dict:
    return {"repos": forge.repositories, "port": 0, "host_key": forge.keys["host"].private}


def test_a_port_in_use(good):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(SshError, rf"(?i)port.*{port}|{port}.*in use", **good | {"port": port})


def test_repositories_that_are_missing(good, work):
    refused(SshError, r"nowhere", **good | {"repos": work / "nowhere"})


def test_repositories_that_are_a_file(good, work):
    (work / "file").write_text("")
    refused(SshError, r"file", **good | {"repos": work / "file"})


def test_a_host_key_that_others_may_read(good, forge, work):
    key = work / "open"
    key.write_bytes(forge.keys["host"].private.read_bytes())
    key.chmod(0o644)
    refused(SshError, r"(?s)open.*chmod", **good | {"host_key": key})


def test_a_host_key_that_is_none(good, work):
    key = work / "noise"
    key.write_bytes(b"no key")
    key.chmod(0o600)
    refused(SshError, r"noise", **good | {"host_key": key})


def test_a_host_key_in_a_directory_that_is_missing(good, work):
    refused(SshError, r"missing", **good | {"host_key": work / "missing" / "key"})


def test_git_that_is_missing(good):
    refused(SshError, r"no-such-git", **good | {"git": "no-such-git"})


OLD_LIBSSH = """
const char *ssh_version(int required) { return required ? 0 : "0.10.5/openssl/zlib"; }
"""
TOO_OLD = r"libssh 0\.10\.5/openssl/zlib is too old: at least 0\.10\.6 is needed \(apt-get install"


@pytest.fixture
def old_libssh(work: Path, zig_cc: list[str]) -> dict[str, str]:
    """An environment in which libssh says that it is an old one."""
    if BUNDLED:
        pytest.skip("libssh is inside libplue_ssh: there is no other one to meet")
    (work / "old.c").write_text(OLD_LIBSSH)
    library = work / "old_libssh.so"
    command = [*zig_cc, "-shared", "-fPIC", "-o", str(library), str(work / "old.c")]
    subprocess.run(command, check=True)
    return {**os.environ, "LD_PRELOAD": str(library)}


def test_a_libssh_that_is_too_old_for_python(good, work, old_libssh):
    script = textwrap.dedent(
        f"""
        import os, re, threading, time
        from pyplue.ssh import GitServer, SshError
        descriptors = os.listdir("/proc/self/fd")
        server = GitServer({str(good["repos"])!r}, port=0, host_key={str(work / "new")!r})
        for _ in range(2):
            try:
                server.start()
            except SshError as error:
                assert re.search({TOO_OLD!r}, str(error)), error
            else:
                raise SystemExit("it started")
            assert not server.running
            assert threading.active_count() == 1
            time.sleep(0.1)  # a joined thread stays in /proc for a moment
            assert len(os.listdir("/proc/self/task")) == 1
            assert os.listdir("/proc/self/fd") == descriptors
        server.stop()
        """
    )
    answer = subprocess.run([sys.executable, "-c", script], env=old_libssh, capture_output=True)
    assert answer.returncode == 0, answer
    assert not (work / "new").exists(), "a host key was made for nothing"


def test_a_libssh_that_is_too_old_for_the_command(good, work, old_libssh):
    (work / "config.json").write_text(json.dumps({"repositories": str(good["repos"])}))
    (work / "keys.json").write_text("[]")
    program = Path(sysconfig.get_path("scripts"), "plue-ssh")
    words = ["--config", "config.json", "--keys", "keys.json", "--host-key", "new", "--port", "0"]
    answer = subprocess.run(
        [program, "serve", *words],
        env=old_libssh, cwd=work, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert answer.returncode == 1
    assert re.fullmatch(rf"plue-ssh: {TOO_OLD}.*\n", answer.stderr), answer.stderr
    assert answer.stdout == ""
    assert not (work / "new").exists()


SETTINGS = {
    "unknown name": ({"max_conections": 3}, r"max_conections"),
    "wrong type": ({"max_channels": "3"}, r"max_channels"),
    "out of range": ({"max_channels": 0}, r"max_channels"),
    "negative": ({"login_grace_s": -1}, r"login_grace_s"),
    "a word for a choice": ({"default_access": "all"}, r"default_access"),
    "an address that is a name": ({"host": "localhost"}, r"localhost|bind_address"),
    "a user with a space": ({"user": ""}, r"user"),
}


@pytest.mark.parametrize(("settings", "words"), SETTINGS.values(), ids=SETTINGS.keys())
def test_settings_that_are_wrong(good, settings, words):
    refused((SshConfigError, SshError), words, **good | settings)


def test_an_algorithm_that_this_libssh_lacks(good):
    words = r'"ciphers": libssh .* does not have the algorithm "rot13"'
    refused(SshError, words, **good | {"ciphers": "aes256-ctr,rot13,aes128-ctr"})


@pytest.mark.parametrize(
    "line", ["", "ssh-ed25519", "ssh-ed25519 !!!!", "ssh-dss AAAAB3NzaC1kc3M=", "rubbish", "a\0b"]
)
def test_key_lines_that_are_none(good, line):
    refused(SshConfigError, r"(?i)key|NUL", **good | {"keys": {"alice": line}})


def test_rules_that_are_none(good, forge):
    keys = {"alice": Principal([forge.keys["alice"].line], ["admin *"])}
    refused(SshConfigError, r"(?i)rule", **good | {"keys": keys})


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range(forge, port):
    with pytest.raises(SshConfigError, match="65535"):
        GitServer(forge.repositories, port=port)


def test_a_server_that_is_not_stopped_ends_with_the_process(forge):
    """No hang, no crash and no word on stderr when a script just ends."""
    script = textwrap.dedent(
        f"""
        from pyplue.ssh import GitServer
        server = GitServer({str(forge.repositories)!r}, port=0,
                           host_key={str(forge.keys["host"].private)!r},
                           authenticate=lambda user, key: "alice", default_access="read")
        server.start()
        print(server.port)
        """
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert int(answer.stdout) > 0
    assert "Traceback" not in answer.stderr


def test_python_m_pyplue_ssh_is_the_command():
    answer = subprocess.run(
        [sys.executable, "-m", "pyplue.ssh", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "libssh" in answer.stdout


def spoken(client: Client) -> dict[str, str]:
    """What ssh says of the key exchange: the server's offer, and what was agreed upon."""
    said = client.ssh(options=("-vv", "-T")).stderr.decode()
    offer = said[said.index("peer server KEXINIT proposal") :]
    return {
        "offered": re.search(r"KEX algorithms: (\S+)", offer)[1],
        "agreed": re.search(r"kex: algorithm: (\S+)", said)[1],
    }


def test_the_key_exchange_withstands_quantum_computers_where_libssh_can(forge):
    curve = ["curve25519-sha256", "curve25519-sha256@libssh.org"]
    hybrid = ["mlkem768x25519-sha256"] if LIBSSH >= (0, 12) else []
    theirs = subprocess.run(["ssh", "-Q", "kex"], capture_output=True, text=True, check=True)
    with serve(forge) as server:
        found = spoken(Client(server))
    names = found["offered"].split(",")
    assert [name for name in names if not name.startswith(("ext-", "kex-strict-"))] == [
        *hybrid,
        *curve,
    ]
    assert "kex-strict-s-v00@openssh.com" in names  # against Terrapin, CVE-2023-48795
    common = [name for name in [*hybrid, *curve] if name in theirs.stdout.split()]
    assert found["agreed"] == common[0]


@pytest.mark.skipif(LIBSSH < (0, 12), reason="libssh before 0.12 has no sntrup761")
def test_a_client_that_knows_only_the_older_exchange_against_quantum_computers(forge):
    name = "sntrup761x25519-sha512@openssh.com"  # OpenSSH 8.5 to 9.8
    with serve(forge, kex=f"{name},curve25519-sha256") as server:
        assert spoken(Client(server))["agreed"] == name
        assert Client(server).git("ls-remote", Client(server).url("alice/project"))


def test_ssh_audit_finds_nothing_that_is_not_listed(start, need):
    """Each finding that stays has its reason here."""
    program = Path(need("ssh-audit"))
    server, _ = start()
    answer = subprocess.run(
        [program, "--json", "-p", str(server.port), "127.0.0.1"],
        check=False, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    report = json.loads(answer.stdout)
    found = {}
    for kind in ("kex", "key", "enc", "mac"):
        for algorithm in report[kind]:
            notes = algorithm.get("notes", {})
            worst = notes.get("fail", []) + notes.get("warn", [])
            if worst:
                found[algorithm["algorithm"]] = worst
    reasons = {
        # For clients that have nothing better, and for libssh before 0.12, which has not either.
        "curve25519-sha256": ["does not provide protection against post-quantum attacks"],
        "curve25519-sha256@libssh.org": [
            "does not provide protection against post-quantum attacks"
        ],
    }
    assert found == {name: reasons[name] for name in found if name in reasons}
    assert not report.get("cves")
