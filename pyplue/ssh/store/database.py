"""SQLite or PostgreSQL behind one URL: how it is opened, and what its errors mean."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
)

from pyplue.ssh.errors import SshConfigError, SshDatabaseError, SshRefusedError

BUSY_TIMEOUT_S = 5
"""How long a statement waits for another writer's lock."""
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 10
"""PostgreSQL: a statement or an answer that takes longer has failed."""

# One administrator's transaction at a time, so that what it checked is still so when it commits.
_ADVISORY_LOCK = 0x706C7565


class Database:
    """Connections to the one database of a store. Safe to use from any thread."""

    def __init__(self, database: str | os.PathLike[str]) -> None:
        self.url = _url(os.fspath(database))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.name = _name(self.url)
        options: dict[str, Any] = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
        if not self.is_sqlite:
            options = {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1000,
                "application_name": "pyplue.ssh",
            }
            options = {k: v for k, v in options.items() if k not in self.url.query}
        try:
            self._engine = sa.create_engine(
                self.url, poolclass=sa.pool.NullPool, connect_args=options
            )
        except ModuleNotFoundError as error:
            raise SshDatabaseError(
                f"{error.name} is not installed: pip install 'pyplue[postgres]'"
            ) from None
        if self.is_sqlite:
            sa.event.listen(self._engine, "connect", _prepare_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database."""
        return Path(self.url.database or "") if self.is_sqlite else None

    def connect(self) -> sa.Connection:
        """A connection of one's own, to be closed. Call it inside `explained`."""
        if self.path is not None:
            _check_file(self.path)
        return self._engine.connect()

    def create_file(self) -> None:
        """An SQLite file that is missing is made, for its owner alone.

        One that is there is not opened: closing it would drop all locks on it that SQLite holds in
        this process (fcntl(2)). The next program to use it would then believe to be the last one,
        and remove the -wal that the others go on with.
        """
        if self.path is None:
            return
        with _file_errors(self.path):
            try:
                new = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                os.close(os.open(os.path.realpath(self.path), new, 0o600))
            except FileExistsError:
                if not os.access(self.path, os.R_OK | os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees the database at one moment."""
        with self.explained(), self.connect() as connection, reading(connection):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that changes everything or nothing, with no other writer beside it."""
        with self.explained(), self.connect() as connection:
            if self.is_sqlite:
                connection = connection.execution_options(pyplue_begin="BEGIN IMMEDIATE")
            with connection.begin():
                if not self.is_sqlite:
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
                yield connection

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Errors of the database become ours, in one line without a password."""
        try:
            yield
        except IntegrityError as error:
            raise SshRefusedError(f"the database refuses it: {_line(error)}") from error
        except (OperationalError, InterfaceError) as error:
            raise SshDatabaseError(f"the database {self.name} is away: {_line(error)}") from error
        except SQLAlchemyError as error:
            raise SshDatabaseError(f"the database {self.name}: {_line(error)}") from error


@contextmanager
def reading(connection: sa.Connection) -> Iterator[None]:
    """A read-only transaction on a connection that stays open."""
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
        yield


def _url(text: str) -> sa.URL:
    """A URL, or the path of an SQLite file."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SshConfigError("the database's URL or path is not UTF-8: choose another") from None
    if "://" not in text:
        return sa.URL.create("sqlite", database=os.path.abspath(text))
    try:
        url = sa.make_url(text)
        if "@" in (url.host or ""):  # the end of a password, which no message may show
            raise SshConfigError("the database's URL has two @: write %40 for that in a password")
        backend = url.get_backend_name()
        if backend in ("postgres", "postgresql"):
            return url.set(drivername="postgresql+psycopg")
        if backend == "sqlite" and url.database and url.database != ":memory:":
            return url.set(drivername="sqlite", database=os.path.abspath(url.database))
    except SshConfigError:
        raise
    except (ArgumentError, NoSuchModuleError, ValueError):
        pass
    scheme = text.partition("://")[0]
    raise SshConfigError(
        f"no database at a {scheme}: URL of this form: use sqlite:///FILE or "
        "postgresql://USER@HOST/NAME"
    )


def _name(url: sa.URL) -> str:
    """The URL as everybody may read it."""
    secrets = [key for key in url.query if "password" in key.lower()]
    return url.difference_update_query(secrets).render_as_string(hide_password=True)


def _check_file(path: Path) -> None:
    """SQLite would make a file that is missing, and go on with nobody in it."""
    with _file_errors(path):
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if mode & 0o002:
        raise SshDatabaseError(f"everybody can write the database {path}: chmod 600 {path}")


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SshDatabaseError(f"the database {path} is away: {error.strerror}") from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # our BEGIN, not the driver's
    connection.text_factory = _text  # one broken row must not hide all others
    for pragma in ("journal_mode = WAL", "foreign_keys = ON", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _begin_sqlite(connection: sa.Connection) -> None:
    begin = connection.get_execution_options().get("pyplue_begin", "BEGIN")
    connection.exec_driver_sql(begin)


def _line(error: SQLAlchemyError) -> str:
    """The driver's own words; what PostgreSQL adds in further lines may show a row."""
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return text.strip().partition("\n")[0][:300] or type(error).__name__
