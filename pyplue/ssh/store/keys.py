"""The users' public keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from pyplue.ssh.errors import SshRefusedError
from pyplue.ssh.public_keys import PublicKey, parse_key
from pyplue.ssh.store.rows import Rows, created_at, utc

NAME_MAX = 255


class Key(NamedTuple):
    """A row of ssh_keys with its owner's name."""

    id: int
    user: str
    name: str
    public_key: str
    fingerprint: str
    created_at: str


class Keys(Rows):
    """`store.keys`."""

    def add(self, user: str, public_key: str, name: str | None = None) -> bool:
        """Adds an OpenSSH public key line; False when it is the user's already.

        `name` is the line's comment when left out.
        """
        return self.add_all(user, [parse_key(public_key)], name) == [True]

    def add_all(self, user: str, keys: Sequence[PublicKey], name: str | None = None) -> list[bool]:
        """Adds all keys or none; False in the place of those that are the user's already."""
        with self._database.writing() as connection:
            user_id = self._user_id(connection, user)
            return [self._add(connection, user, user_id, key, name) for key in keys]

    def owners(self, user: str, keys: Sequence[PublicKey]) -> list[str | None]:
        """Who has each of the keys now, None for nobody. Refused when there is no such `user`."""
        with self._database.reading() as connection:
            self._user_id(connection, user)
            return [self._owner(connection, key) for key in keys]

    def _owner(self, connection: sa.Connection, key: PublicKey) -> str | None:
        users, keys = self._tables.users, self._tables.ssh_keys
        query = (
            sa.select(users.c.username)
            .join_from(keys, users, keys.c.user_id == users.c.id)
            .where(keys.c.fingerprint == key.fingerprint)
        )
        owner: str | None = connection.execute(query).scalar_one_or_none()
        return owner

    def _add(
        self, connection: sa.Connection, user: str, user_id: int, key: PublicKey, name: str | None
    ) -> bool:
        owner = self._owner(connection, key)
        if owner == user:
            return False
        if owner is not None:
            raise SshRefusedError(f"the key {key.fingerprint} belongs to {owner} already")
        row = {
            "user_id": user_id,
            "name": _name(name or key.comment or key.fingerprint),
            "public_key": f"{key.line} {key.comment}".strip(),
            "fingerprint": key.fingerprint,
        }
        connection.execute(sa.insert(self._tables.ssh_keys).values(row))
        return True

    def all(self, user: str | None = None) -> list[Key]:
        """Everybody's keys by user, or one user's."""
        users, keys = self._tables.users, self._tables.ssh_keys
        query = (
            sa.select(
                keys.c.id,
                users.c.username,
                keys.c.name,
                keys.c.public_key,
                keys.c.fingerprint,
                created_at(keys),
            )
            .join_from(keys, users, keys.c.user_id == users.c.id)
            .order_by(users.c.username, keys.c.id)
        )
        with self._database.reading() as connection:
            if user is not None:
                query = query.where(keys.c.user_id == self._user_id(connection, user))
            return [Key(*row[:5], utc(row[5])) for row in connection.execute(query)]

    def remove(self, *keys: str) -> None:
        """Removes keys, named by fingerprint ("SHA256:...") or number; all or none."""
        table = self._tables.ssh_keys
        with self._database.writing() as connection:
            for key in keys:
                found = table.c.fingerprint == key
                if key.isascii() and key.isdigit() and len(key) < 10:
                    found = table.c.id == int(key)
                deleted = sa.delete(table).where(found)
                if not key.isprintable() or connection.execute(deleted).rowcount == 0:
                    raise SshRefusedError(
                        f"there is no key {key}: name it by its fingerprint SHA256:... or its "
                        "number, as key list shows them"
                    )

    def remove_all(self, user: str) -> int:
        """Removes every key of a user, who can then no longer log in; how many there were."""
        table = self._tables.ssh_keys
        with self._database.writing() as connection:
            user_id = self._user_id(connection, user)
            return connection.execute(sa.delete(table).where(table.c.user_id == user_id)).rowcount


def _name(text: str) -> str:
    if not text.isprintable() or len(text) > NAME_MAX:
        raise SshRefusedError(f"a key's name is at most {NAME_MAX} printable characters")
    return text
