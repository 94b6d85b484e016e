"""What goes wrong under `serve`: full disks, sudden ends, a database that goes away. What is in the
repository stays whole, the client is told, and the next connection is right."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .forge import Client, Forge, commit
from .postgres import Postgres
from .serving import Frozen, Serving, Team, received, serving

PUSHED_MB = 8


def worktree(alice: Client) -> Path:
    """A clone with a large commit that is not pushed yet."""
    clone = alice.clone("alice/project", "clone")
    for number in range(PUSHED_MB):
        (clone / f"{number}.bin").write_bytes(os.urandom(1 << 20))
    commit(alice.forge, clone, "large", b"")
    return clone


def next_connection_is_right(team: Team, server: Serving, clone: Path, before: str) -> None:
    """Nothing of the failed push is there, and the same push succeeds now."""
    repository = team.path("alice/project")
    assert team.forge.objects(repository) == before
    alice = Client(server, directory=clone.parent)
    assert team.forge.objects(alice.clone("alice/project", "again"))
    alice.git("push", "-q", "origin", "main", cwd=clone)
    assert team.forge.objects(repository) != before
    assert team.forge.git("rev-parse", "main", cwd=repository) == team.forge.git(
        "rev-parse", "main", cwd=clone
    )


# ---- the disk is full ------------------------------------------------------------------------


def in_small_disk(team: Team, need: Callable[[str], str]) -> tuple[str, ...]:
    """A command before `serve` that gives it a mount namespace in which the repositories are on a
    disk with room for half of the push."""
    aside = team.directory / "aside"
    team.repositories.rename(aside)
    team.repositories.mkdir()
    script = (
        f"mount -t tmpfs -o size={PUSHED_MB // 2}m none {shlex.quote(str(team.repositories))} && "
        f"cp -a {shlex.quote(str(aside))}/. {shlex.quote(str(team.repositories))} && "
        'exec "$@"'
    )
    return need("unshare"), "-m", "sh", "-c", script, "sh"


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk: only root may")
@pytest.mark.parametrize("unpack_limit", [1, 100])
def test_the_disk_is_full_while_pushing(
    team: Team, work: Path, need: Callable[[str], str], unpack_limit: int
):
    """For a push that git keeps as one pack, and for one that it takes apart."""
    setting = f"git_config.receive.unpackLimit={unpack_limit}"
    with serving(team, "--set", setting, prefix=in_small_disk(team, need)) as server:
        there = [need("nsenter"), "-t", str(server.pid), "-m", "git", "-C"]
        there.append(str(team.path("alice/project")))

        def objects() -> str:
            subprocess.run([*there, "fsck", "--full", "--strict"], check=True, capture_output=True)
            return subprocess.check_output([*there, "for-each-ref"], text=True)

        alice = Client(server, directory=work)
        clone = worktree(alice)
        before = objects()
        answer = alice.try_git("push", "origin", "main", cwd=clone)
        assert answer.returncode == 1
        assert "No space left on device" in answer.stderr
        assert "remote unpack failed" in answer.stderr
        told = server.wait_for_line("command", direction="push")
        assert told["verdict"] == "nothing updated" and told["level"] == "warning"
        assert objects() == before
        assert "\ngarbage: 0\n" in subprocess.check_output(
            [*there, "count-objects", "-v"], text=True
        )
        # What is small still fits, and reading goes on.
        small = alice.clone("alice/project", "small")
        commit(team.forge, small, "small")
        alice.git("push", "-q", "origin", "main", cwd=small)
        assert objects() != before


def test_a_file_that_may_not_grow_further_is_the_same(team: Team, work: Path):
    """Without a disk of its own: git's files reach their limit, as with a quota."""
    limit = ("sh", "-c", f'trap "" XFSZ; ulimit -f {PUSHED_MB * 1024 // 2 * 2}; exec "$@"', "sh")
    before = team.forge.objects(team.path("alice/project"))
    with serving(team, "--set", "git_config.receive.unpackLimit=1", prefix=limit) as server:
        alice = Client(server, directory=work)
        clone = worktree(alice)
        answer = alice.try_git("push", "origin", "main", cwd=clone)
        assert answer.returncode == 1, answer.stderr
        assert "remote unpack failed" in answer.stderr
    with serving(team) as server:
        alice = Client(server)
        url = alice.url("alice/project")
        team.forge.git("remote", "set-url", "origin", url, cwd=clone)
        next_connection_is_right(team, server, clone, before)


# ---- the server is killed --------------------------------------------------------------------


def test_the_server_is_killed_while_pushing(team: Team, work: Path):
    repository = team.path("alice/project")
    before = team.forge.objects(repository)
    with serving(team, "--set", "git_config.receive.unpackLimit=1") as server:
        port = server.port
        alice = Client(server, directory=work)
        clone = worktree(alice)
        pushing = Frozen(alice, "push", "origin", "main", cwd=clone)
        pushing.freeze_when(lambda: received(repository))
        gits = server.gits()
        assert gits
        server.process.kill()
        server.process.wait()
        status, messages = pushing.thaw()
        assert status != 0
        assert "fatal: the remote end hung up unexpectedly" in messages or (
            "failed to push some refs" in messages
        )
        ended(gits)
    with serving(team, "--port", str(port)) as server:
        next_connection_is_right(team, server, clone, before)


def ended(pids: list[int]) -> None:
    """No git goes on for long without its server."""
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline, "git outlives its server"
        time.sleep(0.02)


def test_the_server_is_killed_again_and_again(team: Team, work: Path):
    """At moments spread over a whole push: whatever it was about to do, nothing is half done."""
    repository = team.path("alice/project")
    clone = None
    for delay_s in (0.0, 0.02, 0.05, 0.1, 0.2):
        with serving(team) as server:
            alice = Client(server, directory=work)
            clone = clone or worktree(alice)
            url = alice.url("alice/project")
            words = ["git", "push", "-q", url, f"main:refs/heads/after-{delay_s}"]
            pushing = subprocess.Popen(
                words, cwd=clone, env=alice.environment(), stderr=subprocess.PIPE
            )
            time.sleep(delay_s)
            server.process.kill()
            server.process.wait()
            _, messages = pushing.communicate(timeout=60)
            assert pushing.returncode == 0 or messages
        team.forge.objects(repository)
    with serving(team) as server:
        alice = Client(server)
        alice.git("push", "-q", alice.url("alice/project"), "main:at-last", cwd=clone)
    assert "refs/heads/at-last" in team.forge.objects(repository)


# ---- permissions change ----------------------------------------------------------------------


def test_a_key_is_removed_by_command_while_its_owner_is_cloning(team: Team, work: Path):
    """The clone that runs ends whole; the next command is refused, and said to be."""
    team.large("alice/large")
    with serving(team) as server:
        alice = Client(server, directory=work)
        cloning = Frozen(alice, "clone", "-q", alice.url("alice/large"), "clone")
        cloning.freeze_when(lambda: received(work / "clone/.git"))
        assert team.run("key", "remove", team.fingerprint("alice")).returncode == 0
        time.sleep(1)  # the stated second
        status, messages = cloning.thaw()
        assert status == 0, messages
        assert team.forge.objects(work / "clone")
        answer = alice.try_git("fetch", cwd=work / "clone")
        assert "Permission denied (publickey)" in answer.stderr
        server.wait_for_line("connection", verdict="refused: unknown_key")


def test_a_permission_is_lowered_by_command_between_fetch_and_push(team: Team, work: Path):
    assert team.run("access", "grant", "alice/project", "bob", "write").returncode == 0
    with serving(team) as server:
        bob = Client(server, "bob", directory=work)
        clone = bob.clone("alice/project", "clone")
        commit(team.forge, clone, "too late")
        assert team.run("access", "grant", "alice/project", "bob", "read").returncode == 0
        time.sleep(1)
        before = team.forge.objects(team.path("alice/project"))
        answer = bob.try_git("push", "origin", "main", cwd=clone)
        assert answer.returncode != 0
        assert "access denied" in answer.stderr
        assert team.forge.objects(team.path("alice/project")) == before
        bob.git("fetch", "-q", cwd=clone)
        refused = team.ask("log", "--user", "bob", "--repository", "alice/project")
        assert "access grant REPOSITORY USER" in refused.stdout


# ---- the database goes away ------------------------------------------------------------------


def test_postgresql_stops_and_starts_under_serve(
    forge: Forge, postgres: Postgres, tmp_path: Path, work: Path
):
    team = Team(forge, tmp_path, postgres.new_database())
    with serving(team, "--max-stale", "60") as server:
        alice, mallory = Client(server, directory=work), Client(server, "mallory")
        clone = alice.clone("alice/project", "clone")
        postgres.stop()
        try:
            away = server.wait_for_line("server", "is away")
            assert away["level"] == "error"
            assert f"127.0.0.1:{postgres.port}" in away["message"]
            commit(forge, clone, "meanwhile")
            alice.git("push", "-q", "origin", "main", cwd=clone)
            assert "Permission denied (publickey)" in mallory.ssh("x").stderr.decode()
            refused = team.run("user", "list")
            assert refused.returncode == 1
            assert "is away" in refused.stderr
            assert refused.stderr.count("\n") == 1
        finally:
            postgres.start()
        server.wait_for_line("server", "the database is back")
        answer = team.run("key", "remove", team.fingerprint("alice"))
        assert answer.returncode == 0, answer.stderr
        time.sleep(1)  # the stated second
        answer = alice.try_git("fetch", cwd=clone)
        assert answer.returncode == 128
        assert "Permission denied (publickey)" in answer.stderr
    assert len([line for line in server.lines("server") if "is away" in line["message"]]) == 1
    assert forge.objects(team.path("alice/project"))


def test_a_reload_that_waits_for_its_database_can_be_stopped(
    forge: Forge, postgres: Postgres, tmp_path: Path
):
    team = Team(forge, tmp_path, postgres.new_database())
    with serving(team) as server:
        postgres.freeze(True)
        try:
            server.signal(signal.SIGHUP)
            server.wait_for_line("server", "the database has not answered in 5 s")
            assert server.end() == 0
        finally:
            postgres.freeze(False)


def test_it_does_not_start_without_its_database(forge: Forge, postgres: Postgres, tmp_path: Path):
    team = Team(forge, tmp_path, postgres.new_database())
    postgres.stop()
    try:
        answer = team.run("serve", "--port", "0", "--pid-file", tmp_path / "pid")
    finally:
        postgres.start()
    assert answer.returncode == 1
    assert "is away" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (tmp_path / "pid").exists()
