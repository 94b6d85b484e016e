"""The store: the same table of acceptance on SQLite and on a real PostgreSQL server."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psycopg
import pytest

from pyplue.ssh import (
    SshConfigError,
    SshDatabaseError,
    SshError,
    SshNameError,
    SshRefusedError,
)
from pyplue.ssh.names import RepositoryName
from pyplue.ssh.store import Store, directories

from .forge import Forge


@pytest.fixture
def store(database: str, tmp_path: Path) -> Store:
    return Store(database, tmp_path / "repositories")


@pytest.fixture
def team(store: Store, forge: Forge) -> Store:
    """alice with a key and a repository, bob with a key, carol with nothing."""
    for name in ("alice", "bob", "carol"):
        store.users.add(name)
    store.keys.add("alice", forge.keys["alice"].line + " alice@laptop")
    store.keys.add("bob", forge.keys["bob"].line)
    store.repositories.create("alice/project")
    return store


def sql(database: str, *statements: str) -> None:
    """What somebody else's program does to the database, in a connection of its own."""
    if database.startswith("sqlite"):
        connection = sqlite3.connect(database.removeprefix("sqlite:///"))
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()
    else:
        with psycopg.connect(database) as connection:
            for statement in statements:
                connection.execute(statement)


def rows(database: str) -> list[list[tuple]]:
    """Everything in the four tables."""
    tables = ("users", "ssh_keys", "repositories", "collaborators")
    if database.startswith("sqlite"):
        connection = sqlite3.connect(database.removeprefix("sqlite:///"))
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in tables
        ]
    with psycopg.connect(database) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall() for table in tables
        ]


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def test_users_come_and_go(store: Store):
    store.users.add("bob")
    store.users.add("alice")
    assert [user.name for user in store.users.all()] == ["alice", "bob"]
    assert store.users.all()[0].created_at.endswith("Z")
    store.users.remove("alice")
    assert [user.name for user in store.users.all()] == ["bob"]
    with pytest.raises(SshRefusedError, match="there is a user bob already"):
        store.users.add("bob")
    with pytest.raises(SshRefusedError, match="there is no user alice"):
        store.users.remove("alice")


def test_keys_come_and_go(team: Store, forge: Forge):
    line = forge.keys["alice-ecdsa"].line
    assert team.keys.add("alice", f"{line} work laptop")
    assert not team.keys.add("alice", line)
    keys = team.keys.all("alice")
    assert [key.name for key in keys] == ["alice@laptop", "work laptop"]
    assert keys[1].public_key == f"{line} work laptop"
    assert keys[1].user == "alice"
    ssh_keygen = subprocess.run(
        ["ssh-keygen", "-lf", f"{forge.keys['alice-ecdsa'].private}.pub"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert keys[1].fingerprint == ssh_keygen.stdout.split()[1]
    with pytest.raises(SshRefusedError, match="belongs to alice already"):
        team.keys.add("bob", line)
    team.keys.remove(keys[1].fingerprint, str(keys[0].id))
    assert team.keys.all("alice") == []
    assert team.keys.remove_all("bob") == 1
    assert team.keys.all() == []


def test_removing_keys_is_all_or_nothing(team: Store):
    keys = team.keys.all()
    with pytest.raises(SshRefusedError, match="there is no key SHA256:nobody"):
        team.keys.remove(keys[0].fingerprint, "SHA256:nobody")
    for nothing in ("0", "-1", "99999999999999999999", "", "' OR 1=1 --", "²"):
        with pytest.raises(SshRefusedError, match="there is no key"):
            team.keys.remove(nothing)
    assert team.keys.all() == keys


def test_adding_keys_is_all_or_nothing(team: Store, forge: Forge):
    from pyplue.ssh.public_keys import parse_key

    before = team.keys.all()
    new, bobs = (parse_key(forge.keys[name].line) for name in ("mallory", "bob"))
    with pytest.raises(SshRefusedError, match="belongs to bob"):
        team.keys.add_all("alice", [new, bobs])
    assert team.keys.all() == before
    with pytest.raises(SshRefusedError, match="printable"):
        team.keys.add("alice", new.line, name="a\x1b[2Jb")
    assert team.keys.all() == before


def test_a_repository_is_a_row_and_a_directory(team: Store, tmp_path: Path):
    path = team.repositories.create("alice/Second.try", public=True, default_branch="trunk")
    assert path == tmp_path / "repositories/alice/Second.try.git"
    head = (path / "HEAD").read_text().strip()
    assert head == "ref: refs/heads/trunk"
    one = team.repositories.get("alice/Second.try")
    assert (one.name, one.public, one.default_branch, one.path) == (
        ("alice/Second.try", True, "trunk", path)
    )  # fmt: skip
    team.repositories.change("alice/Second.try", default_branch="main")
    assert (path / "HEAD").read_text() == "ref: refs/heads/main\n"
    with pytest.raises(SshNameError):
        team.repositories.change("alice/Second.try", public=False, default_branch="a..b")
    assert team.repositories.get("alice/Second.try").public
    team.repositories.change("alice/Second.try", public=False)
    assert not team.repositories.get("alice/Second.try").public
    team.repositories.remove("alice/Second.try")
    assert not path.exists()
    assert [one.name for one in team.repositories.all()] == ["alice/project"]
    assert team.repositories.all("bob") == []


@pytest.mark.parametrize("name", ["alice/project", "alice/Project", "alice/PROJECT"])
def test_a_name_is_taken_in_any_case(team: Store, tmp_path: Path, name: str):
    before = files(tmp_path / "repositories")
    with pytest.raises(SshRefusedError, match="there is a repository alice/project already"):
        team.repositories.create(name)
    assert files(tmp_path / "repositories") == before


def test_renaming_moves_row_and_directory(team: Store, forge: Forge):
    team.access.grant("alice/project", "bob", "write")
    team.access.grant("alice/project", "carol", "read")
    old = team.repositories.get("alice/project").path
    path = team.repositories.rename("alice/project", "bob/taken-over")
    assert not old.exists()
    assert (path / "HEAD").exists()
    everything = [tuple(grant) for grant in team.access.all()]
    # bob, who now owns it, needs no permission any more.
    assert everything == [
        ("bob/taken-over", "bob", "owner"),
        ("bob/taken-over", "carol", "read"),
    ]
    assert team.repositories.rename("bob/taken-over", "bob/Taken-Over").exists()
    team.repositories.create("bob/other")
    with pytest.raises(SshRefusedError, match="bob/other already"):
        team.repositories.rename("bob/Taken-Over", "bob/OTHER")
    with pytest.raises(SshRefusedError, match="there is no user nobody"):
        team.repositories.rename("bob/other", "nobody/other")
    assert team.repositories.get("bob/other").path.exists()


def test_users_with_repositories_stay(team: Store):
    with pytest.raises(SshRefusedError, match="alice still has a repository"):
        team.users.remove("alice")
    assert [user.keys for user in team.users.all() if user.name == "alice"] == [1]
    team.repositories.remove("alice/project")
    team.users.remove("alice")
    assert [key.user for key in team.keys.all()] == ["bob"]


def test_permissions_come_and_go(team: Store):
    grant, revoke = team.access.grant, team.access.revoke
    grant("alice/project", "bob", "read")
    grant("alice/project", "bob", "admin")
    assert [tuple(one) for one in team.access.all("alice/project")] == [
        ("alice/project", "alice", "owner"),
        ("alice/project", "bob", "admin"),
    ]
    assert [one.permission for one in team.access.all(user="bob")] == ["admin"]
    revoke("alice/project", "bob")
    assert [one.user for one in team.access.all()] == ["alice"]
    for refused, reason in [
        (lambda: revoke("alice/project", "bob"), "no permission on alice/project to revoke"),
        (lambda: revoke("alice/project", "alice"), "alice owns"),
        (lambda: grant("alice/project", "alice", "read"), "alice owns"),
        (lambda: grant("alice/project", "dave", "read"), "no user dave"),
        (lambda: grant("alice/nothing", "bob", "read"), "no repository alice/nothing"),
        (lambda: team.access.all("alice/nothing"), "no repository alice/nothing"),
        (lambda: team.access.all(user="dave"), "no user dave"),
    ]:
        with pytest.raises(SshRefusedError, match=reason):
            refused()
    with pytest.raises(SshNameError, match="no permission: use read, write, admin"):
        grant("alice/project", "bob", "owner")
    assert [one.user for one in team.access.all()] == ["alice"]


# ---- nothing half done -----------------------------------------------------------------------


def test_a_directory_in_the_way_is_not_touched(
    team: Store, database: str, tmp_path: Path, forge: Forge
):
    for name in ("mine.git", "mine"):
        place = tmp_path / "repositories/alice" / name
        forge.git("init", "-q", "--bare", str(place))
        before = rows(database)
        with pytest.raises(SshRefusedError, match="exists already, but not in the database"):
            team.repositories.create("alice/mine")
        assert rows(database) == before
        assert team.repositories.create("alice/mine", adopt=True) == place
        team.repositories.remove("alice/mine")
        assert not place.exists()


@pytest.mark.parametrize("owner", ["alice", "..", ".", "", "bob/.."])
@pytest.mark.parametrize("name", ["../../outside", "..", ".", "", "/", "outside"])
def test_a_name_that_leads_elsewhere_touches_no_directory(
    team: Store, tmp_path: Path, forge: Forge, owner: str, name: str
):
    """Another program wrote it; only the row goes."""
    outside = tmp_path / "outside.git"
    forge.git("init", "-q", "--bare", str(outside))
    before = files(tmp_path / "repositories"), files(outside)
    with team.database.writing() as connection:
        import sqlalchemy as sa

        if owner != "alice":
            user = {"username": owner, "lower_username": owner}
            connection.execute(sa.insert(team.users._tables.users).values(user))
        identity = team.users._user_id(connection, owner)
        row = {"user_id": identity, "name": name}
        connection.execute(sa.insert(team.repositories._tables.repositories).values(row))
    text = f"{owner}/{name}"
    with contextlib.suppress(SshRefusedError, SshNameError):
        team.repositories.rename(text, "alice/stolen")
    with contextlib.suppress(SshRefusedError, SshNameError):
        team.repositories.change(text, default_branch="stolen")
    with contextlib.suppress(SshRefusedError, SshNameError):
        team.repositories.remove(text)
    assert (files(tmp_path / "repositories"), files(outside)) == before


def test_only_a_repository_can_be_adopted(team: Store, tmp_path: Path):
    (tmp_path / "repositories/alice/notes").mkdir()
    elsewhere = team.repositories.get("alice/project").path
    (tmp_path / "repositories/alice/link.git").symlink_to(elsewhere)
    for name, reason in [("notes", "no Git repository"), ("link", "missing"), ("no", "missing")]:
        with pytest.raises(SshRefusedError, match=reason):
            team.repositories.create(f"alice/{name}", adopt=True)
    assert [one.name for one in team.repositories.all()] == ["alice/project"]


def test_a_failing_commit_moves_the_directory_back(team: Store, tmp_path: Path, monkeypatch):
    """The database goes away at the very last moment of each operation."""
    import sqlalchemy as sa

    root = tmp_path / "repositories"
    before = files(root)

    def fail(_):
        raise sa.exc.OperationalError("COMMIT", {}, Exception("the power is gone"))

    engine = team.database._engine
    sa.event.listen(engine, "commit", fail)
    try:
        for operation in (
            lambda: team.repositories.create("alice/new"),
            lambda: team.repositories.create("bob/first"),
            lambda: team.repositories.rename("alice/project", "bob/other"),
            lambda: team.repositories.remove("alice/project"),
        ):
            with pytest.raises(SshDatabaseError, match="the power is gone"):
                operation()
    finally:
        sa.event.remove(engine, "commit", fail)
    assert {name for name in files(root) if name != "bob"} == before
    assert [one.name for one in team.repositories.all()] == ["alice/project"]


def test_what_is_being_removed_is_not_swept_by_another_process(team: Store, tmp_path: Path):
    """The commit may still fail, or never come."""
    import sqlalchemy as sa

    project = team.repositories.get("alice/project").path
    os.utime(project, (0, 0))  # nobody has worked on it for an hour
    before = files(project)

    def fail(_):
        elsewhere = directories.Directories(tmp_path / "repositories")
        elsewhere.prepare(RepositoryName("alice", "other"), "main")
        raise sa.exc.OperationalError("COMMIT", {}, Exception("the power is gone"))

    engine = team.database._engine
    sa.event.listen(engine, "commit", fail)
    try:
        with pytest.raises(SshDatabaseError, match="the power is gone"):
            team.repositories.remove("alice/project")
    finally:
        sa.event.remove(engine, "commit", fail)
    assert files(project) == before


def test_a_disk_that_refuses_leaves_no_row(team: Store, tmp_path: Path):
    (tmp_path / "repositories/bob").write_text("a file where a directory is needed")
    with pytest.raises(SshError, match="repositories/bob"):
        team.repositories.create("bob/new")
    with pytest.raises(SshError, match="repositories/bob"):
        team.repositories.rename("alice/project", "bob/new")
    assert [one.name for one in team.repositories.all()] == ["alice/project"]
    assert team.repositories.get("alice/project").path.exists()


KILLED = """
import os, signal, sys
from pyplue.ssh.store import Store
from pyplue.ssh.store import directories

moment, operation, database, root = sys.argv[1:]
real = os.rename
def rename(source, target):
    if moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
    os.kill(os.getpid(), signal.SIGKILL)
directories.os.rename = rename
store = Store(database, root)
{
    "create": lambda: store.repositories.create("alice/new"),
    "rename": lambda: store.repositories.rename("alice/project", "alice/new"),
    "remove": lambda: store.repositories.remove("alice/project"),
}[operation]()
"""


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("operation", ["create", "rename", "remove"])
def test_whoever_is_killed_in_between_can_do_it_again(
    team: Store, database: str, tmp_path: Path, operation: str, moment: str
):
    root = tmp_path / "repositories"
    killed = subprocess.run([sys.executable, "-c", KILLED, moment, operation, database, str(root)])
    assert killed.returncode == -signal.SIGKILL
    # No row has come, gone or changed, and nothing is served that has none.
    assert [one.name for one in team.repositories.all()] == ["alice/project"]
    if operation == "create":
        if moment == "after":
            with pytest.raises(SshRefusedError, match="--adopt"):
                team.repositories.create("alice/new")
        team.repositories.create("alice/new", adopt=moment == "after")
        wanted = ["alice/new", "alice/project"]
    elif operation == "rename":
        team.repositories.rename("alice/project", "alice/new")
        wanted = ["alice/new"]
    else:
        team.repositories.remove("alice/project")
        wanted = []
    assert [one.name for one in team.repositories.all()] == wanted
    assert all(one.path and (one.path / "HEAD").exists() for one in team.repositories.all())
    # What the killed process left is deleted an hour later.
    for path in root.glob("alice/.pyplue-*"):
        os.utime(path, (0, 0))
    team.repositories.create("alice/later")
    assert not list(root.glob("alice/.pyplue-*"))


BUSY = """
import random, sys
from pyplue.ssh import SshRefusedError
from pyplue.ssh.store import Store

store = Store(*sys.argv[1:])
print("ready", flush=True)
while True:
    name, other = (f"alice/{random.choice('abcd')}" for _ in range(2))
    try:
        random.choice([
            lambda: store.repositories.create(name),
            lambda: store.repositories.create(name, adopt=True),
            lambda: store.repositories.rename(name, other),
            lambda: store.repositories.remove(name),
            lambda: store.access.grant(name, "bob", "read"),
        ])()
    except SshRefusedError:
        pass
"""


def test_processes_killed_at_any_moment_leave_what_can_be_put_right(
    team: Store, database: str, tmp_path: Path
):
    """PLUE_SSH_STORE_KILLS (3) is how many are killed at work."""
    root = tmp_path / "repositories"
    for number in range(int(os.environ.get("PLUE_SSH_STORE_KILLS", "3"))):
        process = subprocess.Popen(
            [sys.executable, "-c", BUSY, database, str(root)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.1 + random.random() / 5)
        assert process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()
        # One step at most is between row and directory: whichever is alone goes by itself.
        listed = {one.name: one.path for one in team.repositories.all()}
        alone = [name for name, path in listed.items() if path is None]
        orphans = [
            path.stem
            for path in (root / "alice").glob("[a-z].git")
            if f"alice/{path.stem}" not in listed
        ]
        assert len(alone) <= 1 and len(orphans) <= 1, (number, alone, orphans)
        for name in orphans:
            team.repositories.create(f"alice/{name}", adopt=True)
        for name in alone:
            team.repositories.remove(name)
        for one in team.repositories.all():
            assert one.path and (one.path / "HEAD").read_text() == "ref: refs/heads/main\n"
    if database.startswith("sqlite"):
        connection = sqlite3.connect(database.removeprefix("sqlite:///"))
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_of_many_who_create_the_same_one_wins(team: Store, database: str, tmp_path: Path):
    outcomes: list[str] = []

    def create() -> None:
        store = Store(database, tmp_path / "repositories")
        try:
            store.repositories.create("bob/same")
            outcomes.append("created")
        except SshRefusedError as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("created") == 1, outcomes
    assert set(outcomes) == {"created", "there is a repository bob/same already"}
    assert os.listdir(tmp_path / "repositories/bob") == ["same.git"]


def test_many_who_open_a_new_database_make_its_tables_once(database: str):
    errors: list[Exception] = []

    def open_it() -> None:
        try:
            Store(database).users.all()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# ---- the database ----------------------------------------------------------------------------

PLUE = """
CREATE TABLE users (
    id {serial}, username VARCHAR(255) UNIQUE NOT NULL, lower_username VARCHAR(255) UNIQUE NOT NULL,
    email VARCHAR(255) UNIQUE, is_active BOOLEAN NOT NULL DEFAULT true,
    prohibit_login BOOLEAN NOT NULL DEFAULT false, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE ssh_keys (
    id {serial}, user_id INTEGER NOT NULL REFERENCES users(id) ON DELETE CASCADE,
    name VARCHAR(255) NOT NULL, public_key TEXT NOT NULL,
    fingerprint VARCHAR(255) NOT NULL UNIQUE, created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE repositories (
    id {serial}, user_id INTEGER REFERENCES users(id) ON DELETE RESTRICT,
    name VARCHAR(255) NOT NULL, description TEXT, is_public BOOLEAN DEFAULT true,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, UNIQUE (user_id, name));
CREATE TABLE issues (id {serial}, author_id INTEGER REFERENCES users(id) ON DELETE RESTRICT);
"""


def plue_tables(database: str) -> None:
    serial = "INTEGER PRIMARY KEY" if "sqlite" in database else "SERIAL PRIMARY KEY"
    sql(database, *(PLUE.format(serial=serial).strip().split(";")[:-1]))


def test_tables_of_plue_are_used_as_they_are(database: str, tmp_path: Path, forge: Forge):
    plue_tables(database)
    sql(
        database,
        "INSERT INTO users (username, lower_username) VALUES ('Evil_Rabbit', 'evil_rabbit')",
        "INSERT INTO users (username, lower_username, prohibit_login) VALUES ('gone','gone',true)",
        "INSERT INTO repositories (user_id, name) VALUES (1, 'burrow')",
    )
    store = Store(database, tmp_path / "repositories")
    store.keys.add("Evil_Rabbit", forge.keys["alice"].line)
    store.keys.add("gone", forge.keys["bob"].line)
    store.users.add("bob")
    store.access.grant("Evil_Rabbit/burrow", "bob", "write")
    store.repositories.create("bob/new")
    watch = store.watch()
    assert list(watch.load()) == ["Evil_Rabbit"]  # who is prohibited to log in does not
    assert watch.allows("bob", "Evil_Rabbit/burrow", True)
    assert watch.allows("bob", "bob/new", True)
    assert watch.allows("anybody", "Evil_Rabbit/burrow", False)  # public there, private here
    assert not watch.allows("anybody", "bob/new", False)
    sql(database, "INSERT INTO issues (author_id) SELECT id FROM users WHERE username = 'gone'")
    with pytest.raises(SshRefusedError, match="the database refuses it"):
        store.users.remove("gone")
    assert len(store.keys.all("gone")) == 1


def test_a_table_of_another_application_is_refused(database: str, tmp_path: Path):
    sql(database, "CREATE TABLE users (id INTEGER PRIMARY KEY, login TEXT)")
    with pytest.raises(SshDatabaseError, match=r"users is another application's.*username"):
        Store(database)
    assert "login" in str(columns(database, "users"))


def columns(database: str, table: str) -> list[str]:
    import sqlalchemy as sa

    url = database.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    return [column["name"] for column in sa.inspect(engine).get_columns(table)]


def test_a_column_that_the_application_insists_on_is_named(database: str):
    sql(
        database,
        "CREATE TABLE users (id INTEGER PRIMARY KEY DEFAULT 1, username TEXT, email TEXT NOT NULL)",
    )
    with pytest.raises(SshRefusedError, match=r"the database refuses it: .*email"):
        Store(database).users.add("alice")


def test_opening_it_again_changes_nothing(team: Store, database: str, tmp_path: Path):
    before = rows(database)
    assert Store(database, tmp_path / "repositories").keys.all() == team.keys.all()
    assert rows(database) == before


def test_fingerprints_are_indexed_and_unique(team: Store, database: str):
    """PostgreSQL's planner prefers a scan while a table is small; the index is there."""
    line = team.keys.all()[0]
    duplicate = (
        "INSERT INTO ssh_keys (user_id, name, public_key, fingerprint) "
        f"VALUES (1, 'again', '{line.public_key}', '{line.fingerprint}')"
    )
    with pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):
        sql(database, duplicate)
    query = f"SELECT user_id FROM ssh_keys WHERE fingerprint = '{line.fingerprint}'"
    if database.startswith("sqlite"):
        connection = sqlite3.connect(database.removeprefix("sqlite:///"))
        plan = str(connection.execute(f"EXPLAIN QUERY PLAN {query}").fetchall())
    else:
        with psycopg.connect(database) as connection:
            connection.execute("SET enable_seqscan = off")
            plan = str(connection.execute(f"EXPLAIN {query}").fetchall())
    assert "INDEX" in plan.upper(), plan


def test_an_id_is_never_given_twice(store: Store, database: str):
    """Rows that somebody left behind (the sqlite3 program checks no foreign keys) are nobody's."""
    store.users.add("alice")
    sql(database, "DELETE FROM users")
    store.users.add("bob")
    ids = rows(database)[0]
    assert ids[0][0] == 2


def test_an_sqlite_file_is_its_owners_alone(tmp_path: Path):
    path = tmp_path / "forge.sqlite"
    old = os.umask(0)
    try:
        store = Store(path)
        store.users.add("alice")
        with store.database.reading() as connection:
            pragmas = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "foreign_keys", "busy_timeout")
            }
            assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}
    finally:
        os.umask(old)
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}
    path.chmod(0o666)
    with pytest.raises(SshDatabaseError, match=r"everybody can write.*chmod 600"):
        store.users.all()


def test_a_file_that_may_not_be_written_is_explained(tmp_path: Path, monkeypatch):
    Store(tmp_path / "forge.sqlite")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may
    with pytest.raises(SshDatabaseError, match="is away: Permission denied"):
        Store(tmp_path / "forge.sqlite")


def test_a_link_to_an_sqlite_file_that_is_missing_makes_it_there(tmp_path: Path):
    (tmp_path / "link").symlink_to(tmp_path / "forge.sqlite")
    Store(tmp_path / "link").users.add("alice")
    assert (tmp_path / "forge.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_database_that_is_busy_is_waited_for(tmp_path: Path):
    store = Store(tmp_path / "forge.sqlite")
    other = sqlite3.connect(tmp_path / "forge.sqlite", check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.3, other.commit).start()
    store.users.add("alice")
    other.close()


@pytest.mark.parametrize(
    ("database", "error", "reason"),
    [
        ("mysql://root@localhost/x", SshConfigError, "use sqlite:///FILE or postgresql://"),
        ("nonsense://x", SshConfigError, "use sqlite:///FILE or postgresql://"),
        ("sqlite://", SshConfigError, "use sqlite:///FILE"),
        ("sqlite:///:memory:", SshConfigError, "use sqlite:///FILE"),
        ("postgresql://a:secret@127.0.0.1:1/x", SshDatabaseError, "a:\\*\\*\\*@.* is away"),
        ("postgresql://a@127.0.0.1:1/x?password=secret", SshDatabaseError, "a@.*/x is away"),
        ("postgresql://127.0.0.1:1/x?sslpassword=secret", SshDatabaseError, "/x is away"),
        ("postgresql://a:very@secret@127.0.0.1:1/x", SshConfigError, "write %40 for that"),
        ("postgresql://a:secret\udcff@127.0.0.1:1/x", SshConfigError, "is not UTF-8"),
        ("/tmp/\udcff.sqlite", SshConfigError, "is not UTF-8"),
        ("/nowhere/at/all/forge.sqlite", SshDatabaseError, "/nowhere/at/all/forge.sqlite is away"),
        ("/", SshDatabaseError, "the database / is away"),
    ],
)
def test_what_is_no_database_is_explained(database: str, error: type[Exception], reason: str):
    with pytest.raises(error, match=reason) as caught:
        Store(database)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 1000)
    with pytest.raises(SshDatabaseError, match="not a database"):
        Store(path)
    assert path.read_text() == "my notes\n" * 1000


def test_without_the_driver_the_cure_is_named(tmp_path: Path):
    program = textwrap.dedent("""
        import sys
        sys.modules["psycopg"] = None
        from pyplue.ssh.store import Store
        try:
            Store("postgresql://x@127.0.0.1/x")
        except OSError as error:
            print(error)
    """)
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'pyplue[postgres]'" in answer.stdout, answer.stderr
