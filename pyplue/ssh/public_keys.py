"""Public keys as OpenSSH writes them: read, checked and refused with a reason.

The formats are those of sshd(8), "AUTHORIZED_KEYS FILE FORMAT", RFC 4253 section 6.6, RFC 5656
section 3.1, RFC 8709 section 4, and OpenSSH's PROTOCOL.u2f for security keys.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pyplue.ssh.errors import SshRefusedError

RSA_MIN_BITS = 2048
RSA_MAX_BITS = 16384
# blob_max of zig/ssh/src/public_key.zig: one key that the library's table refuses would keep all
# others from being put in force. Only RSA exponents and the applications of sk- keys are so long.
BLOB_MAX = 4096
COMMENT_MAX = 255
TEXT_MAX = 1 << 20
"""Longest text that `read_keys` takes, in characters: some thousand keys."""

_CURVE_BYTES = {"nistp256": 32, "nistp384": 48, "nistp521": 66}
TYPES = (
    "ssh-ed25519",
    *(f"ecdsa-sha2-{curve}" for curve in _CURVE_BYTES),
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# Options of authorized_keys that only take away what this server never gives.
_EMPTY_OPTIONS = {
    "restrict",
    "no-agent-forwarding",
    "no-port-forwarding",
    "no-pty",
    "no-user-rc",
    "no-x11-forwarding",
}
_OPTIONS = re.compile(r'((?:[^\s"]|"(?:\\.|[^"\\])*")+)[ \t]+(.*)')


@dataclass(frozen=True)
class PublicKey:
    """A key that may log in. `comment` is printable and may be empty."""

    type: str
    blob: bytes
    bits: int
    comment: str = ""

    @property
    def line(self) -> str:
        """ "type base64", without the comment."""
        return f"{self.type} {base64.b64encode(self.blob).decode()}"

    @property
    def fingerprint(self) -> str:
        """ "SHA256:...", as `ssh-keygen -l` prints it."""
        digest = base64.b64encode(hashlib.sha256(self.blob).digest())
        return f"SHA256:{digest.decode().rstrip('=')}"


@dataclass(frozen=True)
class KeyLine:
    """One line of a file of keys: the key, or why it is refused."""

    number: int
    key: PublicKey | None
    refusal: str = ""
    note: str = ""


def read_keys(text: str) -> list[KeyLine]:
    """The lines of a .pub or an authorized_keys file that are not empty or comments.

    Raises SshRefusedError for what is no such file at all: a private key, another format.
    """
    if len(text) > TEXT_MAX:
        raise SshRefusedError(f"that is longer than {TEXT_MAX} characters: a file of keys is short")
    _refuse_other_formats(text)
    return list(_key_lines(text))


def _key_lines(text: str) -> Iterator[KeyLine]:
    for number, line in enumerate(re.split("\r\n|\n|\r", text), 1):
        line = line.strip(" \t\ufeff")
        if line and not line.startswith("#"):
            try:
                options, rest = _split_options(line)
                yield KeyLine(number, parse_key(rest), note=_check_options(options))
            except SshRefusedError as error:
                yield KeyLine(number, None, str(error))


def parse_key(line: str) -> PublicKey:
    """A line "type base64 [comment]"; SshRefusedError says why it may not log in."""
    line = line.strip()
    words = line.split(None, 2)
    if len(words) < 2 or "\n" in line or "\r" in line:
        raise SshRefusedError("not a public key: a line is type, base64 and comment")
    kind, text = words[:2]
    if "-cert-v0" in kind:
        raise SshRefusedError("certificates cannot log in here: add the plain public key")
    if kind in ("ssh-dss", "ssh-dsa"):
        raise SshRefusedError("DSA is broken: make a new key with ssh-keygen -t ed25519")
    if kind not in TYPES:
        raise SshRefusedError(f"not a public key: keys here are {', '.join(TYPES)}")
    try:
        blob = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SshRefusedError("the base64 is damaged: copy the whole line again") from None
    if len(blob) > BLOB_MAX:
        raise SshRefusedError(
            f"the key is longer than {BLOB_MAX} bytes: make a new one with ssh-keygen -t ed25519"
        )
    comment = words[2].strip() if len(words) > 2 else ""
    if not comment.isprintable():
        comment = "".join(c for c in comment if c.isprintable())
    return PublicKey(kind, blob, _bits(kind, blob), comment[:COMMENT_MAX])


def parse_blob(blob: bytes) -> PublicKey:
    """A key without its line, which names its type itself."""
    kind = _fields(blob)[0].decode(errors="replace")
    return parse_key(f"{kind} {base64.b64encode(blob).decode()}")


def _bits(kind: str, blob: bytes) -> int:
    """The strength of a blob that is exactly a key of its type."""
    fields = _fields(blob)
    if fields[0] != kind.encode():
        raise SshRefusedError("the key is not of the type that its line says: copy it again")
    if kind == "ssh-rsa":
        return _rsa_bits(fields)
    application = 1 if kind.startswith("sk-") else 0
    if "ed25519" in kind:
        if len(fields) == 2 + application and len(fields[1]) == 32:
            return 256
    elif len(fields) == 3 + application:
        curve = kind.removesuffix("@openssh.com").rsplit("-", 1)[1]
        size = _CURVE_BYTES[curve]
        if (
            fields[1] == curve.encode()
            and fields[2][:1] == b"\4"
            and len(fields[2]) == 1 + 2 * size
        ):
            return int(curve.removeprefix("nistp"))
    raise SshRefusedError("the key is damaged: copy the whole line again")


def _rsa_bits(fields: list[bytes]) -> int:
    if len(fields) != 3:
        raise SshRefusedError("the key is damaged: copy the whole line again")
    exponent, modulus = (int.from_bytes(field, "big", signed=True) for field in fields[1:])
    bits = modulus.bit_length()
    if exponent < 3 or exponent % 2 == 0 or modulus < 0 or modulus % 2 == 0:
        raise SshRefusedError("the key is damaged: copy the whole line again")
    if bits < RSA_MIN_BITS:
        raise SshRefusedError(
            f"RSA with {bits} bits is too weak (at least {RSA_MIN_BITS}): "
            "make a new key with ssh-keygen -t ed25519"
        )
    if bits > RSA_MAX_BITS:
        raise SshRefusedError(f"RSA with {bits} bits is too long (at most {RSA_MAX_BITS})")
    return bits


def _fields(blob: bytes) -> list[bytes]:
    """The strings of RFC 4251 section 5 that the blob is made of."""
    fields, at = [], 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        if end > len(blob) or at + 4 > len(blob):
            raise SshRefusedError("the key is cut off: copy the whole line again")
        fields.append(blob[at + 4 : end])
        at = end
    if not fields:
        raise SshRefusedError("the key is empty: copy the whole line again")
    return fields


def _split_options(line: str) -> tuple[str, str]:
    """Options are what precedes the type; most lines have none."""
    found = None if names_type(line) else _OPTIONS.fullmatch(line)
    return (found[1], found[2]) if found and names_type(found[2]) else ("", line)


def names_type(line: str) -> bool:
    """Whether the first word is a type of key, good or not."""
    first = (line.split(None, 1) or [""])[0]
    return first in TYPES or first in ("ssh-dss", "ssh-dsa") or "-cert-v0" in first


def _check_options(options: str) -> str:
    """A note when nothing is lost without them; otherwise SshRefusedError: dropping a
    restriction would give the key more than its file does."""
    if not options:
        return ""
    names = [
        option.partition("=")[0].lower()
        for option in re.findall(r'(?:[^,"]|"(?:\\.|[^"\\])*")+', options)
    ]
    meant = sorted(set(names) - _EMPTY_OPTIONS)
    if meant:
        raise SshRefusedError(
            f"the options {', '.join(meant)} have no effect here: remove them if the key may "
            "log in without"
        )
    return f"{', '.join(names)}: always so here"


def _refuse_other_formats(text: str) -> None:
    if "PRIVATE KEY" in text or "PuTTY-User-Key-File" in text:
        raise SshRefusedError(
            "that is a private key, which nobody else may see: give its public half, "
            "the file that ends in .pub"
        )
    if "BEGIN SSH2 PUBLIC KEY" in text:
        raise SshRefusedError(
            "that is an SSH2 (RFC 4716) key: convert it with ssh-keygen -i -f FILE"
        )
    if "PUBLIC KEY-----" in text:
        raise SshRefusedError("that is a PEM key: convert it with ssh-keygen -i -m PKCS8 -f FILE")
    if "\0" in text:
        raise SshRefusedError("that is no text: give a file that ends in .pub")
