"""`Store`: one database and one directory, and what can be done with them."""

from __future__ import annotations

import os
from pathlib import Path

from pyplue.ssh.errors import SshConfigError
from pyplue.ssh.store import schema
from pyplue.ssh.store.access import Access
from pyplue.ssh.store.changes import Changes
from pyplue.ssh.store.database import Database
from pyplue.ssh.store.keys import Keys
from pyplue.ssh.store.repositories import Repositories
from pyplue.ssh.store.users import Users
from pyplue.ssh.store.watch import Watch

POLL_S = 0.5
MAX_STALE_S = 300.0


class Store:
    """Users, their keys, repositories, and who may do what with them.

    Args:
        database: A file for SQLite, or a URL: "sqlite:///FILE", "postgresql://USER@HOST/NAME",
            which needs pyplue[postgres]. Missing tables are created; those of an existing Plue
            forge are used as they are.
        repositories: Directory of the repositories, for what makes, moves or serves them.
        poll_s: Seconds between two questions of a running server whether something has changed.
        max_stale_s: Seconds for which a running server goes on with what it has read while the
            database is away. Then everybody is refused until it is back. At least twice `poll_s`.

    `users`, `keys`, `repositories` and `access` do the work. What changes something does all of it
    or nothing. They raise SshRefusedError with the reason, SshNameError for what can never be a
    name, SshDatabaseError when the database is away and SshError when the disk fails. Safe to use
    from any thread and from several processes; nothing stays open between two calls.
    """

    def __init__(
        self,
        database: str | os.PathLike[str],
        repositories: str | os.PathLike[str] | None = None,
        *,
        poll_s: float = POLL_S,
        max_stale_s: float = MAX_STALE_S,
    ) -> None:
        if not 0.01 <= poll_s <= 60 or not max_stale_s >= 2 * poll_s:
            raise SshConfigError(
                f"poll_s is {poll_s} and max_stale_s {max_stale_s}: use 0.01 to 60 seconds, and at "
                "least twice as much"
            )
        self._poll_s = poll_s
        self._max_stale_s = max_stale_s
        self.database = Database(database)
        self.database.create_file()
        with self.database.reading() as connection:
            incomplete = schema.missing(connection)
        if incomplete:
            with self.database.writing() as connection:
                schema.create(connection)
        with self.database.reading() as connection:
            tables = schema.look(connection)
        root = None if repositories is None else Path(os.path.abspath(repositories))
        self.users = Users(self.database, tables)
        self.keys = Keys(self.database, tables)
        self.repositories = Repositories(self.database, tables, root)
        self.access = Access(self.database, tables)

    def watch(self) -> Watch:
        """For a `GitServer`, which keeps itself as fresh as the database with it."""
        return Watch(Changes(self.database), self._poll_s, self._max_stale_s)
