"""A store with as many users, keys and repositories as asked for; one of the keys is real."""

from __future__ import annotations

import base64
import hashlib

import sqlalchemy as sa

from pyplue.ssh.store import Store


def fill(store: Store, users: int, keys: int) -> None:
    """Users "user0" and on with their keys, a repository each, and a reader of each."""
    tables = store.users._tables
    with store.database.writing() as connection:

        def insert(table: sa.TableClause, rows: list[dict[str, object]]) -> list[int]:
            connection.execute(sa.insert(table), rows)
            ids = sa.select(table.c.id).order_by(table.c.id.desc()).limit(len(rows))
            return list(connection.execute(ids).scalars())[::-1]

        names = [f"user{number}" for number in range(users)]
        people = insert(
            tables.users, [{"username": name, "lower_username": name} for name in names]
        )
        insert(
            tables.ssh_keys,
            [_key_row(number, people[number % users]) for number in range(keys)],
        )
        repositories = insert(
            tables.repositories, [{"user_id": owner, "name": "project"} for owner in people]
        )
        insert(
            tables.collaborators,
            [
                {"repository_id": one, "user_id": people[number - 1], "permission": "read"}
                for number, one in enumerate(repositories)
            ],
        )


def _key_row(number: int, user_id: int) -> dict[str, object]:
    point = hashlib.sha256(f"key {number}".encode()).digest()
    blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + point
    fingerprint = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return {
        "user_id": user_id,
        "name": f"key {number}",
        "public_key": f"ssh-ed25519 {base64.b64encode(blob).decode()} user@laptop{number}",
        "fingerprint": f"SHA256:{fingerprint}",
    }
