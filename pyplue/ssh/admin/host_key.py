"""python -m pyplue.ssh host-key"""

from __future__ import annotations

import argparse
import base64
import binascii
from pathlib import Path

from pyplue.ssh.admin.parser import Answer, Commands, add_command, add_group
from pyplue.ssh.admin.state import state_of
from pyplue.ssh.errors import SshError
from pyplue.ssh.public_keys import PublicKey, parse_blob, parse_key

_MAGIC = b"openssh-key-v1\0"


def add_commands(commands: Commands) -> None:
    host_key = add_group(commands, "host-key", "the key by which clients know this server")
    show = add_command(
        host_key,
        "show",
        _show,
        "show its fingerprint and its line for known_hosts",
        "Shows the host key's fingerprint and its line for known_hosts, to be given to users.",
    )
    show.add_argument("--host", default="localhost", help="by which clients reach this server")
    show.add_argument("--port", type=int, default=2222, help="otherwise 2222")
    show.add_argument("--host-key", metavar="FILE", help="otherwise the one in --state")


def _show(options: argparse.Namespace) -> Answer:
    path = Path(options.host_key) if options.host_key else state_of(options).host_key
    key = read_host_key(path)
    host = options.host if options.port == 22 else f"[{options.host}]:{options.port}"
    known_hosts = f"{host} {key.line}"
    return Answer(
        {
            "path": str(path),
            "type": key.type,
            "bits": key.bits,
            "fingerprint": key.fingerprint,
            "known_hosts": known_hosts,
        },
        f"{key.bits} {key.fingerprint} {key.type}\n{known_hosts}",
    )


def read_host_key(path: Path) -> PublicKey:
    """The public half of a private key file. Raises SshError, SshRefusedError."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise SshError(f"there is no host key {path} yet: serve makes one") from None
    except OSError as error:
        raise SshError(f"cannot read the host key {path}: {error.strerror}") from error
    public = _public_half(text)
    if public is None:
        beside = path.with_name(path.name + ".pub")  # a PEM file shows its public half to no one
        if not beside.is_file():
            raise SshError(f"{path} is no OpenSSH private key, and {beside.name} is not beside it")
        return parse_key(beside.read_text(errors="replace").strip())
    return parse_blob(public)


def _public_half(text: bytes) -> bytes | None:
    """OpenSSH's PROTOCOL.key: magic, cipher, kdf and its options, a count, the public keys."""
    lines = [line for line in text.split(b"\n") if line and not line.startswith(b"-----")]
    try:
        data = base64.b64decode(b"".join(lines), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not data.startswith(_MAGIC):
        return None
    at = len(_MAGIC)
    for _ in range(3):
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    at += 4
    length = int.from_bytes(data[at : at + 4], "big")
    return data[at + 4 : at + 4 + length]
