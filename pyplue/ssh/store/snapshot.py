"""Who may log in and what they may do, as the database says it at one moment."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import sqlalchemy as sa

from pyplue.ssh.callbacks import PRINCIPAL_MAX
from pyplue.ssh.errors import SshRefusedError
from pyplue.ssh.events import logger
from pyplue.ssh.public_keys import parse_key
from pyplue.ssh.store.schema import PERMISSIONS, Tables

_WRITERS = frozenset(PERMISSIONS) - {"read"}


class Repository(NamedTuple):
    """Permissions of one repository; `people` are its collaborators."""

    owner: str
    public: bool
    people: Mapping[str, str]


@dataclass(frozen=True)
class Snapshot:
    """`keys` are each principal's lines, `repositories` go by "owner/name"."""

    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    repositories: Mapping[str, Repository] = field(default_factory=dict)

    def allows(self, principal: str, repository: str, write: bool) -> bool:
        """Owners and collaborators do what they may; a public repository is read by everybody."""
        found = self.repositories.get(repository)
        if found is None:
            return False
        if principal == found.owner:
            return True
        permission = found.people.get(principal)
        if write:
            return permission in _WRITERS
        return found.public or permission in PERMISSIONS


def read_snapshot(connection: sa.Connection, tables: Tables) -> Snapshot:
    """Reads the whole store, inside a transaction. What is not clearly right counts for nothing."""
    return Snapshot(_read_keys(connection, tables), _read_repositories(connection, tables))


def may_log_in(tables: Tables) -> list[sa.ColumnElement[bool]]:
    """Conditions on users and their keys; Plue's columns for it count where they exist."""
    users, ssh_keys = tables.users.c, tables.ssh_keys.c
    conditions: list[sa.ColumnElement[bool]] = []
    if "is_active" in users:
        conditions.append(users.is_active.is_(sa.true()))
    if "prohibit_login" in users:
        conditions.append(users.prohibit_login.is_(sa.false()))
    if "key_type" in ssh_keys:
        conditions.append(ssh_keys.key_type == "user")
    return conditions


def _read_keys(connection: sa.Connection, tables: Tables) -> dict[str, tuple[str, ...]]:
    users, ssh_keys = tables.users, tables.ssh_keys
    query = (
        sa.select(users.c.username, ssh_keys.c.public_key)
        .join_from(ssh_keys, users, ssh_keys.c.user_id == users.c.id)
        .where(*may_log_in(tables))
        .order_by(ssh_keys.c.id)
    )
    owners: dict[str, str | None] = {}
    for username, text in connection.execute(query):
        line = _usable(text) if _is_principal(username) else None
        if line:
            # Two people's key proves neither.
            owners[line] = username if owners.get(line, username) == username else None
    keys: dict[str, list[str]] = defaultdict(list)
    for line, owner in owners.items():
        if owner is None:
            fingerprint = parse_key(line).fingerprint
            logger.warning("a key belongs to two users, so it lets nobody in: %s", fingerprint)
        else:
            keys[owner].append(line)
    return {owner: tuple(lines) for owner, lines in keys.items()}


def _read_repositories(connection: sa.Connection, tables: Tables) -> dict[str, Repository]:
    users, repositories, collaborators = tables.users, tables.repositories, tables.collaborators
    is_public: sa.ColumnElement[bool] = sa.false()
    if "is_public" in repositories.c:
        is_public = repositories.c.is_public.is_(sa.true())
    people: dict[int, dict[str, str]] = defaultdict(dict)
    query = sa.select(
        collaborators.c.repository_id, users.c.username, collaborators.c.permission
    ).join_from(collaborators, users, collaborators.c.user_id == users.c.id)
    for identity, username, permission in connection.execute(query):
        people[identity][username] = permission
    rows = sa.select(repositories.c.id, users.c.username, repositories.c.name, is_public)
    rows = rows.join_from(repositories, users, repositories.c.user_id == users.c.id)
    return {
        f"{owner}/{name}": Repository(owner, bool(public), people.get(identity, {}))
        for identity, owner, name, public in connection.execute(rows)
        if _is_principal(owner) and _is_one_word(owner) and _is_one_word(name)
    }


@functools.lru_cache(maxsize=1 << 17)
def _usable(text: object) -> str | None:
    """The plain line of a key that may log in, however the row was written."""
    try:
        if not isinstance(text, str):
            raise SshRefusedError("it is no text")
        return parse_key(text).line
    except SshRefusedError as error:
        logger.warning("a key in the database lets nobody in: %s: %.80r", error, text)
        return None


def _is_principal(name: object) -> bool:
    """SQLite keeps bytes and NULL in any column."""
    if not isinstance(name, str):
        return False
    return name.isprintable() and 0 < len(name.encode()) <= PRINCIPAL_MAX


def _is_one_word(name: object) -> bool:
    """With a slash two rows could mean one path."""
    return isinstance(name, str) and "/" not in name
