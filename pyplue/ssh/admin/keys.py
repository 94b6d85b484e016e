"""python -m pyplue.ssh key"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from pyplue.ssh.admin.parser import Answer, Commands, UsageError, add_command, add_group
from pyplue.ssh.admin.state import state_of
from pyplue.ssh.admin.text import plain, table
from pyplue.ssh.errors import SshError, SshRefusedError
from pyplue.ssh.public_keys import TEXT_MAX, KeyLine, names_type, read_keys

_ADD_EPILOG = """\
KEY is a file (.pub or authorized_keys), - for standard input, or the key itself:
  python -m pyplue.ssh key add alice ~/.ssh/id_ed25519.pub
  python -m pyplue.ssh key add alice ssh-ed25519 AAAA... alice@laptop
  curl -sSf https://github.com/alice.keys | python -m pyplue.ssh key add alice -
Several keys are added together or not at all; a key that the user has already is left as it is.
"""


def add_commands(commands: Commands) -> None:
    key = add_group(commands, "key", "public keys with which users log in")
    add = add_command(key, "add", _add, "add a user's public keys", epilog=_ADD_EPILOG)
    add.add_argument("user")
    add.add_argument("key", nargs="*", metavar="KEY")
    add.add_argument("--from-file", metavar="FILE", help="a file with one key a line")
    add.add_argument("--name", help="what to call the key; otherwise its comment")
    show = add_command(key, "list", _list, "show everybody's keys, or one user's")
    show.add_argument("user", nargs="?")
    remove = add_command(
        key,
        "remove",
        _remove,
        "remove keys: nobody logs in with them any more",
        "Removes keys. Within a second a running server refuses them, running connections too.",
    )
    remove.add_argument("key", nargs="*", metavar="KEY", help="a fingerprint SHA256:... or number")
    remove.add_argument("--all", metavar="USER", dest="all_of", help="every key of this user")


def _add(options: argparse.Namespace) -> Answer:
    lines = read_keys(_text(options.key, options.from_file))
    if not lines:
        raise SshRefusedError("there is no key in it: give a file that ends in .pub")
    keys = [line.key for line in lines if line.key]
    if options.name and len(keys) > 1:
        raise UsageError("--name is for one key: the comments name several")
    outcomes: list[str] = [line.refusal for line in lines]
    if len(keys) == len(lines):
        store = state_of(options).store()
        owners = store.keys.owners(options.user, keys)
        outcomes = [
            f"it belongs to {owner} already" if owner not in (None, options.user) else ""
            for owner in owners
        ]
    if any(outcomes):
        return _refused(lines, outcomes)
    added = store.keys.add_all(options.user, keys, options.name)
    return _added(options.user, lines, added)


def _added(user: str, lines: list[KeyLine], added: list[bool]) -> Answer:
    rows, text = [], []
    for line, new in zip(lines, added, strict=True):
        assert line.key is not None  # noqa: S101 (for the type checker)
        rows.append({"line": line.number, "fingerprint": line.key.fingerprint, "added": new})
        done = f"added to {user}" if new else f"{user} has it already"
        note = f" (left out: {line.note})" if line.note else ""
        text.append(f"{line.key.fingerprint} {line.key.type} {done}{note}")
    return Answer({"user": user, "keys": rows}, "\n".join(text))


def _refused(lines: list[KeyLine], outcomes: list[str]) -> Answer:
    """One bad key of one: one line. Of several: a line for each, and nothing is added."""
    rows = [
        {
            "line": line.number,
            "fingerprint": line.key.fingerprint if line.key else None,
            "added": False,
            "refused": outcome or None,
        }
        for line, outcome in zip(lines, outcomes, strict=True)
    ]
    document = {"keys": rows}
    if len(lines) == 1:
        return Answer(document, "", outcomes[0])
    report = "\n".join(
        f"line {line.number}: {plain(outcome) or 'good'}"
        for line, outcome in zip(lines, outcomes, strict=True)
    )
    bad = sum(map(bool, outcomes))
    return Answer(
        document, report, f"no key was added, {bad} of {len(lines)} are refused: remove those lines"
    )


def _text(words: Sequence[str], from_file: str | None) -> str:
    if bool(words) == bool(from_file):
        raise UsageError("give the key itself, a file, - for standard input, or --from-file FILE")
    if from_file:
        return _file(from_file)
    if names_type(words[0]):
        return " ".join(words)
    return "\n".join(map(_word, words))


def _word(word: str) -> str:
    if word == "-":
        return _decoded(sys.stdin.buffer.read(4 * TEXT_MAX))
    return word if " " in word else _file(word)


def _file(path: str) -> str:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return _decoded(file.read(4 * TEXT_MAX))
    except OSError as error:
        raise SshError(f"cannot read {path}: {error.strerror}") from error


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")


def _list(options: argparse.Namespace) -> Answer:
    keys = state_of(options).store().keys.all(options.user)
    rows = [
        (key.id, key.user, key.name, key.public_key.split(" ", 1)[0], key.fingerprint,
         key.created_at)
        for key in keys
    ]  # fmt: skip
    heads = ("number", "user", "name", "type", "fingerprint", "created")
    return Answer([key._asdict() for key in keys], table(heads, rows, "no keys yet"))


def _remove(options: argparse.Namespace) -> Answer:
    if bool(options.key) == bool(options.all_of):
        raise UsageError("name the keys by fingerprint or number, or give --all USER")
    store = state_of(options).store()
    if options.all_of:
        count = store.keys.remove_all(options.all_of)
    else:
        store.keys.remove(*options.key)
        count = len(options.key)
    return Answer({"removed": count}, f"removed {count} {'key' if count == 1 else 'keys'}")
