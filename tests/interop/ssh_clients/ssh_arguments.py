"""The command line that git calls an ssh client with, for the clients in this folder."""

from __future__ import annotations

from typing import NamedTuple


class Arguments(NamedTuple):
    key: str
    known_hosts: str
    port: int
    user: str
    host: str
    command: str


def parse(words: list[str]) -> Arguments:
    """KEY KNOWN_HOSTS [-o OPTION] [-p PORT] USER@HOST COMMAND"""
    key, known_hosts, *rest = words
    port = 22
    while rest[0].startswith("-"):
        if rest[0] == "-p":
            port = int(rest[1])
        rest = rest[2:]
    user, _, host = rest[0].partition("@")
    return Arguments(key, known_hosts, port, user, host, " ".join(rest[1:]))
