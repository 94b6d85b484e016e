"""What users, repositories and branches may be called: the only place that decides it.

A name becomes a directory, a part of a URL and a word in an environment variable, so the letters
are ASCII and few. User names follow GitHub's rule, in lower case only.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from pyplue.ssh.errors import SshNameError

USER_MAX = 39
REPOSITORY_MAX = 100
BRANCH_MAX = 200

_USER = re.compile(r"[a-z0-9](?:-?[a-z0-9])*")
_REPOSITORY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_BRANCH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]*")


class RepositoryName(NamedTuple):
    """ "alice/project" in its two halves."""

    owner: str
    name: str

    def __str__(self) -> str:
        return f"{self.owner}/{self.name}"


def check_user(text: str) -> str:
    """`text` if it can be a user's name, otherwise SshNameError."""
    if len(text) > USER_MAX or not _USER.fullmatch(text):
        raise SshNameError(
            f"{text!r} cannot be a user: use 1 to {USER_MAX} of a-z, 0-9 and single hyphens between"
        )
    return text


def check_repository(text: str) -> RepositoryName:
    """The halves of "user/name", otherwise SshNameError."""
    owner, slash, name = text.partition("/")
    if not slash or not owner or not name:
        raise SshNameError(f"{text!r} is no repository: write user/name")
    check_user(owner)
    if name.lower().endswith(".git"):
        raise SshNameError(f"{text!r} cannot be a repository: leave .git out")
    if (
        len(name) > REPOSITORY_MAX
        or not _REPOSITORY.fullmatch(name)
        or name.endswith(".")
        or ".." in name
    ):
        raise SshNameError(
            f"{text!r} cannot be a repository: after the user use 1 to {REPOSITORY_MAX} of A-Z, "
            "a-z, 0-9, - _ and single dots between"
        )
    return RepositoryName(owner, name)


def check_branch(text: str) -> str:
    """`text` if it can be a default branch (a strict part of git-check-ref-format's rules)."""
    parts = text.split("/")
    if (
        len(text) > BRANCH_MAX
        or not _BRANCH.fullmatch(text)
        or ".." in text
        or any(not part or part[0] == "." or part.endswith((".", ".lock")) for part in parts)
    ):
        raise SshNameError(f"{text!r} cannot be a branch: take a plain name such as main")
    return text
