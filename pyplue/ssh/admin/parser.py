"""Arguments that all commands share, and errors of usage in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeAlias

PROGRAM = "pyplue.ssh"

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


class Answer(NamedTuple):
    """What a command found: for machines, for people, and why it failed if it did."""

    document: object
    text: str
    error: str = ""


class UsageError(Exception):
    """The command line does not say what to do."""


Run = Callable[[argparse.Namespace], "Answer | int"]


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line that names the cure."""

    def error(self, message: str) -> NoReturn:
        print(f"{PROGRAM}: {message}: see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def add_group(commands: Commands, name: str, help: str) -> Commands:
    """ "user" with its "add", "list" and "remove"."""
    parser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
    return parser.add_subparsers(title="commands", required=True, metavar="COMMAND")


def add_command(
    commands: Commands, name: str, run: Run, help: str, description: str = "", epilog: str = ""
) -> Parser:
    """A command: `run` gets its options and returns an Answer, or an exit status."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description or help,
        epilog=epilog,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add_shared_options(parser, argparse.SUPPRESS)
    return parser


def add_shared_options(parser: argparse.ArgumentParser, default: object = None) -> None:
    """May stand before and after the command."""
    shared = parser.add_argument_group("where everything is")
    shared.add_argument(
        "--state",
        metavar="DIR",
        default=default,
        help="directory of the database, the repositories and the host key; otherwise "
        "$PLUE_SSH_STATE, otherwise pyplue in $XDG_DATA_HOME or ~/.local/share",
    )
    shared.add_argument(
        "--database",
        metavar="URL",
        default=default,
        help="postgresql://USER@HOST/NAME, or a file for SQLite; otherwise $PLUE_SSH_DATABASE, "
        "which other users of this machine cannot read, otherwise plue.sqlite in --state",
    )
    shared.add_argument(
        "--repos",
        metavar="DIR",
        default=default,
        help="directory of the repositories; otherwise repositories in --state",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=default or False,
        help="print one JSON document for machines",
    )
