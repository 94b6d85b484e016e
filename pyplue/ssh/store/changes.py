"""Notices that the database has changed, whoever changed it, without triggers or tables of ours.

SQLite counts the commits of others in `PRAGMA data_version`. PostgreSQL's `pg_current_snapshot()`
moves with every transaction that writes; then a digest of our rows says whether it was about them.
On a standby it may stand still, and the digest is asked for every time. Both need no more than the
right to read.
"""

from __future__ import annotations

import secrets
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from pyplue.ssh.errors import SshDatabaseError
from pyplue.ssh.events import logger
from pyplue.ssh.store.database import Database, reading
from pyplue.ssh.store.schema import Tables, look
from pyplue.ssh.store.snapshot import Snapshot, read_snapshot


class Changes:
    """Reads the store again when it is not what it was. For one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: sa.Connection | None = None
        # The file that the connection is on: one put in its place is another database.
        self._identity: tuple[int, int] | None = None
        self._tables: Tables | None = None
        self._marker: object = None
        self._digest: object = None
        # Nobody can prepare rows that go unnoticed without knowing it.
        self._seed = secrets.randbits(62)

    def poll(self) -> Snapshot | None:
        """The store, or None while it is as at the last call. Raises SshDatabaseError.

        After an error the next call connects anew and returns the store in any case.
        """
        try:
            with self._database.explained():
                return self._poll()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Closes the connection; `poll` opens another."""
        connection, self._connection = self._connection, None
        self._marker = self._digest = None
        if connection is not None:
            if self._is_replaced():
                _empty_wal(connection)
            connection.invalidate()
            connection.close()

    def _is_replaced(self) -> bool:
        """Whether another SQLite file, or none, is where ours was."""
        try:
            return _identity(self._database.path) != self._identity
        except SshDatabaseError:
            return True

    def _poll(self) -> Snapshot | None:
        # Before the file is opened: what is put in its place in between is noticed the next time.
        identity = _identity(self._database.path)
        if identity != self._identity:
            self.close()
        if self._connection is None:
            self._identity = identity
            self._connection = self._database.connect()
            with reading(self._connection):
                self._tables = look(self._connection)
        connection, tables = self._connection, self._tables
        assert tables is not None  # noqa: S101 (for the type checker)
        # The marker is taken before the rows: a change in between is read again, never missed.
        marker = self._sqlite_marker() if self._database.is_sqlite else self._snapshot_id()
        if marker is not None and marker == self._marker:
            return None
        with reading(connection):
            digest = None if self._database.is_sqlite else self._rows_digest(connection, tables)
            unchanged = digest is not None and digest == self._digest
            snapshot = None if unchanged else read_snapshot(connection, tables)
        self._marker, self._digest = marker, digest
        return snapshot

    def _sqlite_marker(self) -> object:
        assert self._connection is not None  # noqa: S101
        with reading(self._connection):
            return _scalar(self._connection, "PRAGMA data_version")

    def _snapshot_id(self) -> object:
        """None on a standby: there it lists no transactions under way, and stays as it is when one
        ends that is neither the oldest nor the newest."""
        assert self._connection is not None  # noqa: S101
        with reading(self._connection):
            return _scalar(
                self._connection,
                "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_current_snapshot()::text END",
            )

    def _rows_digest(self, connection: sa.Connection, tables: Tables) -> object:
        """A number for all rows of the four tables, in the columns that we read."""
        sums = []
        for table in (tables.users, tables.ssh_keys, tables.repositories, tables.collaborators):
            columns = [column for column in table.columns if column.name != "created_at"]
            text = sa.cast(sa.func.row(*columns), sa.Text)
            total = sa.func.sum(sa.func.hashtextextended(text, self._seed))
            sums.append(sa.select(total).scalar_subquery())
        return connection.execute(sa.select(*sums)).one()


def _identity(path: Path | None) -> tuple[int, int] | None:
    """Which file it is; None for a database that is none."""
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError as error:
        raise SshDatabaseError(f"the database {path} is away: {error.strerror}") from error
    return found.st_dev, found.st_ino


def _empty_wal(connection: sa.Connection) -> None:
    """Moves what the -wal beside a replaced file holds into that file, wherever it is now: whoever
    opens the new file would take those pages for its own."""
    sqlite = connection.connection.driver_connection
    assert sqlite is not None  # noqa: S101
    try:
        left = sqlite.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error:
        left = True
    if left:
        logger.error(
            "the database was replaced while it was in use, and what is read may be mixed with the "
            "old one: stop all that use it and put it in place again"
        )


def _scalar(connection: sa.Connection, query: str) -> Any:
    return connection.exec_driver_sql(query).scalar_one()
