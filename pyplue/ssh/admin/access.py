"""python -m pyplue.ssh access"""

from __future__ import annotations

import argparse

from pyplue.ssh.admin.parser import Answer, Commands, add_command, add_group
from pyplue.ssh.admin.state import state_of
from pyplue.ssh.admin.text import table

_REPOSITORY = "user/name, without .git"


def add_commands(commands: Commands) -> None:
    access = add_group(commands, "access", "what users may do with repositories of others")
    grant = add_command(access, "grant", _grant, "let a user read or write a repository")
    grant.add_argument("repository", help=_REPOSITORY)
    grant.add_argument("user")
    grant.add_argument("permission", help="read, write (which includes it) or admin")
    revoke = add_command(access, "revoke", _revoke, "take a user's permission away")
    revoke.add_argument("repository", help=_REPOSITORY)
    revoke.add_argument("user")
    show = add_command(
        access,
        "show",
        _show,
        "show who may do what",
        "Shows who may do what; the user * is everybody.",
    )
    show.add_argument("repository", nargs="?", help=_REPOSITORY)
    show.add_argument("--user", help="only what this user may do")


def _grant(options: argparse.Namespace) -> Answer:
    repository, user, permission = options.repository, options.user, options.permission
    state_of(options).store().access.grant(repository, user, permission)
    return Answer(
        {"repository": repository, "user": user, "permission": permission},
        f"{user} has {permission} on {repository}",
    )


def _revoke(options: argparse.Namespace) -> Answer:
    repository, user = options.repository, options.user
    state_of(options).store().access.revoke(repository, user)
    return Answer(
        {"repository": repository, "user": user, "permission": None},
        f"{user} has no permission on {repository} any more",
    )


def _show(options: argparse.Namespace) -> Answer:
    grants = state_of(options).store().access.all(options.repository, options.user)
    heads = ("repository", "user", "permission")
    return Answer([grant._asdict() for grant in grants], table(heads, grants, "no permissions yet"))
