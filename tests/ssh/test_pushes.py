"""What the host learns of pushes: exactly the references that git has updated, and all of them.

PLUE_SSH_PUSHERS=50 has more of them push at once, PLUE_SSH_KILLED_PUSHES=300 kills more of them.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .forge import At, Client, Forge, Server, commit, serve

PUSHERS = int(os.environ.get("PLUE_SSH_PUSHERS", "8"))
KILLED = int(os.environ.get("PLUE_SSH_KILLED_PUSHES", "24"))
ZERO = "0" * 40

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module", params=["callback", "queue"])
def host(
    request: pytest.FixtureRequest, forge: Forge, need: Callable[[str], str]
) -> Iterator[Server]:
    """A host under Python, and one under Bun."""
    if request.param == "queue":
        need("bun")
    settings = {"git_config": {"receive.advertisePushOptions": "true", "core.fsync": "none"}}
    with serve(forge, request.param, on_push={}, **settings) as running:
        running.references = 5000 if request.param == "callback" else 500
        yield running


@pytest.fixture(scope="module")
def told(forge: Forge) -> Iterator[Server]:
    """A host under Python, for what happens before it is told."""
    with serve(forge, on_push={}) as running:
        yield running


@pytest.fixture
def name(forge: Forge) -> str:
    new = f"alice/pushed-{os.urandom(4).hex()}"
    forge.repository(new)
    return new


def bare(forge: Forge, name: str) -> Path:
    return forge.repositories / f"{name}.git"


def hook(forge: Forge, name: str, kind: str, text: str, interpreter: str = "/bin/sh") -> None:
    path = bare(forge, name) / "hooks" / kind
    path.write_text(f"#!{interpreter}\n{text}\n")
    path.chmod(0o755)


def updates(push: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(u["ref"], u["old"], u["new"]) for u in push["updates"]]


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_every_kind_of_update_is_told_in_order(host, forge, work, name, protocol):
    alice = Client(host, directory=work)
    clone = alice.clone(name, "clone", protocol=protocol)
    before = forge.git("rev-parse", "HEAD", cwd=clone)
    tag = forge.git("rev-parse", "v1.0", cwd=clone)
    first = commit(forge, clone, "first")
    forge.git("tag", "-a", "-m", "annotated", "v2.0", cwd=clone)
    annotated = forge.git("rev-parse", "v2.0", cwd=clone)

    def push(*words: str) -> None:
        alice.git("push", "-q", *words, cwd=clone, protocol=protocol)

    push("origin", "main")
    push("origin", "main:refs/heads/topic", "v2.0")
    forge.git("reset", "-q", "--hard", before, cwd=clone)
    rewritten = commit(forge, clone, "rewritten")
    push("--force", "origin", "main", ":refs/heads/topic", ":refs/tags/v1.0")
    alice.git("fetch", "-q", cwd=clone)
    alice.git("push", "-q", "origin", "main", cwd=clone)  # everything is up to date
    told = host.wait_for_push(name, 3)
    assert [updates(push) for push in told] == [
        [("refs/heads/main", before, first)],
        [("refs/heads/topic", ZERO, first), ("refs/tags/v2.0", ZERO, annotated)],
        [
            ("refs/heads/main", first, rewritten),
            ("refs/heads/topic", first, ZERO),
            ("refs/tags/v1.0", tag, ZERO),
        ],
    ]
    newest = told[-1]
    assert (newest["principal"], newest["confirmed"]) == ("alice", True)
    assert newest["path"] == str(bare(forge, name))
    assert newest["address"] == "127.0.0.1"
    assert newest["fingerprint"].startswith("SHA256:")
    assert abs(newest["time"] - time.time()) < 60
    event = host.wait_for("pushed", repository=name)
    assert event["connection"] == newest["connection"] and event["references"] == 3


def test_what_git_refuses_is_not_told(host, forge, work, name):
    alice = Client(host, directory=work)
    clone = alice.clone(name, "clone")
    hook(forge, name, "update", 'case $1 in */no*) echo "$1 is closed" >&2; exit 1; esac')
    pushed = commit(forge, clone, "file")
    refused = alice.try_git(
        "push", "origin", "main:no1", "main:yes1", "main:no2", "main:yes2", cwd=clone
    )
    assert refused.returncode == 1
    assert "refs/heads/no1 is closed" in refused.stderr
    [push] = host.wait_for_push(name)
    assert updates(push) == [
        ("refs/heads/yes1", ZERO, pushed),
        ("refs/heads/yes2", ZERO, pushed),
    ]
    # All or nothing, and nothing it is.
    refused = alice.try_git("push", "--atomic", "origin", "main:yes3", "main:no3", cwd=clone)
    assert refused.returncode == 1
    hook(forge, name, "pre-receive", "exit 1")
    assert alice.try_git("push", "origin", "main:yes4", cwd=clone).returncode == 1
    (bare(forge, name) / "hooks" / "pre-receive").unlink()
    alice.git("push", "-q", "--atomic", "origin", "main:yes5", "main:yes6", cwd=clone)
    told = host.wait_for_push(name, 2)
    assert [u[0] for u in updates(told[1])] == ["refs/heads/yes5", "refs/heads/yes6"]
    assert len(told) == 2


def test_thousands_of_references_in_one_push(host, forge, work, name):
    alice = Client(host, directory=work)
    clone = alice.clone(name, "clone")
    tip = forge.git("rev-parse", "HEAD", cwd=clone)
    lines = "".join(f"create refs/heads/many/branch-{n:05} {tip}\n" for n in range(host.references))
    forge.git("update-ref", "--stdin", cwd=clone, input=lines.encode())
    alice.git("push", "-q", "origin", "refs/heads/many/*:refs/heads/many/*", cwd=clone)
    [push] = host.wait_for_push(name)
    assert updates(push) == [
        (f"refs/heads/many/branch-{n:05}", ZERO, tip) for n in range(host.references)
    ]


def test_an_on_push_that_raises_is_reported_and_the_next_push_is_told(host, forge, work):
    alice = Client(host, directory=work)
    new = f"alice/{os.urandom(4).hex()}"
    for name in (f"{new}-raise", new):
        forge.repository(name)
        clone = alice.clone(name, name.rpartition("/")[2])
        commit(forge, clone, "file")
        alice.git("push", "-q", "origin", "main", cwd=clone)
    host.wait_for_push(new)
    assert f"{new}-raise" not in [push["repository"] for push in host.pushes()]
    host.settled(pushes_waiting=0)
    python = f"on_push failed for a push to {new}-raise; it is not repeated"
    assert host.wait_for("log")["text"] in (python, "Error: as the test wants")


def test_push_options_shallow_clones_and_names_beyond_ascii(host, forge, work, name):
    alice = Client(host, directory=work)
    clone = alice.clone(name, "clone", "--depth=1")
    pushed = commit(forge, clone, "file")
    branch = 'ünï"code'
    alice.git("push", "-q", "-o", "ci.skip", "-o", "x=y", "origin", f"main:{branch}", cwd=clone)
    [push] = host.wait_for_push(name)
    assert updates(push) == [(f"refs/heads/{branch}", ZERO, pushed)]


def test_a_name_that_is_no_utf8_is_told_as_python_tells_file_names(told, forge, work, name):
    alice = Client(told, directory=work)
    clone = alice.clone(name, "clone")
    tip = forge.git("rev-parse", "HEAD", cwd=clone)
    odd = os.fsdecode(b"refs/heads/caf\xe9")
    alice.git("push", "-q", "origin", f"main:{odd}", cwd=clone)
    [push] = told.wait_for_push(name)
    assert updates(push) == [(odd, ZERO, tip)]


def test_a_signed_push(forge, work, name):
    settings = {"git_config": {"receive.certNonceSeed": "a seed", "core.fsync": "none"}}
    with serve(forge, on_push={}, **settings) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(name, "clone")
        forge.git("config", "gpg.format", "ssh", cwd=clone)
        forge.git("config", "user.signingKey", str(forge.keys["alice"].private), cwd=clone)
        before = forge.git("rev-parse", "HEAD", cwd=clone)
        pushed = commit(forge, clone, "file")
        alice.git("push", "-q", "--signed=yes", "origin", "main", "main:new", cwd=clone)
        [push] = own.wait_for_push(name)
        assert updates(push) == [
            ("refs/heads/main", before, pushed),
            ("refs/heads/new", ZERO, pushed),
        ]
        assert push["confirmed"]


def test_a_repository_with_sha256_names(told, forge, work):
    new = f"alice/sha256-{os.urandom(4).hex()}"
    forge.git("init", "-q", "--bare", "--object-format=sha256", str(bare(forge, new)))
    clone = work / "clone"
    forge.git("init", "-q", "--object-format=sha256", str(clone))
    pushed = commit(forge, clone, "file")
    alice = Client(told, directory=work)
    alice.git("push", "-q", alice.url(new), "main", cwd=clone)
    [push] = told.wait_for_push(new)
    assert updates(push) == [("refs/heads/main", "0" * 64, pushed)]


PROC_RECEIVE = """
import subprocess, sys
def read():
    size = int(sys.stdin.buffer.read(4), 16)
    return sys.stdin.buffer.read(size - 4) if size else None
def write(text=None):
    data = b"0000" if text is None else b"%04x%s" % (len(text) + 4, text)
    sys.stdout.buffer.write(data); sys.stdout.buffer.flush()
while read() is not None: pass
write(b"version=1\\0"); write()
commands = []
while (line := read()) is not None: commands.append(line.split())
for old, new, ref in commands:
    for number in (1, 2):
        made = b"refs/changes/%d" % number
        subprocess.run(["git", "update-ref", made, new], check=True)
        write(b"ok " + ref)
        write(b"option refname " + made)
        write(b"option old-oid " + old)
        write(b"option new-oid " + new)
write()
"""


def test_what_a_proc_receive_hook_has_made_of_it_is_told(forge, work, name):
    settings = {"git_config": {"receive.procReceiveRefs": "refs/for"}}
    hook(forge, name, "proc-receive", PROC_RECEIVE, sys.executable)
    with serve(forge, on_push={}, **settings) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(name, "clone")
        pushed = commit(forge, clone, "file")
        alice.git("push", "-q", "origin", "main:refs/for/main", "main:topic", cwd=clone)
        [push] = own.wait_for_push(name)
    assert updates(push) == [
        ("refs/changes/1", ZERO, pushed),
        ("refs/changes/2", ZERO, pushed),
        ("refs/heads/topic", ZERO, pushed),
    ]


def test_many_who_push_at_once_are_all_told(told, forge, work, name):
    alice = Client(told, directory=work)

    def push(number: int) -> list[tuple[str, str, str]]:
        clone = alice.clone(name, f"clone{number}")
        pushed = [commit(forge, clone, f"{number}-{turn}") for turn in range(2)]
        for tip in pushed:
            alice.git("push", "-q", "origin", f"{tip}:refs/heads/b{number}", cwd=clone)
        shutil.rmtree(clone)
        ref = f"refs/heads/b{number}"
        return [(ref, ZERO, pushed[0]), (ref, pushed[0], pushed[1])]

    with ThreadPoolExecutor(PUSHERS) as pool:
        expected = [update for pair in pool.map(push, range(PUSHERS)) for update in pair]
    pushes = told.wait_for_push(name, 2 * PUSHERS)
    found = [update for push in pushes for update in updates(push)]
    assert sorted(found) == sorted(expected)
    for number in range(PUSHERS):  # each one's own in order
        mine = [update for update in found if update[0] == f"refs/heads/b{number}"]
        assert mine == expected[2 * number : 2 * number + 2]


def test_a_push_counts_although_its_client_was_killed(told, forge, work, name):
    started = work / "started"
    hook(forge, name, "pre-receive", f"touch {started}; sleep 1")
    hook(forge, name, "post-receive", f'echo noise; echo "$PLUE_USER $PLUE_REPO" > {work}/post')
    alice = Client(told, directory=work)
    clone = alice.clone(name, "clone")
    before = forge.git("rev-parse", "HEAD", cwd=clone)
    pushed = commit(forge, clone, "file")
    client = subprocess.Popen(
        ["git", "push", "-q", "origin", "main"],
        cwd=clone,
        env=alice.environment(),
        start_new_session=True,
    )
    deadline = time.monotonic() + 20
    while not started.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(client.pid, signal.SIGKILL)
    client.wait()
    told.wait_for("abandoned", repository=name)
    [push] = told.wait_for_push(name)
    assert updates(push) == [("refs/heads/main", before, pushed)]
    assert push["confirmed"]
    assert forge.git("rev-parse", "main", cwd=bare(forge, name)) == pushed
    assert (work / "post").read_text() == f"alice {name}\n"
    assert told.has_no_children()


def test_a_server_does_not_wait_for_a_push_without_a_client(forge, work, name):
    started = work / "started"
    hook(forge, name, "pre-receive", f"touch {started}; sleep 60")
    with serve(forge, on_push={}, drain_timeout_s=0, kill_grace_s=1) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(name, "clone")
        commit(forge, clone, "file")
        push = ["git", "push", "-q", "origin", "main"]
        environment = alice.environment()
        with subprocess.Popen(push, cwd=clone, env=environment, start_new_session=True) as client:
            deadline = time.monotonic() + 20
            while not started.exists():
                assert time.monotonic() < deadline
                time.sleep(0.01)
            os.killpg(client.pid, signal.SIGKILL)
        own.wait_for("abandoned", repository=name)
        assert own.children()  # it may finish
        assert own.ask("stop")["stopped_s"] < 5
        assert own.has_no_children()
        [told] = own.wait_for_push(name)
        assert told["confirmed"] is False


def test_pushes_killed_at_any_moment_are_told_if_and_only_if_they_count(told, forge, work, name):
    alice = Client(told, directory=work)
    clone = alice.clone(name, "clone")
    start = forge.git("rev-parse", "HEAD", cwd=clone)
    tips = []
    for _ in range(KILLED):
        tips.append(commit(forge, clone, "file", os.urandom(1 << 20)))
        forge.git("reset", "-q", "--hard", start, cwd=clone)
    chance = random.Random(5)
    hook(forge, name, "update", "sleep 0.05")

    def push_and_die(number: int) -> None:
        client = subprocess.Popen(
            [
                "git",
                "push",
                "-q",
                "origin",
                *(f"{tips[number]}:refs/heads/k{number}-{n}" for n in range(3)),
            ],
            cwd=clone,
            env=alice.environment(),
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(chance.uniform(0.03, 0.7))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(client.pid, signal.SIGKILL)
        client.wait()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(push_and_die, range(KILLED)))
    told.settled(connections=0, gits_running=0)
    assert told.has_no_children()
    told.settled(pushes_waiting=0)
    refs = forge.objects(bare(forge, name)).splitlines()
    there = {tuple(line.split()) for line in refs if line.startswith("refs/heads/k")}
    time.sleep(0.1)  # the last one is written down after it is counted
    pushes = [push for push in told.pushes() if push["repository"] == name]
    assert all(push["confirmed"] for push in pushes)
    found = [update for push in pushes for update in updates(push)]
    assert {(ref, new) for ref, old, new in found if old == ZERO} == there
    assert len(found) == len(there)
    print(f"{KILLED} pushes killed, {len(pushes)} counted, with {len(there)} references")


def test_a_push_that_was_cut_off_changes_nothing_and_is_not_told(told, forge, work, name):
    alice = Client(told, directory=work)
    command = f"{ZERO} {'1' * 40} refs/heads/cut\0report-status side-band-64k"
    stream = b"%04x%s0000PACK\0\0\0\2\0\0\0\x09" % (len(command) + 4, command.encode())
    answer = alice.ssh(f"git-receive-pack '{name}'", input=stream)
    assert b"unpack" in answer.stdout
    told.wait_for("finished", repository=name)
    assert b"refs/heads/cut" not in forge.objects(bare(forge, name)).encode()
    told.settled(pushes_waiting=0, gits_running=0)
    assert not [push for push in told.pushes() if push["repository"] == name]


def packet(text: str) -> bytes:
    return b"%04x%s" % (len(text.encode()) + 4, text.encode())


@pytest.mark.parametrize("features", ["", "side-band-64k", "report-status", "report-status-v2"])
def test_a_client_need_not_ask_for_a_report(told, forge, work, name, features):
    tag = forge.git("rev-parse", "v1.0", cwd=bare(forge, name))
    command = packet(f"{tag} {ZERO} refs/tags/v1.0\0 {features}")
    answer = Client(told, directory=work).ssh(f"git-receive-pack '{name}'", input=command + b"0000")
    assert answer.returncode == 0
    assert "v1.0" not in forge.objects(bare(forge, name))
    [push] = told.wait_for_push(name)
    assert updates(push) == [("refs/tags/v1.0", tag, ZERO)]
    assert push["confirmed"] is features.startswith("report")


def test_a_git_that_was_killed_leaves_what_it_was_asked_for_unconfirmed(forge, work, name):
    hook(forge, name, "pre-receive", "sleep 60")
    with serve(forge, on_push={}, git_timeout_s=1, kill_grace_s=0) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(name, "clone")
        before = forge.git("rev-parse", "HEAD", cwd=clone)
        pushed = commit(forge, clone, "file")
        assert alice.try_git("push", "origin", "main", cwd=clone).returncode != 0
        [push] = own.wait_for_push(name)
    assert updates(push) == [("refs/heads/main", before, pushed)]
    assert push["confirmed"] is False
    assert forge.git("rev-parse", "main", cwd=bare(forge, name)) == before


# git would delete the tag: the other names are no names, which it reports, and goes on.
TOO_LONG = [f"{ZERO} {ZERO} refs/heads/{'x' * 50_000}"] * 335


@pytest.mark.parametrize(
    ("lines", "reason", "text"),
    [
        (["hello"], "syntax", "malformed list of references"),
        (TOO_LONG, "too_many_references", "push them in parts"),
    ],
    ids=["no command", "too long"],
)
def test_a_list_that_cannot_be_followed_never_reaches_git(
    told, forge, work, name, lines, reason, text
):
    tag = forge.git("rev-parse", "v1.0", cwd=bare(forge, name))
    lines = [f"{tag} {ZERO} refs/tags/v1.0", *lines]
    stream = b"".join(map(packet, lines)) + b"0000"
    before = forge.objects(bare(forge, name))
    answer = Client(told, directory=work).ssh(f"git-receive-pack '{name}'", input=stream)
    assert answer.returncode == 128
    assert text in answer.stderr.decode()
    told.wait_for("command_refused", reason=reason, repository=name)
    assert forge.objects(bare(forge, name)) == before
    assert told.has_no_children()
    told.settled(gits_running=0, pushes_waiting=0)


def test_a_host_that_falls_behind_has_new_pushes_refused_and_loses_none(forge, work, name):
    with serve(forge, on_push={"delay_s": 2}, push_queue=2) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(name, "clone")

        def push(branch: str) -> subprocess.CompletedProcess[str]:
            commit(forge, clone, branch)
            return alice.try_git("push", "-q", "origin", f"main:{branch}", cwd=clone)

        assert push("one").returncode == 0
        assert push("two").returncode == 0
        refused = push("three")
        assert refused.returncode == 128
        assert "too many pushes wait to be processed, try again later" in refused.stderr
        own.wait_for("command_refused", reason="queue_full", repository=name)
        assert "refs/heads/main" in alice.git("ls-remote", alice.url(name))  # reading goes on
        own.wait_for_push(name, 1)
        assert push("four").returncode == 0
        told = own.wait_for_push(name, 3)
    names = [update[0] for push in told for update in updates(push)]
    assert names == ["refs/heads/one", "refs/heads/two", "refs/heads/four"]


@pytest.mark.parametrize("path", ["table", "queue"])
def test_a_server_that_stops_tells_of_all_pushes_first(forge, work, name, need, path):
    if path == "queue":
        need("bun")
    with serve(forge, path, on_push={"delay_s": 0.3}) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(name, "clone")
        for number in range(4):
            commit(forge, clone, str(number))
            alice.git("push", "-q", "origin", f"main:b{number}", cwd=clone)
    assert [update[0] for push in own.pushes() for update in updates(push)] == [
        f"refs/heads/b{number}" for number in range(4)
    ]


STOPS = """
import sys, threading, time
from pyplue.ssh import GitServer, Principal

def on_push(push):
    print(push.updates[0].ref, push.updates[0].created, flush=True)
    if sys.argv[4] == "stop":
        server.stop()
        done.set()
    else:
        time.sleep(60)

done = threading.Event()
alice = Principal([sys.argv[3]], ["write *"])
server = GitServer(sys.argv[1], port=0, host_key=sys.argv[2], keys={"alice": alice},
                   on_push=on_push, drain_timeout_s=2)
server.start()
print(server.port, flush=True)
if sys.argv[4] == "stop":
    done.wait(30)
else:
    sys.stdin.readline()
    server.stop()
print("stopped", flush=True)
"""


@pytest.mark.parametrize("way", ["stop", "hang"])
def test_an_on_push_may_stop_the_server_or_hang(forge, work, name, way):
    arguments = [str(forge.repositories), str(forge.keys["host"].private), forge.keys["alice"].line]
    process = subprocess.Popen(
        [sys.executable, "-c", STOPS, *arguments, way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        alice = Client(At(forge, int(process.stdout.readline())), directory=work)
        clone = alice.clone(name, "clone")
        commit(forge, clone, "file")
        alice.git("push", "-q", "origin", "main:new", cwd=clone)
        assert process.stdout.readline() == "refs/heads/new True\n"
        process.stdin.close()
        assert process.stdout.read() == "stopped\n"
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()


def test_nobody_is_told_who_did_not_ask(forge, work, name):
    with serve(forge) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(name, "clone")
        commit(forge, clone, "file")
        alice.git("push", "-q", "origin", "main", cwd=clone)
        counters = own.settled(connections=0)
        assert (counters["pushes_total"], counters["pushes_waiting"]) == (0, 0)
        assert own.events("pushed") == []


def test_a_colocated_repository_is_told_with_its_git_directory(told, forge, work):
    new = f"alice/working-{os.urandom(4).hex()}"
    forge.repository(new, bare=False)
    alice = Client(told, directory=work)
    clone = alice.clone(new, "clone")
    pushed = commit(forge, clone, "file")
    refused = alice.try_git("push", "origin", "main", cwd=clone)
    assert refused.returncode == 1
    assert "refusing to update checked out branch: refs/heads/main" in refused.stderr
    alice.git("push", "-q", "origin", "main:topic", cwd=clone)
    [push] = told.wait_for_push(new)
    assert updates(push) == [("refs/heads/topic", ZERO, pushed)]
    assert push["path"] == str(forge.repositories / new / ".git")


def test_a_colocated_repository_may_take_pushes_into_its_work_tree(forge, work):
    new = f"alice/working-{os.urandom(4).hex()}"
    tree = forge.repository(new, bare=False)
    settings = {"git_config": {"receive.denyCurrentBranch": "updateInstead"}}
    with serve(forge, on_push={}, **settings) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(new, "clone")
        commit(forge, clone, "file", b"arrived\n")
        alice.git("push", "-q", "origin", "main", cwd=clone)
        [push] = own.wait_for_push(new)
        assert [update[0] for update in updates(push)] == ["refs/heads/main"]
        assert (tree / "file").read_bytes() == b"arrived\n"
        (tree / "README").write_text("changed by hand\n")
        commit(forge, clone, "another")
        refused = alice.try_git("push", "origin", "main", cwd=clone)
        assert "Working directory has unstaged changes" in refused.stderr
