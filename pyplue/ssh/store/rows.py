"""What the operations share: finding a user's or a repository's row, counting, times."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa

from pyplue.ssh.errors import SshRefusedError
from pyplue.ssh.names import RepositoryName, check_repository, check_user
from pyplue.ssh.store.database import Database
from pyplue.ssh.store.schema import Tables


class Rows:
    """Base of the operations on one table."""

    def __init__(self, database: Database, tables: Tables) -> None:
        self._database = database
        self._tables = tables

    def _user_id(self, connection: sa.Connection, name: str) -> int:
        users = self._tables.users
        query = sa.select(users.c.id).where(users.c.username == name)
        found: int | None = None
        if name.isprintable():  # what is not may be more than a driver can take
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            check_user(name)
            raise SshRefusedError(f"there is no user {name}: add one first")
        return found

    def _repository_id(self, connection: sa.Connection, text: str) -> tuple[int, RepositoryName]:
        users, repositories = self._tables.users, self._tables.repositories
        owner, _, name = text.partition("/")
        query = (
            sa.select(repositories.c.id)
            .join_from(repositories, users, repositories.c.user_id == users.c.id)
            .where(users.c.username == owner, repositories.c.name == name)
        )
        found: int | None = None
        if text.isprintable():
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            check_repository(text)
            raise SshRefusedError(f"there is no repository {text}: create it first")
        return found, RepositoryName(owner, name)


def fitting(table: sa.TableClause, **row: object) -> dict[str, object]:
    """The values for which the table has a column."""
    return {name: value for name, value in row.items() if name in table.c}


def count(table: sa.TableClause, condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).where(condition).scalar_subquery()


def created_at(table: sa.TableClause) -> sa.ColumnElement[Any]:
    """The column, or NULL where another application's table has none."""
    return table.c.created_at if "created_at" in table.c else sa.null()


def utc(value: datetime | str | None) -> str:
    """ISO 8601 in UTC and whole seconds, from what either database returns; "" for nothing."""
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
        return aware.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    if value is None:
        return ""
    return f"{value[:10]}T{value[11:19]}Z" if len(value) >= 19 else value
