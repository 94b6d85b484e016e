"""Settings of the server by name: from a JSON file and from NAME=VALUE on the command line."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyplue.ssh.errors import SshConfigError, SshError
from pyplue.ssh.server import Limits

_FILE_MAX = 1 << 20
# By its name, what a setting holds: int, bool, str, list[str] or dict[str, str].
_TYPES = typing.get_type_hints(Limits)
_WORDS = {
    bool: "true or false",
    int: "a whole number",
    str: "a string (UTF-8, no NUL)",
    list[str]: "an array of strings (UTF-8, no NUL)",
    dict[str, str]: "an object of strings (UTF-8, no NUL)",
}


def read_settings(path: Path | None, assignments: Iterable[str]) -> Limits:
    """What the file says, changed by each "NAME=VALUE". Raises SshConfigError, SshError.

    Values out of range are the server's to refuse.
    """
    settings = {} if path is None else _read_file(path)
    for assignment in assignments:
        _assign(settings, assignment)
    return typing.cast(Limits, settings)


def names() -> list[str]:
    """All that can be set."""
    return sorted(_TYPES)


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_MAX)
    except OSError as error:
        raise SshError(f"cannot read the settings {path}: {error.strerror}") from error
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise SshConfigError(f"{path} is no JSON: {error}") from None
    except RecursionError:
        raise SshConfigError(f"{path} is nested too deeply for settings") from None
    if not isinstance(settings, dict):
        raise SshConfigError(f'{path} is no JSON object: write {{"max_connections": 100}}')
    for name, value in settings.items():
        kind = _type(name)
        if not _is(value, kind):
            raise SshConfigError(f"{path}: {name} must be {_WORDS[kind]}")
    return settings


def _is(value: object, kind: Any) -> bool:
    """Whether it has this type of `_TYPES`. Strings may become paths and arguments of programs,
    which have no NUL and no half of a surrogate pair."""
    if kind is str:
        return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)
    if kind == list[str]:
        return isinstance(value, list) and all(_is(one, str) for one in value)
    if kind == dict[str, str]:
        return isinstance(value, dict) and all(_is(one, str) for one in [*value, *value.values()])
    return type(value) is kind  # True is an int, but no number


def _assign(settings: dict[str, Any], assignment: str) -> None:
    name, equals, value = assignment.partition("=")
    if not equals:
        raise SshConfigError(f"{assignment!r} sets nothing: write NAME=VALUE")
    table, dot, key = name.partition(".")
    if dot and _type(table) == dict[str, str]:
        settings[table] = {**settings.get(table, {}), key: value}
    else:
        settings[name] = _parse(name, value)


def _parse(name: str, value: str) -> object:
    kind = _type(name)
    if kind is str:
        return value
    if kind == list[str]:
        return [word for word in value.split(",") if word]
    if kind is bool and value in ("true", "false"):
        return value == "true"
    if kind is int and value.isascii() and value.lstrip("-").isdigit() and len(value) < 20:
        return int(value)
    if kind == dict[str, str]:
        raise SshConfigError(f"write {name}.KEY=VALUE, not {name}=VALUE")
    raise SshConfigError(f"{name}={value}: give {_WORDS[kind]}")


def _type(name: str) -> Any:
    if name not in _TYPES:
        raise SshConfigError(f"there is no setting {name!r}: use {', '.join(names())}")
    return _TYPES[name]
