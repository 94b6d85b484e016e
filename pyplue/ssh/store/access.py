"""Who may do what with a repository that is not theirs."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from pyplue.ssh.errors import SshNameError, SshRefusedError
from pyplue.ssh.store.rows import Rows
from pyplue.ssh.store.schema import PERMISSIONS


class Grant(NamedTuple):
    """`permission` is "owner", "read", "write" or "admin"; `user` is "*" for everybody."""

    repository: str
    user: str
    permission: str


class Access(Rows):
    """`store.access`."""

    def grant(self, repository: str, user: str, permission: str) -> None:
        """Gives a user "read", "write" (which includes it) or "admin" in the place of what was.

        Over SSH an admin may do what a writer may; the application decides what more it means.
        """
        if permission not in PERMISSIONS:
            raise SshNameError(f"{permission!r} is no permission: use {', '.join(PERMISSIONS)}")
        table = self._tables.collaborators
        with self._database.writing() as connection:
            repository_id, name = self._repository_id(connection, repository)
            user_id = self._user_id(connection, user)
            if name.owner == user:
                raise SshRefusedError(f"{user} owns {repository} and may do everything already")
            connection.execute(sa.delete(table).where(_row(table, repository_id, user_id)))
            row = {"repository_id": repository_id, "user_id": user_id, "permission": permission}
            connection.execute(sa.insert(table).values(row))

    def revoke(self, repository: str, user: str) -> None:
        """Takes a user's permission away. Refused when there is none."""
        table = self._tables.collaborators
        with self._database.writing() as connection:
            repository_id, name = self._repository_id(connection, repository)
            user_id = self._user_id(connection, user)
            if name.owner == user:
                raise SshRefusedError(f"{user} owns {repository}: rename it to another user")
            deleted = sa.delete(table).where(_row(table, repository_id, user_id))
            if connection.execute(deleted).rowcount == 0:
                raise SshRefusedError(f"{user} has no permission on {repository} to revoke")

    def all(self, repository: str | None = None, user: str | None = None) -> list[Grant]:
        """Everything that is allowed: on a repository, to a user, or at all."""
        users, repositories, collaborators = (
            self._tables.users,
            self._tables.repositories,
            self._tables.collaborators,
        )
        owner, person = users.alias("owner"), users.alias("person")
        name = owner.c.username + "/" + repositories.c.name
        given = (
            sa.select(name, person.c.username, collaborators.c.permission)
            .join_from(
                collaborators, repositories, collaborators.c.repository_id == repositories.c.id
            )
            .join(owner, repositories.c.user_id == owner.c.id)
            .join(person, collaborators.c.user_id == person.c.id)
        )
        owned = sa.select(name, owner.c.username, sa.literal("owner")).join_from(
            repositories, owner, repositories.c.user_id == owner.c.id
        )
        queries = [given, owned]
        if "is_public" in repositories.c:
            public = repositories.c.is_public.is_(sa.true())
            everybody = sa.select(name, sa.literal("*"), sa.literal("read"))
            queries.append(
                everybody.join_from(
                    repositories, owner, repositories.c.user_id == owner.c.id
                ).where(public)
            )
        with self._database.reading() as connection:
            if repository is not None:
                self._repository_id(connection, repository)
            if user is not None:
                self._user_id(connection, user)
            rows = connection.execute(sa.union_all(*queries)).all()
        return sorted(
            Grant(*row)
            for row in rows
            if repository in (None, row[0]) and (user is None or row[1] in (user, "*"))
        )


def _row(table: sa.TableClause, repository_id: int, user_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.repository_id == repository_id, table.c.user_id == user_id)
