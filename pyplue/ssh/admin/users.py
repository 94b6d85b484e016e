"""python -m pyplue.ssh user"""

from __future__ import annotations

import argparse

from pyplue.ssh.admin.parser import Answer, Commands, add_command, add_group
from pyplue.ssh.admin.state import state_of
from pyplue.ssh.admin.text import table


def add_commands(commands: Commands) -> None:
    user = add_group(commands, "user", "people who own keys and repositories")
    add = add_command(user, "add", _add, "add a user")
    add.add_argument("name", help="a-z, 0-9 and single hyphens between, at most 39")
    add_command(user, "list", _list, "show all users")
    remove = add_command(
        user,
        "remove",
        _remove,
        "remove a user with all keys and permissions",
        "Removes a user with all keys and permissions. Refused while the user owns repositories.",
    )
    remove.add_argument("name")


def _add(options: argparse.Namespace) -> Answer:
    state_of(options).store().users.add(options.name)
    return Answer({"user": options.name, "added": True}, f"added user {options.name}")


def _list(options: argparse.Namespace) -> Answer:
    users = state_of(options).store().users.all()
    return Answer(
        [user._asdict() for user in users],
        table(("name", "keys", "repositories", "created"), users, "no users yet"),
    )


def _remove(options: argparse.Namespace) -> Answer:
    state_of(options).store().users.remove(options.name)
    return Answer({"user": options.name, "removed": True}, f"removed user {options.name}")
