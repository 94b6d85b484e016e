"""Public keys: those of ssh-keygen are taken, and everything else is refused with its reason."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyplue import ffi
from pyplue.ssh import SshRefusedError
from pyplue.ssh.public_keys import BLOB_MAX, TEXT_MAX, TYPES, parse_blob, parse_key, read_keys

from .forge import Forge, make_key

KINDS = [("ed25519", 256), ("ecdsa-256", 256), ("ecdsa-384", 384), ("ecdsa-521", 521)]
KINDS += [("rsa-2048", 2048), ("rsa-3072", 3072)]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, forge: Forge) -> Path:
    """One key of each kind, a weak one, a certificate and other formats."""
    folder = tmp_path_factory.mktemp("keys")
    for name, _ in KINDS:
        kind, _, bits = name.partition("-")
        make_key(folder, name, kind, *(["-b", bits] if bits else []))
    make_key(folder, "rsa-1024", "rsa", "-b", "1024")
    sign = ["ssh-keygen", "-q", "-s", str(folder / "ed25519"), "-I", "x", "-n", "alice"]
    subprocess.run([*sign, str(folder / "ecdsa-256.pub")], check=True)
    return folder


def fields(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def line(kind: str, *parts: bytes) -> str:
    return f"{kind} {base64.b64encode(fields(kind.encode(), *parts)).decode()}"


ED25519 = line("ssh-ed25519", bytes(range(32)))
SK = line("sk-ssh-ed25519@openssh.com", bytes(range(32)), b"ssh:")


@pytest.mark.parametrize(("name", "bits"), KINDS)
def test_what_ssh_keygen_makes_is_taken(keys: Path, name: str, bits: int):
    path = keys / f"{name}.pub"
    key = parse_key(path.read_text())
    shown = subprocess.run(
        ["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True
    ).stdout.split()
    assert (str(key.bits), key.fingerprint, key.comment) == tuple(shown[:3])
    assert key.bits == bits
    assert path.read_text().startswith(key.line + " ")
    assert parse_blob(key.blob).line == key.line


def test_security_keys_are_taken():
    assert parse_key(SK + " my yubikey").comment == "my yubikey"
    point = b"\x04" + bytes(64)
    sk_ecdsa = line("sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", point, b"ssh:")
    assert parse_key(sk_ecdsa).bits == 256


def rsa(bits: int, exponent: int = 65537) -> str:
    modulus = (1 << (bits - 1)) + 1
    return line(
        "ssh-rsa",
        exponent.to_bytes(4, "big").lstrip(b"\0") or b"\0",
        modulus.to_bytes(bits // 8 + 1, "big"),
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a public key"),
        ("ssh-ed25519", "a line is type, base64 and comment"),
        ("hello world", "not a public key: keys here are ssh-ed25519"),
        ("ssh-ed25519 !!!!", "base64 is damaged"),
        ("ssh-ed25519 " + ED25519.split()[1][:-2], "base64 is damaged"),
        ("ssh-ed25519 AAAA", "cut off"),
        ("ssh-ed25519 " + ED25519.split()[1][:40], "cut off"),
        ("ssh-rsa " + ED25519.split()[1], "not of the type that its line says"),
        (line("ssh-ed25519", bytes(31)), "damaged"),
        (line("ssh-ed25519", bytes(32), b""), "damaged"),
        (line("ssh-ed25519"), "damaged"),
        (line("sk-ssh-ed25519@openssh.com", bytes(32)), "damaged"),
        (line("ecdsa-sha2-nistp256", b"nistp384", b"\4" + bytes(96)), "damaged"),
        (line("ecdsa-sha2-nistp256", b"nistp256", b"\2" + bytes(32)), "damaged"),
        (line("ecdsa-sha2-nistp256", b"nistp256", b"\4" + bytes(63)), "damaged"),
        (line("ssh-rsa", b"\1\0\1"), "damaged"),
        (line("ssh-rsa", b"\1\0\1", b"\xff" * 256), "damaged"),
        (line("ssh-rsa", b"\1\0\1", b"\0" + b"\xff" * 255 + b"\xfe"), "damaged"),
        (rsa(2048, 1), "damaged"),
        (rsa(2048, 4), "damaged"),
        (rsa(2047), "RSA with 2047 bits is too weak"),
        (rsa(1024), "RSA with 1024 bits is too weak .at least 2048.: make a new key"),
        (rsa(16392), "too long"),
        ("ssh-dss AAAAB3NzaC1kc3M=", "DSA is broken"),
        ("ssh-ed25519-cert-v01@openssh.com AAAA", "certificates cannot log in here"),
        (ED25519 + "\n" + SK, "not a public key"),
        (ED25519 + " x\r" + SK, "not a public key"),
    ],
)
def test_what_is_no_good_key_is_refused(text: str, reason: str):
    with pytest.raises(SshRefusedError, match=reason):
        parse_key(text)


def test_real_weak_keys_and_certificates_are_refused(keys: Path):
    with pytest.raises(SshRefusedError, match="too weak"):
        parse_key((keys / "rsa-1024.pub").read_text())
    with pytest.raises(SshRefusedError, match="certificates"):
        parse_key((keys / "ecdsa-256-cert.pub").read_text())


def test_a_key_cut_at_any_byte_is_refused(keys: Path):
    for name in ("ed25519", "ecdsa-256", "rsa-2048"):
        key = parse_key((keys / f"{name}.pub").read_text())
        for length in range(len(key.blob)):
            cut = base64.b64encode(key.blob[:length]).decode()
            with pytest.raises(SshRefusedError):
                parse_key(f"{key.type} {cut}")


def test_private_keys_and_other_formats_are_named(keys: Path):
    def convert(*words: str) -> str:
        command = ["ssh-keygen", "-e", "-f", str(keys / "rsa-2048.pub"), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    private = (keys / "ed25519").read_text()
    for text, reason in [
        (private, "private key.*public half"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\n", "private key"),
        (convert("-m", "RFC4716"), "ssh-keygen -i -f FILE"),
        (convert("-m", "PKCS8"), "ssh-keygen -i -m PKCS8"),
        (convert("-m", "PEM"), "PEM key"),
        ("\x7fELF\0\0", "no text"),
        ("#" * (TEXT_MAX + 1), "longer than"),
    ]:
        with pytest.raises(SshRefusedError, match=reason) as caught:
            read_keys(text)
        assert private.splitlines()[1] not in str(caught.value)


def test_lines_of_authorized_keys():
    text = "\ufeff# my keys\n\n" + "\r\n".join(
        [
            ED25519 + " laptop",
            f"   {SK}   yubi key  ",
            f"restrict,no-pty {ED25519} harmless",
            f'no-pty\t{ED25519}',
        ]
    )  # fmt: skip
    lines = read_keys(text)
    assert [one.number for one in lines] == [3, 4, 5, 6]
    assert [one.key.comment for one in lines if one.key] == ["laptop", "yubi key", "harmless", ""]
    assert [one.note for one in lines] == [
        "", "", "restrict, no-pty: always so here", "no-pty: always so here",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ('command="git-shell"', "command"),
        ('from="10.0.0.0/8",no-pty', "from"),
        ('restrict,command="echo \\"a b\\" , ssh-ed25519 x"', "command"),
        ("cert-authority", "cert-authority"),
        ('expiry-time="20300101"', "expiry-time"),
        ("no-touch-required", "no-touch-required"),
        ('environment="A=b, c",FROM="x"', "environment, from"),
    ],
)
def test_options_that_restrict_a_key_are_not_dropped(options: str, named: str):
    (one,) = read_keys(f"{options} {ED25519} me")
    assert one.key is None
    assert one.refusal.startswith(f"the options {named} have no effect here: remove them")


def test_comments_are_printable_and_short():
    (one,) = read_keys(f"{ED25519} a\x1b[31mred\u202e\x07 {'x' * 400}")
    assert one.key.comment.isprintable()
    assert one.key.comment.startswith("a[31mred xxx")
    assert len(one.key.comment) == 255


def test_bad_lines_do_not_hide_good_ones():
    lines = read_keys(f"nonsense\n{ED25519}\nssh-dss AAAA\n")
    assert [bool(one.key) for one in lines] == [False, True, False]
    assert all(one.refusal for one in lines if not one.key)


def test_a_long_line_of_options_takes_no_long_time():
    for text in ('a="' + '\\"' * 100_000, "a," * 200_000, '"' * 200_001, "x" * 500_000 + " "):
        (one,) = read_keys(f"{text} {ED25519}")
        assert one.key is None


def test_lines_end_as_anywhere():
    for end in ("\n", "\r\n", "\r"):
        lines = read_keys(f"{ED25519} a{end}{end}{SK} b{end}")
        assert [(one.number, one.key.comment) for one in lines] == [(1, "a"), (3, "b")]


# ---- the library's table takes what is taken here ------------------------------------------------


def table_takes(text: str) -> bool:
    """Otherwise this one key would keep all others from being put in force."""
    table = json.dumps([{"principal": "alice", "keys": [text]}])
    taken: bool = ffi.ssh.plue_ssh_keys_replace(table.encode())
    ffi.ssh.plue_ssh_keys_clear()
    return taken


MODULUS = b"\0" + (1 << 2047 | 1).to_bytes(256, "big")
# By type, what follows its name; None is of any length.
PARTS = {
    "ssh-ed25519": (bytes(32),),
    "ecdsa-sha2-nistp256": (b"nistp256", b"\4" + bytes(64)),
    "ecdsa-sha2-nistp384": (b"nistp384", b"\4" + bytes(96)),
    "ecdsa-sha2-nistp521": (b"nistp521", b"\4" + bytes(132)),
    "ssh-rsa": (None, MODULUS),
    "sk-ssh-ed25519@openssh.com": (bytes(32), None),
    "sk-ecdsa-sha2-nistp256@openssh.com": (b"nistp256", b"\4" + bytes(64), None),
}


def with_free(kind: str, free: int) -> str:
    """A key whose part of any length has so many bytes; an exponent is odd."""
    fill = b"\1" * free
    return line(kind, *(fill if part is None else part for part in PARTS[kind]))


@pytest.mark.parametrize("kind", [kind for kind, parts in PARTS.items() if None in parts])
def test_a_key_is_as_long_as_in_the_library_at_most(kind: str):
    empty = len(base64.b64decode(with_free(kind, 0).split()[1]))
    longest, longer = (with_free(kind, BLOB_MAX + more - empty) for more in (0, 1))
    assert len(parse_key(longest).blob) == BLOB_MAX
    assert table_takes(longest)
    with pytest.raises(SshRefusedError, match="longer than 4096 bytes: make a new one"):
        parse_key(longer)
    assert not table_takes(longer)


@st.composite
def nearly_keys(draw: st.DrawFn) -> str:
    """Keys of all types, and those that are wrong in a part, in the type or at the end."""
    kind = draw(st.sampled_from(TYPES))
    free = draw(st.integers(0, 64) | st.integers(3700, 4200))
    text = with_free(kind, free)
    if draw(st.booleans()):
        return text
    blob = bytearray(base64.b64decode(text.split()[1]))
    at = draw(st.integers(0, len(blob) - 1))
    blob[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=4))
    return f"{draw(st.sampled_from((kind, *TYPES)))} {base64.b64encode(blob).decode()}"


@given(nearly_keys())
def test_the_library_takes_every_key_that_is_taken_here(text: str):
    try:
        key = parse_key(text)
    except SshRefusedError:
        return
    assert table_takes(key.line)


WORDS = st.sampled_from(
    ["ssh-ed25519", "ssh-rsa", "ssh-dss", ED25519, SK, ED25519.split()[1], '"', "\\", ",", " ",
     "\n", "\r", "\t", "#", "\0", "\ufeff", "\u2028", "restrict", "command=", "AAAA", "="]
)  # fmt: skip


@given(st.lists(WORDS | st.text(max_size=5), max_size=30).map("".join))
def test_any_text_is_read_or_refused(text: str):
    """What is taken is one line, a key that parses again, and nothing that could harm."""
    try:
        lines = read_keys(text)
    except SshRefusedError:
        return
    for one in lines:
        assert (one.key is None) == bool(one.refusal)
        if one.key:
            assert parse_key(f"{one.key.line} {one.key.comment}") == one.key
            assert one.key.comment.isprintable()
