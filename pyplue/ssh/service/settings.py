"""Settings of the server by name: from a JSON file and from NAME=VALUE on the command line."""

from __future__ import annotations

import json
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pyplue.ssh.errors import SshConfigError, SshError
from pyplue.ssh.server import Limits

_FILE_MAX = 1 << 20
# By its name, what a setting holds: int, bool, str, list[str] or dict[str, str].
_TYPES = typing.get_type_hints(Limits)


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
    if not isinstance(settings, dict):
        raise SshConfigError(f'{path} is no JSON object: write {{"max_connections": 100}}')
    for name in settings:
        _type(name)
    return settings


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
    wanted = {bool: "true or false", int: "a whole number"}.get(kind)
    raise SshConfigError(
        f"{name}={value}: give {wanted}" if wanted else f"write {name}.KEY=VALUE, not {name}=VALUE"
    )


def _type(name: str) -> Any:
    if name not in _TYPES:
        raise SshConfigError(f"there is no setting {name!r}: use {', '.join(names())}")
    return _TYPES[name]
