"""The repositories: a row in the database and a directory on disk, always both or neither.

The directory is moved inside the transaction that writes the row, as its last step, and moved back
when the commit fails. A process killed between the two leaves a directory without a row, which
nobody is served and the next attempt explains, or a row without a directory, which can be removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from pyplue.ssh.errors import SshConfigError, SshRefusedError
from pyplue.ssh.names import RepositoryName, check_branch, check_repository
from pyplue.ssh.store.database import Database
from pyplue.ssh.store.directories import Directories, set_head
from pyplue.ssh.store.rows import Rows, created_at, fitting, utc
from pyplue.ssh.store.schema import Tables


class Repository(NamedTuple):
    """`name` is "user/name"; `path` is None when its directory is missing."""

    name: str
    public: bool
    default_branch: str
    created_at: str
    path: Path | None


class Repositories(Rows):
    """`store.repositories`. `root` is their directory."""

    def __init__(self, database: Database, tables: Tables, root: Path | None) -> None:
        super().__init__(database, tables)
        self._root = root

    @property
    def root(self) -> Path:
        if self._root is None:
            raise SshConfigError("give Store the directory of the repositories: repositories=")
        return self._root

    def create(
        self, name: str, *, public: bool = False, default_branch: str = "main", adopt: bool = False
    ) -> Path:
        """Makes an empty bare repository "user/name"; its path.

        `adopt` takes the repository that is in its place already, with all that is in it.
        """
        wanted = check_repository(name)
        check_branch(default_branch)
        directories = Directories(self.root)
        if adopt:
            with self._inserting(wanted, public, default_branch):
                return directories.existing(wanted)
        with self._database.reading() as connection:
            self._check_free(connection, wanted)  # before git has worked for nothing
        temporary = directories.prepare(wanted, default_branch)
        try:
            with (
                directories.moving() as move,
                self._inserting(wanted, public, default_branch),
            ):
                directories.check_free(wanted)
                move(temporary, directories.place(wanted))
        except BaseException:
            directories.discard(temporary)
            raise
        return directories.place(wanted)

    def rename(self, old: str, new: str) -> Path:
        """Gives it another name, or another owner: then who had permissions keeps them."""
        wanted = check_repository(new)
        directories = Directories(self.root)
        table = self._tables.repositories
        with directories.moving() as move, self._database.writing() as connection:
            identity, name = self._repository_id(connection, old)
            owner_id = self._check_free(connection, wanted, but=identity)
            update = sa.update(table).where(table.c.id == identity)
            connection.execute(update.values(user_id=owner_id, name=wanted.name))
            collaborators = self._tables.collaborators
            connection.execute(
                sa.delete(collaborators).where(
                    collaborators.c.repository_id == identity, collaborators.c.user_id == owner_id
                )
            )
            source = directories.find(name)
            if source is None:
                # What a rename that was killed has moved already.
                return directories.existing(wanted)
            if name != wanted:
                directories.check_free(wanted, but=source)
                move(source, directories.place(wanted))
        return directories.place(wanted)

    def remove(self, name: str) -> None:
        """Deletes it with everything in it."""
        directories = Directories(self.root)
        table, collaborators = self._tables.repositories, self._tables.collaborators
        aside = None
        with directories.moving() as move, self._database.writing() as connection:
            identity, found = self._repository_id(connection, name)
            mine = collaborators.c.repository_id == identity
            connection.execute(sa.delete(collaborators).where(mine))
            connection.execute(sa.delete(table).where(table.c.id == identity))
            path = directories.find(found)
            if path is not None:
                aside = directories.temporary(found)
                move(path, aside)
        if aside is not None:
            directories.discard(aside)

    def change(
        self, name: str, *, public: bool | None = None, default_branch: str | None = None
    ) -> None:
        """Lets every user read it, or only those with a permission; sets the branch that clients
        check out from now on, which need not exist yet. All that is asked for, or nothing."""
        if default_branch is not None:
            check_branch(default_branch)
        table = self._tables.repositories
        if public is not None and "is_public" not in table.c:
            raise SshRefusedError("this database knows no public repositories")
        wanted = {"is_public": public, "default_branch": default_branch}
        values = fitting(table, **{key: it for key, it in wanted.items() if it is not None})
        with self._database.writing() as connection:
            identity, found = self._repository_id(connection, name)
            if values:
                connection.execute(sa.update(table).where(table.c.id == identity).values(values))
            if default_branch is not None:
                set_head(Directories(self.root).existing(found), default_branch)

    def get(self, name: str) -> Repository:
        """One of them; refused when there is none."""
        with self._database.reading() as connection:
            _, found = self._repository_id(connection, name)
        return next(one for one in self.all(found.owner) if one.name == str(found))

    def first(self) -> str | None:
        """The name of one of them, for an example."""
        users, table = self._tables.users, self._tables.repositories
        query = (
            sa.select(users.c.username + "/" + table.c.name)
            .join_from(table, users, table.c.user_id == users.c.id)
            .order_by(table.c.id)
            .limit(1)
        )
        with self._database.reading() as connection:
            found: str | None = connection.execute(query).scalar_one_or_none()
        return found

    def all(self, user: str | None = None) -> list[Repository]:
        """All repositories by name, or one user's."""
        users, table = self._tables.users, self._tables.repositories
        public = table.c.is_public.is_(sa.true()) if "is_public" in table.c else sa.false()
        branch = table.c.default_branch if "default_branch" in table.c else sa.null()
        query = (
            sa.select(users.c.username, table.c.name, public, branch, created_at(table))
            .join_from(table, users, table.c.user_id == users.c.id)
            .order_by(users.c.username, table.c.name)
        )
        with self._database.reading() as connection:
            if user is not None:
                query = query.where(table.c.user_id == self._user_id(connection, user))
            rows = connection.execute(query).all()
        return [
            Repository(
                f"{owner}/{name}",
                bool(is_public),
                default_branch or "",
                utc(created),
                Directories(self._root).find(RepositoryName(owner, name)) if self._root else None,
            )
            for owner, name, is_public, default_branch, created in rows
        ]

    @contextmanager
    def _inserting(self, name: RepositoryName, public: bool, default_branch: str) -> Iterator[None]:
        """The transaction that has added the row."""
        table = self._tables.repositories
        if public and "is_public" not in table.c:
            raise SshRefusedError("this database knows no public repositories")
        with self._database.writing() as connection:
            owner_id = self._check_free(connection, name)
            row = fitting(
                table,
                user_id=owner_id,
                name=name.name,
                is_public=public,
                default_branch=default_branch,
            )
            connection.execute(sa.insert(table).values(row))
            yield

    def _check_free(
        self, connection: sa.Connection, name: RepositoryName, but: int | None = None
    ) -> int:
        """The owner's id, when no other repository has the name in any case of letters."""
        table = self._tables.repositories
        owner_id = self._user_id(connection, name.owner)
        query = sa.select(table.c.id, table.c.name).where(
            table.c.user_id == owner_id, sa.func.lower(table.c.name) == name.name.lower()
        )
        for identity, taken in connection.execute(query):
            if identity != but:
                raise SshRefusedError(f"there is a repository {name.owner}/{taken} already")
        return owner_id
