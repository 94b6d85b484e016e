"""Where the database, the repositories and the host key are."""

from __future__ import annotations

import argparse
import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyplue.ssh.errors import SshError

if TYPE_CHECKING:
    from pyplue.ssh.store import Store


@dataclass(frozen=True)
class State:
    """The places; nothing is looked at or made before it is needed."""

    directory: Path
    database: str
    repositories: Path

    @property
    def host_key(self) -> Path:
        return self.directory / "ssh_host_ed25519_key"

    @property
    def refusals(self) -> Path:
        """What `serve` writes and `log` reads."""
        return self.directory / "refusals.jsonl"

    def create(self) -> None:
        """Makes the directory, for its owner alone."""
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SshError(
                f"{self.directory}: {error.strerror}: name another directory with --state"
            ) from error

    def store(self, *, poll_s: float | None = None, max_stale_s: float | None = None) -> Store:
        """The store in these places."""
        from pyplue.ssh.store import MAX_STALE_S, POLL_S, Store  # needs SQLAlchemy

        self.create()
        self._check_owner()
        return Store(
            self.database,
            self.repositories,
            poll_s=POLL_S if poll_s is None else poll_s,
            max_stale_s=MAX_STALE_S if max_stale_s is None else max_stale_s,
        )

    def _check_owner(self) -> None:
        """What root makes among another user's files, the server of that user cannot use."""
        for path in (self.directory, self.repositories, Path(self.database)):
            if os.geteuid() == 0 and path.exists() and (uid := path.stat().st_uid) != 0:
                name = _user(uid)
                raise SshError(
                    f"{path} belongs to {name}: do this as {name}, for example with sudo -u {name}"
                )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"#{uid}"


def state_of(options: argparse.Namespace) -> State:
    """What the options say, or else the environment."""
    directory = Path(os.path.abspath(options.state or _default_directory()))
    database = options.database or os.environ.get("PLUE_SSH_DATABASE")
    return State(
        directory=directory,
        database=database or str(directory / "plue.sqlite"),
        repositories=Path(os.path.abspath(options.repos or directory / "repositories")),
    )


def _default_directory() -> Path:
    named = os.environ.get("PLUE_SSH_STATE")
    if named:
        return Path(named)
    data = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(data) if data else Path.home() / ".local" / "share") / "pyplue"
    except RuntimeError:
        raise SshError("there is no home directory: name a directory with --state") from None
