"""What `doctor` asks the database, as the server would. Changes nothing in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from pyplue.ssh.names import RepositoryName
from pyplue.ssh.store import schema
from pyplue.ssh.store.changes import Changes
from pyplue.ssh.store.database import Database
from pyplue.ssh.store.directories import Directories

if TYPE_CHECKING:
    from pyplue.ssh.admin.state import State

_NAMED_MAX = 5

Finding = tuple[Literal["ok", "warning", "broken"], str, str, dict[str, Any]]


def database_checks(state: State) -> Iterator[Finding]:
    """Status, text, cure and details of each finding. Raises SshDatabaseError."""
    database = Database(state.database)
    if database.path is not None and not database.path.exists():
        yield "warning", f"there is no {database.name} yet", "user add makes it", {}
        return
    with database.reading() as connection:
        missing = schema.missing(connection)
        if missing:
            text = f"{database.name} has no table {', '.join(missing)}"
            yield "warning", text, "user add makes what is missing", {"missing": missing}
            return
        tables = schema.look(connection)
        counts = {
            name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for name, table in (
                ("users", tables.users),
                ("keys", tables.ssh_keys),
                ("repositories", tables.repositories),
                ("collaborators", tables.collaborators),
            )
        }
        about, problem = _about(connection)
    words = ", ".join(f"{name} {count}" for name, count in counts.items())
    yield "ok", f"{database.name}, {about}: {words}", "", {"url": database.name, **counts}
    if problem:
        yield "broken", f"{database.name}: {problem}", "bring back a backup", {}
    if database.path is not None and database.path.stat().st_mode & 0o077:
        text = f"others can read {database.path}"
        yield "warning", text, f"chmod 600 {database.path}", {}
    yield from _as_the_server_reads_it(database, state, counts["keys"])


def _as_the_server_reads_it(database: Database, state: State, keys: int) -> Iterator[Finding]:
    changes = Changes(database)
    try:
        snapshot = changes.poll()
    finally:
        changes.close()
    assert snapshot is not None  # noqa: S101 (the first answer always is one)
    useless = keys - sum(map(len, snapshot.keys.values()))
    if useless:
        text = f"{useless} of {keys} keys let nobody in: damaged, too weak, or of blocked users"
        yield "warning", text, "see key list, and the log of serve at its start", {"keys": useless}
    directories = Directories(state.repositories)
    lost = [
        name
        for name in sorted(snapshot.repositories)
        if directories.find(RepositoryName(*name.split("/", 1))) is None
    ]
    if lost:
        names = ", ".join(lost[:_NAMED_MAX]) + (", ..." if len(lost) > _NAMED_MAX else "")
        text = f"{len(lost)} repositories have no directory: {names}"
        yield "warning", text, "bring them back, or repo remove them", {"missing": lost}


def _about(connection: sa.Connection) -> tuple[str, str]:
    """What kind it is, and what is wrong with it."""
    if connection.dialect.name == "sqlite":
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one()
        return f"journal {str(mode).upper()}", "" if found == "ok" else f"it is damaged: {found}"
    version = connection.exec_driver_sql("SHOW server_version").scalar_one()
    return f"PostgreSQL {str(version).split()[0]}", ""
