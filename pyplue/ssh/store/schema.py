"""The tables, which are Plue's: created where they are missing, taken as they are where not."""

from __future__ import annotations

import sqlalchemy as sa

from pyplue.ssh.errors import SshDatabaseError

PERMISSIONS = ("read", "write", "admin")
"""What a collaborator may be given, each including the one before."""

_metadata = sa.MetaData()
# SQLite has no type for times; its CURRENT_TIMESTAMP is text in UTC.
_time = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def _table(name: str, *parts: sa.Column[object] | sa.Constraint) -> None:
    # An id is never given twice: rows that somebody else left behind stay nobody's.
    sa.Table(name, _metadata, *parts, sqlite_autoincrement=True)


def _id() -> sa.Column[object]:
    return sa.Column("id", sa.Integer, primary_key=True)


def _reference(name: str, target: str, delete: str) -> sa.Column[object]:
    return sa.Column(
        name, sa.Integer, sa.ForeignKey(target, ondelete=delete), nullable=False, index=True
    )


def _created_at() -> sa.Column[object]:
    return sa.Column("created_at", _time, server_default=sa.func.current_timestamp())


_table(
    "users",
    _id(),
    sa.Column("username", sa.String(255), nullable=False, unique=True),
    sa.Column("lower_username", sa.String(255), nullable=False, unique=True),
    sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()),
    sa.Column("prohibit_login", sa.Boolean, nullable=False, server_default=sa.false()),
    _created_at(),
)
_table(
    "ssh_keys",
    _id(),
    _reference("user_id", "users.id", "CASCADE"),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("public_key", sa.Text, nullable=False),
    sa.Column("fingerprint", sa.String(255), nullable=False, unique=True),
    sa.Column("key_type", sa.String(32), nullable=False, server_default="user"),
    _created_at(),
)
_table(
    "repositories",
    _id(),
    _reference("user_id", "users.id", "RESTRICT"),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("is_public", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("default_branch", sa.String(255), server_default="main"),
    _created_at(),
    sa.UniqueConstraint("user_id", "name"),
)
_table(
    "collaborators",
    _id(),
    _reference("repository_id", "repositories.id", "CASCADE"),
    _reference("user_id", "users.id", "CASCADE"),
    sa.Column("permission", sa.String(16), nullable=False),
    _created_at(),
    sa.UniqueConstraint("repository_id", "user_id"),
    sa.CheckConstraint(sa.column("permission").in_(PERMISSIONS), "collaborators_permission"),
)

# Without these a table is not what its name says; the others may be missing.
_NEEDED = {
    "users": {"id", "username"},
    "ssh_keys": {"id", "user_id", "name", "public_key", "fingerprint"},
    "repositories": {"id", "user_id", "name"},
    "collaborators": {"repository_id", "user_id", "permission"},
}


class Tables:
    """The four tables, each with those of our columns that it really has."""

    def __init__(self, columns: dict[str, set[str]]) -> None:
        self.users, self.ssh_keys, self.repositories, self.collaborators = (
            sa.table(
                name,
                *(
                    sa.column(column.name, column.type)
                    for column in _metadata.tables[name].columns
                    if column.name in columns[name]
                ),
            )
            for name in _NEEDED
        )


def missing(connection: sa.Connection) -> list[str]:
    """Names of the tables that are not there."""
    there = set(sa.inspect(connection).get_table_names())
    return [name for name in _NEEDED if name not in there]


def create(connection: sa.Connection) -> None:
    """Creates the tables that are missing; nothing that exists is altered."""
    _metadata.create_all(connection)


def look(connection: sa.Connection) -> Tables:
    """What the tables have; SshDatabaseError names a table that does not fit."""
    inspector = sa.inspect(connection)
    columns = {}
    for name, needed in _NEEDED.items():
        columns[name] = {column["name"] for column in inspector.get_columns(name)}
        lacking = sorted(needed - columns[name])
        if lacking:
            raise SshDatabaseError(
                f"the table {name} is another application's: it has no column "
                f"{', '.join(lacking)}: use a database of its own"
            )
    return Tables(columns)
