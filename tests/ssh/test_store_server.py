"""A running server follows its store, on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from pyplue.ssh import GitServer, SshConfigError, SshDatabaseError, SshError
from pyplue.ssh.store import Store, changes
from pyplue.ssh.store.snapshot import _usable

from .big_team import fill
from .forge import Client, Forge, commit, free_port, known_hosts, short_path
from .postgres import Postgres
from .test_store_public_keys import line as key_line

THE_STATED_SECOND = 1.0


class StoreServer:
    """A GitServer of this process and its store, in the shape that Client takes."""

    user = "git"

    def __init__(self, forge: Forge, store: Store, server: GitServer) -> None:
        self.forge, self.store, self.server = forge, store, server
        self.port = server.port
        self.known_hosts = known_hosts(forge, server.port)


@contextmanager
def serving(forge: Forge, store: Store, **settings) -> Iterator[StoreServer]:
    host_key = forge.keys["host"].private
    with GitServer(
        store.repositories.root, store=store, port=0, host_key=host_key, **settings
    ) as server:
        yield StoreServer(forge, store, server)


@pytest.fixture
def store(database: str, tmp_path: Path, forge: Forge) -> Store:
    """alice owns a private and a public repository, bob nothing; mallory's key is unknown."""
    root = tmp_path / "repositories"
    shutil.copytree(forge.repositories / "alice/project.git", root / "alice/project.git")
    shutil.copytree(forge.repositories / "alice/project.git", root / "alice/open.git")
    store = Store(database, root, max_stale_s=60)
    for name in ("alice", "bob"):
        store.users.add(name)
        store.keys.add(name, forge.keys[name].line)
    store.repositories.create("alice/project", adopt=True)
    store.repositories.create("alice/open", adopt=True, public=True)
    return store


def elsewhere(database: str, statement: str) -> None:
    """Plain SQL by another process."""
    if database.startswith("sqlite"):
        program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2])"
        path = database.removeprefix("sqlite:///")
        command = [sys.executable, "-c", f"{program}; c.commit()", path, statement]
    else:
        command = ["psql", "-qX", "-v", "ON_ERROR_STOP=1", database, "-c", statement]
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def reads(client: Client, repository: str) -> bool:
    return client.try_git("ls-remote", client.url(repository)).returncode == 0


def writes(client: Client, repository: str) -> bool:
    """Whether a push is let in; an empty one changes nothing."""
    answer = client.ssh(f"git-receive-pack '{repository}'", input=b"0000")
    return answer.returncode == 0 and b"refs/heads/main" in answer.stdout


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_may_do_what(forge: Forge, store: Store):
    """The table of acceptance: every permission, and each of them taken away again."""
    with serving(forge, store) as running:
        alice, bob, mallory = (Client(running, name) for name in ("alice", "bob", "mallory"))
        private, public = "alice/project", "alice/open"

        def may(client: Client) -> tuple[bool, ...]:
            return tuple(
                does(client, repository) for repository in (private, public)
                for does in (reads, writes)
            )  # fmt: skip

        def after(change: Callable[[], None], client: Client) -> tuple[bool, ...]:
            change()
            running.server.refresh()
            return may(client)

        grant, revoke = store.access.grant, store.access.revoke
        change, add = store.repositories.change, store.keys.add
        everything, read_public, nothing = (True,) * 4, (False, False, True, False), (False,) * 4
        assert may(alice) == everything
        assert may(bob) == read_public
        assert may(mallory) == nothing
        assert after(lambda: grant(private, "bob", "read"), bob) == (True, False, True, False)
        assert after(lambda: grant(private, "bob", "write"), bob) == (True, True, True, False)
        assert after(lambda: grant(public, "bob", "admin"), bob) == everything
        assert after(lambda: revoke(private, "bob"), bob) == (False, False, True, True)
        assert after(lambda: revoke(public, "bob"), bob) == read_public
        assert after(lambda: change(public, public=False), bob) == nothing
        assert after(lambda: add("bob", forge.keys["mallory"].line), mallory) == nothing
        assert after(lambda: change(public, public=True), mallory) == read_public
        assert after(lambda: store.keys.remove_all("bob") and None, bob) == nothing
        assert may(mallory) == nothing
        assert may(alice) == everything
        rename = store.repositories.rename
        assert after(lambda: rename(private, "bob/moved") and None, alice) == (
            (False, False, True, True)
        )  # fmt: skip
        for path in ("alice/PROJECT", "ALICE/open", "alice/open/..", "alice//open", "open"):
            assert not reads(alice, path)


def test_a_push_and_a_clone_go_through(forge: Forge, store: Store, work: Path):
    store.repositories.create("bob/new", default_branch="trunk")
    with serving(forge, store) as running:
        bob = Client(running, "bob", directory=work)
        clone = bob.clone("bob/new", "clone")
        assert forge.git("symbolic-ref", "HEAD", cwd=clone) == "refs/heads/trunk"
        made = commit(forge, clone, "first")
        bob.git("push", "-q", "origin", "trunk", cwd=clone)
        again = bob.clone("bob/new", "again")
        assert forge.git("rev-parse", "HEAD", cwd=again) == made


def test_plain_sql_of_others_counts_within_a_second(forge: Forge, store: Store, database: str):
    with serving(forge, store) as running:
        alice = Client(running)
        assert reads(alice, "alice/project")
        for change, reads_after in [
            ("DELETE FROM ssh_keys WHERE user_id = 1", False),
            ("UPDATE ssh_keys SET user_id = 1, public_key = '{}' WHERE user_id = 2", True),
        ]:
            elsewhere(database, change.format(forge.keys["alice"].line))
            time.sleep(THE_STATED_SECOND)
            assert reads(alice, "alice/project") == reads_after


def test_every_column_that_decides_is_watched(store: Store, database: str):
    watch = store.watch()
    watch.load()

    def may() -> tuple[bool, bool]:
        watch.refresh()
        allowed = watch.allows("alice", "alice/project", True)
        return "alice" in watch._snapshot.keys, allowed

    assert may() == (True, True)
    for change, undo, result in [
        ("users SET is_active = false", "users SET is_active = true", (False, True)),
        ("users SET prohibit_login = true", "users SET prohibit_login = false", (False, True)),
        ("ssh_keys SET key_type = 'deploy'", "ssh_keys SET key_type = 'user'", (False, True)),
        ("ssh_keys SET user_id = 2", "ssh_keys SET user_id = 1", (False, True)),
        (
            "repositories SET name = name || 'x'",
            "repositories SET name = 'project' WHERE id = 1",
            (True, False),
        ),
        ("repositories SET user_id = 2", "repositories SET user_id = 1", (True, False)),
        ("users SET username = 'x' WHERE id = 1", "users SET username = 'alice' WHERE id = 1",
         (False, False)),
    ]:  # fmt: skip
        elsewhere(database, f"UPDATE {change}")
        assert may() == result, change
        elsewhere(database, f"UPDATE {undo}")
        assert may() == (True, True), undo


def test_the_next_command_of_a_running_connection_is_refused(
    forge: Forge, store: Store, database: str
):
    control = short_path()
    options = ("-o", "ControlMaster=auto", "-o", f"ControlPath={control}")
    with serving(forge, store) as running:
        alice = Client(running, "alice", *options, "-o", "ControlPersist=60")
        try:
            assert reads(alice, "alice/project")
            assert Path(control).exists()
            elsewhere(database, "DELETE FROM ssh_keys WHERE user_id = 1")
            time.sleep(THE_STATED_SECOND)
            answer = alice.ssh("git-upload-pack 'alice/project'", input=b"0000")
            assert answer.returncode != 0
            assert b"refs/heads/main" not in answer.stdout
            assert running.server.connection_count == 1
        finally:
            alice.ssh(options=("-O", "exit"))


@pytest.fixture(scope="module")
def large(forge: Forge) -> Path:
    """More than is on its way at any time."""
    return forge.large("store/large", 12)


def test_a_key_is_revoked_while_its_owner_is_cloning(
    forge: Forge, store: Store, database: str, large: Path, work: Path
):
    """The clone that runs ends whole; the next command is refused."""
    shutil.copytree(large, store.repositories.root / "alice/large.git")
    store.repositories.create("alice/large", adopt=True)
    with serving(forge, store) as running:
        alice = Client(running, "alice", directory=work)
        cloning = subprocess.Popen(
            ["git", "clone", "-q", alice.url("alice/large"), str(work / "clone")],
            env=alice.environment(),
            start_new_session=True,
            stderr=subprocess.PIPE,
        )
        packs = work / "clone/.git/objects/pack"
        eventually(lambda: any(path.stat().st_size > 1 << 20 for path in packs.glob("tmp_*")))
        os.killpg(cloning.pid, signal.SIGSTOP)
        assert running.server.counters()["gits_running"] == 1
        elsewhere(database, "DELETE FROM ssh_keys WHERE user_id = 1")
        time.sleep(THE_STATED_SECOND)
        os.killpg(cloning.pid, signal.SIGCONT)
        assert cloning.wait(timeout=60) == 0, cloning.stderr.read()
        forge.git("fsck", "--full", cwd=work / "clone")
        answer = alice.try_git("fetch", cwd=work / "clone")
        assert answer.returncode == 128
        assert "Permission denied (publickey)" in answer.stderr


def test_a_permission_is_lowered_between_fetch_and_push(
    forge: Forge, store: Store, database: str, work: Path
):
    store.access.grant("alice/project", "bob", "write")
    with serving(forge, store) as running:
        bob = Client(running, "bob", directory=work)
        clone = bob.clone("alice/project", "clone")
        commit(forge, clone, "allowed")
        bob.git("push", "-q", "origin", "main", cwd=clone)
        bob.git("fetch", "-q", cwd=clone)
        elsewhere(database, "UPDATE collaborators SET permission = 'read'")
        time.sleep(THE_STATED_SECOND)
        commit(forge, clone, "too late")
        path = store.repositories.root / "alice/project.git"
        before = forge.git("for-each-ref", cwd=path)
        answer = bob.try_git("push", "origin", "main", cwd=clone)
        assert answer.returncode != 0
        assert "repository not found or access denied" in answer.stderr
        bob.git("fetch", cwd=clone)
        assert forge.git("for-each-ref", cwd=path) == before
        forge.git("fsck", "--full", "--strict", cwd=path)


def test_ten_thousand_users_with_thirty_thousand_keys(forge: Forge, store: Store, database: str):
    """./dev bench ssh_store measures it; this only notices when it takes hours."""
    fill(store, 10_000, 30_000)
    begun = time.monotonic()
    with serving(forge, store) as running:
        assert time.monotonic() - begun < 30
        status = running.server.store_status()
        assert (status["users"], status["keys"]) == (10_002, 30_002)
        assert status["repositories"] == 10_002
        alice = Client(running)
        assert reads(alice, "alice/project")
        assert not reads(alice, "user7/project")
        store.access.grant("user7/project", "alice", "read")
        elsewhere(database, "DELETE FROM ssh_keys WHERE user_id = 2")
        running.server.refresh()
        assert running.server.store_status()["keys"] == 30_001
        assert running.server._watch.allows("alice", "user7/project", False)
        assert not reads(Client(running, "bob"), "alice/open")


# ---- the database is away --------------------------------------------------------------------


def away_lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.message
        for record in caplog.records
        if "database" in record.message and record.levelno >= logging.WARNING
    ]


def test_postgresql_is_stopped_and_started_again(
    forge: Forge, postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture, request
):
    database = postgres.new_database()
    caplog.set_level(logging.INFO, "pyplue.ssh")
    store = make_store(database, tmp_path, forge, max_stale_s=60)
    with serving(forge, store) as running:
        alice, mallory = Client(running), Client(running, "mallory")
        assert reads(alice, "alice/project")
        postgres.stop()
        try:
            status = running.server.store_status
            eventually(lambda: not status()["available"])
            assert reads(alice, "alice/project")
            assert writes(alice, "alice/project")
            assert not reads(mallory, "alice/project")
            with pytest.raises(SshDatabaseError, match="is away"):
                running.server.refresh()
            with pytest.raises(SshDatabaseError, match="is away"):
                store.users.all()
            time.sleep(1)
        finally:
            postgres.start()
        eventually(lambda: status()["available"])
        elsewhere(database, "DELETE FROM ssh_keys")
        time.sleep(THE_STATED_SECOND)
        assert not reads(alice, "alice/project")
    gone, back = away_lines(caplog)
    assert f"127.0.0.1:{postgres.port}" in gone and "goes on for 60 s" in gone
    assert back.startswith("the database is back after")


def make_store(database: str, tmp_path: Path, forge: Forge, **settings) -> Store:
    root = tmp_path / "served"
    shutil.copytree(forge.repositories / "alice/project.git", root / "alice/project.git")
    store = Store(database, root, **settings)
    store.users.add("alice")
    store.keys.add("alice", forge.keys["alice"].line)
    store.repositories.create("alice/project", adopt=True)
    return store


def test_everybody_is_refused_once_it_has_been_away_for_too_long(
    forge: Forge, postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store = make_store(postgres.new_database(), tmp_path, forge, max_stale_s=1.5)
    with serving(forge, store) as running:
        alice = Client(running)
        postgres.stop()
        try:
            eventually(lambda: not running.server.store_status()["in_force"])
            time.sleep(0.6)
            assert not reads(alice, "alice/project")
            assert running.server.counters()["keys"] == 0
        finally:
            postgres.start()
        eventually(lambda: reads(alice, "alice/project"))
    gone, refused, back = away_lines(caplog)
    assert "goes on for 1.5 s" in gone
    assert refused.startswith("everybody is refused until the database is back: the database")
    assert "is back after" in back


def test_a_database_that_is_silent_counts_as_away(
    forge: Forge, postgres: Postgres, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """It neither answers nor fails: the answers get too old while the question waits."""
    store = make_store(postgres.new_database(), tmp_path, forge, max_stale_s=1.5)
    with serving(forge, store) as running:
        alice = Client(running)
        assert reads(alice, "alice/project")
        postgres.freeze(True)
        try:
            time.sleep(2.2)
            assert not reads(alice, "alice/project")
            assert not running.server.store_status()["in_force"]
        finally:
            postgres.freeze(False)
        eventually(lambda: reads(alice, "alice/project"))
    refused, late, back = away_lines(caplog)
    assert refused == "everybody is refused until the database is back: it is silent"
    assert late.startswith("the database answers too late; what was read")
    assert back.startswith("the database is back after")


def test_keys_that_cannot_be_put_in_force_are_not_forgotten(
    forge: Forge, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Were it so, a revoked key would go on for good."""
    store = make_store(str(tmp_path / "forge.sqlite"), tmp_path, forge, poll_s=0.1, max_stale_s=0.5)
    watch = store.watch()
    watch.load()
    in_force: list[object] = []

    def refuse(keys: object) -> None:
        if keys:
            raise SshError("the table is full")
        in_force.append(keys)

    watch.start(refuse)
    try:
        store.keys.add("alice", forge.keys["bob"].line)
        eventually(lambda: not watch.status()["in_force"])
        eventually(lambda: in_force == [{}])
        assert not watch.allows("alice", "alice/project", False)
        assert "the table is full" in watch.status()["error"]
        watch._apply = in_force.append
        eventually(lambda: watch.status()["available"])
        assert len(in_force[-1]["alice"]) == 2
        assert watch.allows("alice", "alice/project", False)
    finally:
        watch.stop()


def test_what_is_read_before_it_can_be_put_in_force_is_not_forgotten(forge: Forge, tmp_path: Path):
    """By somebody who asks for a refresh while the server starts."""
    store = make_store(str(tmp_path / "forge.sqlite"), tmp_path, forge, poll_s=0.05)
    watch = store.watch()
    in_force = [watch.load()]
    store.keys.remove_all("alice")
    watch.refresh()
    watch.start(in_force.append)
    try:
        eventually(lambda: in_force[-1] == {}, 5)
        time.sleep(0.2)
        assert len(in_force) == 2  # once, and not at every question
    finally:
        watch.stop()


def test_a_database_that_is_back_wins_over_a_refusal_under_way(forge: Forge, tmp_path: Path):
    """Otherwise nobody could log in until some key changes."""
    store = make_store(str(tmp_path / "forge.sqlite"), tmp_path, forge, poll_s=0.1, max_stale_s=0.3)
    watch = store.watch()
    watch.load()
    in_force: list[object] = []
    begun = threading.Event()

    def put_in_force_slowly(keys: object) -> None:
        if not keys:
            begun.set()
            time.sleep(0.6)
        in_force.append(keys)

    watch.start(put_in_force_slowly)
    try:
        with watch._polling:  # the database neither answers nor fails
            eventually(lambda: not watch.status()["in_force"])
            command = threading.Thread(target=watch.allows, args=("alice", "alice/project", False))
            command.start()
            assert begun.wait(10)
        command.join()
        eventually(lambda: watch.status()["in_force"])
        eventually(lambda: bool(in_force[-1]), 2)
    finally:
        watch.stop()


def test_a_log_that_fails_does_not_end_the_watching(
    forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "forge.sqlite"
    store = make_store(str(path), tmp_path, forge, poll_s=0.1)
    watch = store.watch()
    watch.load()
    watch.start(lambda _: None)

    def fail(*_: object) -> None:
        raise MemoryError

    try:
        monkeypatch.setattr(logging.getLogger("pyplue.ssh"), "error", fail)
        path.rename(tmp_path / "away")
        time.sleep(0.3)
        (tmp_path / "away").rename(path)
        eventually(lambda: watch.status()["available"] and watch.status()["age_s"] < 0.2)
    finally:
        watch.stop()


def test_a_server_stops_while_the_database_is_silent(
    forge: Forge, postgres: Postgres, tmp_path: Path
):
    store = make_store(postgres.new_database(), tmp_path, forge)
    with serving(forge, store) as running:
        postgres.freeze(True)
        try:
            time.sleep(0.7)
            start = time.monotonic()
            running.server.stop()
            assert time.monotonic() - start < 10
        finally:
            postgres.freeze(False)


def test_an_sqlite_file_is_away_replaced_and_back(
    forge: Forge, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = tmp_path / "forge.sqlite"
    store = make_store(str(path), tmp_path, forge)
    other = Store(tmp_path / "other.sqlite", tmp_path / "served")
    other.users.add("alice")
    other.keys.add("alice", forge.keys["alice-ecdsa"].line)
    other.repositories.create("alice/project", adopt=True)
    with serving(forge, store) as running:
        first, second = Client(running), Client(running, "alice-ecdsa")
        path.rename(tmp_path / "aside")
        status = running.server.store_status
        eventually(lambda: not status()["available"])
        assert reads(first, "alice/project")
        assert not path.exists()  # a new one would be empty, and the server with it
        (tmp_path / "other.sqlite").rename(path)
        for suffix in ("-wal", "-shm"):
            (tmp_path / f"forge.sqlite{suffix}").unlink(missing_ok=True)
        eventually(lambda: status()["available"])
        assert not reads(first, "alice/project")
        assert reads(second, "alice/project")
    assert len(away_lines(caplog)) == 2


def test_opening_a_store_takes_nobodys_locks(tmp_path: Path):
    """Without them another process believes to be the last one, and removes the -wal in use."""
    path = tmp_path / "forge.sqlite"
    store = Store(path)
    store.users.add("alice")
    watch = store.watch()
    watch.load()
    Store(path)
    for name in ("first", "second"):
        new = f"INSERT INTO repositories (user_id, name) VALUES (1, '{name}')"
        elsewhere(f"sqlite:///{path}", new)
        watch.refresh()
        assert watch.allows("alice", f"alice/{name}", True)
        assert watch.status()["available"]


def test_an_sqlite_file_is_replaced_in_one_step(forge: Forge, tmp_path: Path):
    """As by mv: the old one's -wal stays behind, full of pages that are not the new one's."""
    path = tmp_path / "forge.sqlite"
    store = make_store(str(path), tmp_path, forge)
    other = Store(tmp_path / "other.sqlite")
    for name in ("alice", "carol"):
        other.users.add(name)
    other.keys.add("alice", forge.keys["alice-ecdsa"].line)
    watch = store.watch()
    watch.load()
    store.users.add("bob")
    assert (tmp_path / "forge.sqlite-wal").stat().st_size
    os.link(path, tmp_path / "old.sqlite")
    (tmp_path / "other.sqlite").rename(path)
    watch.refresh()
    assert watch._snapshot.keys == {"alice": (forge.keys["alice-ecdsa"].line,)}
    assert not watch.allows("alice", "alice/project", False)
    elsewhere(f"sqlite:///{path}", "DELETE FROM ssh_keys")
    watch.refresh()
    assert watch._snapshot.keys == {}
    assert [user.name for user in store.users.all()] == ["alice", "carol"]
    old = Store(tmp_path / "old.sqlite").users
    assert [user.name for user in old.all()] == ["alice", "bob"]


def test_an_sqlite_file_that_others_use_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pyplue.ssh.store.database.BUSY_TIMEOUT_S", 0.1)
    path = tmp_path / "forge.sqlite"
    store = Store(path)
    watch = store.watch()
    watch.load()
    store.users.add("alice")
    Store(tmp_path / "other.sqlite")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM users").fetchall()
        (tmp_path / "other.sqlite").rename(path)
        watch.refresh()
    assert "the database was replaced while it was in use" in caplog.text


def test_nothing_starts_without_a_database(forge: Forge, tmp_path: Path):
    path = tmp_path / "forge.sqlite"
    store = make_store(str(path), tmp_path, forge)
    path.unlink()
    with pytest.raises(SshDatabaseError, match="is away"), serving(forge, store):
        pass
    assert GitServer(tmp_path, port=0, host_key=tmp_path / "key").start().stop() is None


def test_a_store_decides_alone(tmp_path: Path):
    store = Store(tmp_path / "forge.sqlite", tmp_path)
    for also in (
        {"keys": {"alice": "ssh-ed25519 AAAA"}},
        {"authenticate": lambda *_: None},
        {"authorize": lambda *_: True},
        {"default_access": "read"},
    ):
        with pytest.raises(SshConfigError, match="with store= it decides alone"):
            GitServer(tmp_path, store=store, **also)
    assert GitServer(tmp_path).store_status() is None
    server = GitServer(tmp_path, store=store)
    for change in (
        lambda: server.add_key("alice", "ssh-ed25519 AAAA"),
        lambda: server.remove_key("ssh-ed25519 AAAA"),
        lambda: server.replace_keys({}),
    ):
        with pytest.raises(SshError, match=r"use store\.keys"):
            change()


def test_a_role_that_may_only_read_is_enough_to_serve(
    forge: Forge, postgres: Postgres, tmp_path: Path
):
    database = postgres.new_database()
    make_store(database, tmp_path, forge)
    reader = f"reader_{time.time_ns()}"
    for statement in (
        f"CREATE ROLE {reader} LOGIN",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {reader}",
    ):
        elsewhere(database, statement)
    store = Store(database.replace("plue@", f"{reader}@"), tmp_path / "served")
    with serving(forge, store) as running:
        assert reads(Client(running), "alice/project")
        elsewhere(database, "DELETE FROM ssh_keys")
        time.sleep(THE_STATED_SECOND)
        assert not reads(Client(running), "alice/project")
    with pytest.raises(SshDatabaseError, match="permission denied"):
        store.users.add("bob")


def test_writes_of_another_database_or_table_read_nothing_again(
    postgres: Postgres, tmp_path: Path, forge: Forge, monkeypatch: pytest.MonkeyPatch
):
    """A busy application beside us costs a digest, not a snapshot."""
    database = postgres.new_database()
    watch = make_store(database, tmp_path, forge).watch()
    watch.load()
    snapshots = []
    real = changes.read_snapshot
    monkeypatch.setattr(
        changes, "read_snapshot", lambda *words: snapshots.append(1) or real(*words)
    )
    for statement in ("CREATE TABLE other (x INT)", "INSERT INTO other VALUES (1)"):
        elsewhere(database, statement)
        watch.refresh()
    assert snapshots == []
    elsewhere(database, "UPDATE users SET is_active = false")
    watch.refresh()
    assert snapshots == [1]


class Standby(Postgres):
    """A copy of `primary` that follows it and can only be read."""

    def __init__(self, primary: Postgres, pg_basebackup: str) -> None:
        self._program, self._who = primary._program, primary._who
        self._directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._directory.chmod(0o711)
        self.data = self._directory / "data"
        self.data.mkdir(mode=0o700)
        if self._who:
            os.chown(self.data, self._who["user"], self._who["group"])
        source = primary.url("postgres")
        subprocess.run(
            [pg_basebackup, "-d", source, "-D", self.data, "-R", "-c", "fast", "--no-sync"],
            check=True, capture_output=True, cwd="/", **self._who,
        )  # fmt: skip
        self.port = free_port()
        self.start()

    def has_all_of(self, primary: Postgres) -> bool:
        with (
            psycopg.connect(primary.url("postgres")) as there,
            psycopg.connect(self.url("postgres")) as here,
        ):
            (end,) = there.execute("SELECT pg_current_wal_lsn()").fetchone()
            query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
            return here.execute(query, (end,)).fetchone()[0]


def test_a_standby_misses_no_change(
    forge: Forge, postgres: Postgres, tmp_path: Path, need: Callable[[str], str]
):
    """Its pg_current_snapshot() stays as it is when a transaction ends that is neither the oldest
    nor the newest."""
    database = postgres.new_database()
    store = make_store(database, tmp_path, forge)
    store.users.add("bob")
    elsewhere(database, "CREATE TABLE other (x INT)")
    standby = Standby(postgres, need("pg_basebackup"))
    try:
        url = standby.url(database.rpartition("/")[2])
        watch = Store(url).watch()
        watch.load()
        with psycopg.connect(database) as oldest, psycopg.connect(database) as change:
            oldest.execute("INSERT INTO other VALUES (1)")
            change.execute("DELETE FROM ssh_keys")
            elsewhere(database, "INSERT INTO other VALUES (2)")
            eventually(lambda: standby.has_all_of(postgres))
            watch.refresh()
            assert "alice" in watch._snapshot.keys
            change.commit()
            eventually(lambda: standby.has_all_of(postgres))
            watch.refresh()
            assert watch._snapshot.keys == {}
    finally:
        standby.remove()


# ---- what is in the database may be wrong ----------------------------------------------------


# A security key's application may be any text; the library's table takes 4096 bytes of a key.
TOO_LONG = key_line("sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:" + b"a" * 5000)


def test_rows_that_are_not_clearly_right_let_nobody_in(
    forge: Forge, store: Store, database: str, caplog: pytest.LogCaptureFixture
):
    line = forge.keys["mallory"].line
    bad = [
        f"command=\"x\" {line}", "ssh-ed25519 AAAA", "", "ssh-rsa " + line.split()[1], line[:-6],
        line + "\n" + forge.keys["bob"].line, "\x00", "ssh-dss AAAA", TOO_LONG,
    ]  # fmt: skip
    with store.database.writing() as connection:
        from sqlalchemy import insert

        for number, text in enumerate(bad):
            if "\0" in text and not database.startswith("sqlite"):
                continue
            row = {"user_id": 2, "name": "x", "public_key": text, "fingerprint": str(number)}
            connection.execute(insert(store.keys._tables.ssh_keys).values(row))
    elsewhere(
        database,
        "INSERT INTO users (username, lower_username) VALUES ('a/b', 'a/b'), ('x' || '\n', 'x')",
    )
    elsewhere(database, "INSERT INTO repositories (user_id, name) VALUES (1, 'a/b'), (3, 'c')")
    _usable.cache_clear()  # it warns once of each
    with serving(forge, store) as running:
        assert running.server.store_status()["keys"] >= 2
        assert reads(Client(running, "alice"), "alice/project")
        assert not reads(Client(running, "mallory"), "alice/open")
        assert not running.server._watch.allows("alice", "alice/a/b", True)
        assert not running.server._watch.allows("a/b", "a/b/c", True)
    assert "lets nobody in" in caplog.text


def test_what_sqlite_takes_for_text_hides_nobody_else(
    forge: Forge, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Bytes and NULL go into any column there, and so does text that is no UTF-8."""
    database = tmp_path / "forge.sqlite"
    store = make_store(str(database), tmp_path, forge)
    line = forge.keys["mallory"].line
    for number, broken in enumerate(("x'626f62'", "CAST(x'ff' AS TEXT)", "x'ff'"), 10):
        for statement in (
            "INSERT INTO users (id, username, lower_username) "
            f"VALUES ({number}, {broken}, {number})",
            "INSERT INTO ssh_keys (user_id, name, public_key, fingerprint) "
            f"VALUES ({number}, {broken}, '{line} {number}', '{number}'), "
            f"(1, {broken}, {broken}, {number * 100})",
            f"INSERT INTO repositories (user_id, name) VALUES (1, {broken}), ({number}, 'x')",
            "INSERT INTO collaborators (repository_id, user_id, permission) "
            f"VALUES (1, {number}, 'read')",
        ):
            elsewhere(f"sqlite:///{database}", statement)
    with serving(forge, store) as running:
        assert reads(Client(running, "alice"), "alice/project")
        assert not reads(Client(running, "mallory"), "alice/project")
    assert "lets nobody in: it is no text" in caplog.text


def test_a_key_of_two_people_proves_neither(forge: Forge, store: Store, database: str, caplog):
    line = forge.keys["alice"].line
    elsewhere(
        database,
        "INSERT INTO ssh_keys (user_id, name, public_key, fingerprint) "
        f"VALUES (2, 'again', '{line} other comment', 'SHA256:made-up')",
    )
    with serving(forge, store) as running:
        assert not reads(Client(running, "alice"), "alice/open")
        assert reads(Client(running, "bob"), "alice/open")
    assert "belongs to two users" in caplog.text
    assert line.split()[1] not in caplog.text


def test_changes_are_never_missed(forge: Forge, store: Store, database: str):
    """Somebody writes all the time while the server reads: in the end it knows what is there."""
    stop = threading.Event()

    def write() -> None:
        mine = Store(database)
        while not stop.is_set():
            mine.access.grant("alice/project", "bob", "read")
            mine.access.revoke("alice/project", "bob")

    watch = store.watch()
    watch.load()
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            watch.refresh()
    finally:
        stop.set()
        writer.join()
    watch.refresh()
    assert not watch.allows("bob", "alice/project", False)
    store.access.grant("alice/project", "bob", "read")
    watch.refresh()
    assert watch.allows("bob", "alice/project", False)
