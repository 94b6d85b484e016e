"""python -m pyplue.ssh repo"""

from __future__ import annotations

import argparse
import sys

from pyplue.ssh.admin.parser import Answer, Commands, UsageError, add_command, add_group
from pyplue.ssh.admin.state import state_of
from pyplue.ssh.admin.text import plain, table
from pyplue.ssh.errors import SshRefusedError

_NAME = "user/name, without .git"


def add_commands(commands: Commands) -> None:
    repo = add_group(commands, "repo", "repositories")
    create = add_command(repo, "create", _create, "make an empty bare repository")
    create.add_argument("name", help=_NAME)
    create.add_argument("--default-branch", metavar="NAME", default="main", help="otherwise main")
    create.add_argument("--public", action="store_true", help="every user may read it")
    create.add_argument(
        "--adopt",
        action="store_true",
        help="take the repository that is in its place already, with all that is in it",
    )
    show = add_command(repo, "list", _list, "show all repositories, or one user's")
    show.add_argument("user", nargs="?")
    rename = add_command(
        repo,
        "rename",
        _rename,
        "give a repository another name or owner",
        "Gives a repository another name or owner. Permissions of other users stay.",
    )
    rename.add_argument("old", help=_NAME)
    rename.add_argument("new", help=_NAME)
    change = add_command(
        repo, "set", _set, "make a repository public or private, or change its default branch"
    )
    change.add_argument("name", help=_NAME)
    choice = change.add_mutually_exclusive_group()
    choice.add_argument("--public", action="store_true", help="every user may read it")
    choice.add_argument("--private", action="store_true", help="owner and permissions alone")
    change.add_argument("--default-branch", metavar="NAME", help="what clones check out")
    remove = add_command(repo, "remove", _remove, "delete a repository with everything in it")
    remove.add_argument("name", help=_NAME)
    remove.add_argument("--yes", action="store_true", help="do not ask")


def _create(options: argparse.Namespace) -> Answer:
    path = (
        state_of(options)
        .store()
        .repositories.create(
            options.name,
            public=options.public,
            default_branch=options.default_branch,
            adopt=options.adopt,
        )
    )
    return Answer(
        {"repository": options.name, "created": True, "path": str(path)},
        f"created {options.name} in {plain(str(path))}",
    )


def _list(options: argparse.Namespace) -> Answer:
    repositories = state_of(options).store().repositories.all(options.user)
    rows = [
        (
            one.name,
            "public" if one.public else "private",
            one.default_branch,
            one.created_at,
            one.path or "MISSING",
        )
        for one in repositories
    ]
    documents = [
        {**one._asdict(), "path": str(one.path) if one.path else None} for one in repositories
    ]
    heads = ("name", "access", "branch", "created", "directory")
    return Answer(documents, table(heads, rows, "no repositories yet"))


def _rename(options: argparse.Namespace) -> Answer:
    path = state_of(options).store().repositories.rename(options.old, options.new)
    return Answer(
        {"repository": options.new, "renamed_from": options.old, "path": str(path)},
        f"renamed {options.old} to {options.new}",
    )


def _set(options: argparse.Namespace) -> Answer:
    if not (options.public or options.private or options.default_branch):
        raise UsageError("say what to set: --public, --private or --default-branch NAME")
    repositories = state_of(options).store().repositories
    public = options.public if options.public or options.private else None
    repositories.change(options.name, public=public, default_branch=options.default_branch or None)
    one = repositories.get(options.name)
    access = "public" if one.public else "private"
    return Answer(
        {"repository": one.name, "public": one.public, "default_branch": one.default_branch},
        f"{one.name} is {access}, its default branch {plain(one.default_branch)}",
    )


def _remove(options: argparse.Namespace) -> Answer:
    repositories = state_of(options).store().repositories
    repositories.get(options.name)
    if not options.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"this deletes {options.name} for good: add --yes")
        print(f"This deletes {options.name} for good. Type its name: ", end="", file=sys.stderr)
        sys.stderr.flush()
        if sys.stdin.readline().strip() != options.name:
            raise SshRefusedError(f"{options.name} stays: that was not its name")
    repositories.remove(options.name)
    return Answer({"repository": options.name, "removed": True}, f"removed {options.name}")
