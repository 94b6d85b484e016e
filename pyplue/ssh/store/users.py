"""The users."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from pyplue.ssh.errors import SshRefusedError
from pyplue.ssh.names import check_user
from pyplue.ssh.store.rows import Rows, count, created_at, fitting, utc


class User(NamedTuple):
    """`keys` and `repositories` are counts, `created_at` is ISO 8601 in UTC."""

    name: str
    keys: int
    repositories: int
    created_at: str


class Users(Rows):
    """`store.users`."""

    def add(self, name: str) -> None:
        """Adds a user, who has no keys yet. Refused when the name is taken in any case."""
        check_user(name)
        users = self._tables.users
        with self._database.writing() as connection:
            same = sa.func.lower(users.c.username) == name
            if connection.execute(sa.select(users.c.username).where(same)).first():
                raise SshRefusedError(f"there is a user {name} already")
            row = fitting(users, username=name, lower_username=name)
            connection.execute(sa.insert(users).values(row))

    def all(self) -> list[User]:
        """Everybody, by name."""
        users, keys, repositories = (
            self._tables.users,
            self._tables.ssh_keys,
            self._tables.repositories,
        )
        query = sa.select(
            users.c.username,
            count(keys, keys.c.user_id == users.c.id),
            count(repositories, repositories.c.user_id == users.c.id),
            created_at(users),
        ).order_by(users.c.username)
        with self._database.reading() as connection:
            return [
                User(name, owned_keys, owned, utc(created))
                for name, owned_keys, owned, created in connection.execute(query)
            ]

    def remove(self, name: str) -> None:
        """Removes a user with all keys and permissions. Refused while repositories are left."""
        users, keys, repositories, collaborators = (
            self._tables.users,
            self._tables.ssh_keys,
            self._tables.repositories,
            self._tables.collaborators,
        )
        with self._database.writing() as connection:
            user_id = self._user_id(connection, name)
            owned = count(repositories, repositories.c.user_id == user_id)
            left = connection.execute(sa.select(owned)).scalar_one()
            if left:
                what = "a repository" if left == 1 else f"{left} repositories"
                raise SshRefusedError(f"{name} still has {what}: remove or rename first")
            for table in (keys, collaborators):
                connection.execute(sa.delete(table).where(table.c.user_id == user_id))
            connection.execute(sa.delete(users).where(users.c.id == user_id))
