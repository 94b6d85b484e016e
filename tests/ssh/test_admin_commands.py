"""`python -m pyplue.ssh`: what each command prints, its --json, its errors and exit status."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pyplue.ssh.admin.main import main

from .forge import Forge, make_key


class Outcome(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PLUE_SSH_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PLUE_SSH_DATABASE", raising=False)
    return tmp_path / "state"


@pytest.fixture
def run(state: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """One command in this process."""

    def command(*words: object) -> Outcome:
        capfd.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:
            status = int(end.code or 0)
        return Outcome(status, *capfd.readouterr())

    return command


@pytest.fixture
def team(run: Run, forge: Forge) -> Run:
    """alice with a key and a repository, and bob."""
    for words in [
        ("user", "add", "alice"),
        ("user", "add", "bob"),
        ("key", "add", "alice", f"{forge.keys['alice'].private}.pub"),
        ("repo", "create", "alice/project"),
    ]:
        assert run(*words).status == 0
    return run


def says(outcome: Outcome, *lines: str) -> bool:
    return (outcome.status, outcome.out, outcome.err) == (0, "\n".join(lines) + "\n", "")


def refuses(outcome: Outcome, reason: str, status: int = 1) -> bool:
    """One line on standard error with the reason, and nothing else."""
    return (
        outcome.status == status
        and outcome.out == ""
        and outcome.err.startswith("pyplue.ssh: ")
        and outcome.err.count("\n") == 1
        and outcome.err.endswith("\n")
        and reason in outcome.err
    )


# ---- user ------------------------------------------------------------------------------------


def test_user(run: Run, state: Path):
    assert says(run("user", "list"), "no users yet")
    assert run("user", "list", "--json").document == []
    assert says(run("user", "add", "alice"), "added user alice")
    assert run("--json", "user", "add", "bob").document == {"user": "bob", "added": True}
    listed = run("user", "list").out.splitlines()
    assert listed[0].split() == ["NAME", "KEYS", "REPOSITORIES", "CREATED"]
    assert [line.split()[:3] for line in listed[1:]] == [["alice", "0", "0"], ["bob", "0", "0"]]
    document = run("user", "list", "--json").document
    assert [one["name"] for one in document] == ["alice", "bob"]
    assert set(document[0]) == {"name", "keys", "repositories", "created_at"}
    assert says(run("user", "remove", "bob"), "removed user bob")
    assert run("user", "remove", "alice", "--json").document == {"user": "alice", "removed": True}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "plue.sqlite").stat().st_mode) == 0o600


def test_user_refuses(team: Run):
    assert refuses(team("user", "add", "alice"), "there is a user alice already")
    assert refuses(team("user", "remove", "nobody"), "there is no user nobody: add one first")
    assert refuses(team("user", "remove", "alice"), "alice still has a repository")
    for name in ("Alice", "a/b", "a.b", "..", "\u0430lice", "a b", "a" * 40, "a\nb", "a\x1b[2J"):
        assert refuses(team("user", "add", name), "cannot be a user", 2), name
        assert refuses(team("user", "remove", name), "cannot be a user", 2), name
    assert refuses(team("user", "add", "-x"), "see python -m pyplue.ssh user add --help", 2)
    assert refuses(team("user", "add", "--", "-x"), "cannot be a user", 2)
    assert [one["name"] for one in team("user", "list", "--json").document] == ["alice", "bob"]


# ---- key -------------------------------------------------------------------------------------


def test_key(team: Run, forge: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    key = forge.keys["alice-ecdsa"]
    shown = subprocess.run(
        ["ssh-keygen", "-lf", f"{key.private}.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    kind, text = key.line.split()
    added = f"{shown} ecdsa-sha2-nistp256 added to alice"
    remove = ("key", "remove", shown)
    # A file, the line as one word, as several, and a file by option.
    assert says(team("key", "add", "alice", f"{key.private}.pub"), added)
    assert says(team(*remove), "removed 1 key")
    assert says(team("key", "add", "alice", key.line), added)
    assert says(team(*remove), "removed 1 key")
    assert says(team("key", "add", "alice", kind, text, "my", "laptop"), added)
    assert team("key", "list", "alice", "--json").document[1]["name"] == "my laptop"
    assert says(team(*remove), "removed 1 key")
    assert says(team("key", "add", "alice", "--from-file", f"{key.private}.pub"), added)
    again = team("key", "add", "alice", key.line, "--json")
    assert again.document == {
        "user": "alice",
        "keys": [{"line": 1, "fingerprint": shown, "added": False}],
    }
    assert says(
        team("key", "add", "alice", key.line),
        f"{shown} ecdsa-sha2-nistp256 alice has it already",
    )
    listed = team("key", "list").out.splitlines()
    assert listed[0].split() == ["NUMBER", "USER", "NAME", "TYPE", "FINGERPRINT", "CREATED"]
    assert shown in listed[2]
    assert says(team("key", "list", "bob"), "no keys yet")
    document = team("key", "list", "alice", "--json").document
    assert [one["fingerprint"] for one in document][1] == shown
    number = document[0]["id"]
    assert team("key", "remove", number, shown, "--json").document == {"removed": 2}
    team("key", "add", "alice", key.line, "--name", "old phone")
    assert team("key", "list", "--json").document[0]["name"] == "old phone"
    assert says(team("key", "remove", "--all", "alice"), "removed 1 key")


def test_keys_from_standard_input(state: Path, team: Run, forge: Forge):
    line = forge.keys["bob"].line
    answer = subprocess.run(
        [sys.executable, "-m", "pyplue.ssh", "key", "add", "bob", "-"],
        input=f"# https://github.com/bob.keys\n{line}\nrestrict {forge.keys['mallory'].line}\n",
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stderr
    first, second = answer.stdout.splitlines()
    assert first.endswith("added to bob")
    assert second.endswith("added to bob (left out: restrict: always so here)")


def test_key_refuses(team: Run, forge: Forge, tmp_path: Path):
    alice = forge.keys["alice"]
    make_key(tmp_path, "weak", "rsa", "-b", "1024")
    (tmp_path / "empty.pub").write_text("# nothing\n\n")
    (tmp_path / "binary").write_bytes(os.urandom(100) + b"\0")
    add = ("key", "add", "bob")
    for words, reason, status in [
        ((*add, alice.private), "that is a private key, which nobody else may see", 1),
        ((*add, alice.line), "it belongs to alice already", 1),
        ((*add, tmp_path / "weak.pub"), "RSA with 1024 bits is too weak", 1),
        ((*add, "ssh-dss", "AAAA"), "DSA is broken", 1),
        ((*add, "ssh-ed25519", "AAAA"), "cut off", 1),
        ((*add, "ssh-ed25519 AAAA"), "cut off", 1),
        ((*add, "ssh-ed25519-cert-v01@openssh.com AAAA"), "certificates cannot log in", 1),
        ((*add, f'from="10.0.0.1" {alice.line}'), "the options from have no effect", 1),
        ((*add, tmp_path / "empty.pub"), "there is no key in it", 1),
        ((*add, tmp_path / "binary"), "that is no text", 1),
        ((*add, tmp_path / "missing"), f"cannot read {tmp_path}/missing: No such file", 1),
        ((*add, tmp_path), "Is a directory", 1),
        (add, "give the key itself, a file, - for standard input", 2),
        ((*add, alice.line, "--from-file", "x"), "give the key itself", 2),
        ((*add, forge.keys["bob"].line, "--name", "a\nb"), "printable", 1),
        (("key", "add", "nobody", alice.line), "there is no user nobody", 1),
        (("key", "add", "No/Body", alice.line), "cannot be a user", 2),
        (("key", "list", "nobody"), "there is no user nobody", 1),
        (("key", "remove"), "name the keys by fingerprint or number", 2),
        (("key", "remove", "1", "--all", "bob"), "name the keys", 2),
        (("key", "remove", "SHA256:x"), "there is no key SHA256:x", 1),
        (("key", "remove", "--all", "nobody"), "there is no user nobody", 1),
    ]:
        assert refuses(team(*words), reason, status), (words, team(*words))
    (one,) = team("key", "list", "--json").document
    assert one["user"] == "alice"


def test_a_file_of_keys_is_all_or_nothing(team: Run, forge: Forge, tmp_path: Path):
    good, also = forge.keys["bob"].line, forge.keys["mallory"].line
    mixed = tmp_path / "keys.txt"
    mixed.write_text(f"{good}\n\nssh-dss AAAA\n{also}\nnonsense\n")
    bad = team("key", "add", "bob", "--from-file", mixed)
    assert bad.status == 1
    report = bad.out.splitlines()
    assert [line.partition(":")[0] for line in report] == ["line 1", "line 3", "line 4", "line 5"]
    assert [line.endswith(": good") for line in report] == [True, False, True, False]
    assert bad.err == ("pyplue.ssh: no key was added, 2 of 4 are refused: remove those lines\n")
    document = team("key", "add", "bob", "--from-file", mixed, "--json").document
    assert [bool(row["refused"]) for row in document["keys"]] == [False, True, False, True]
    assert not any(row["added"] for row in document["keys"])
    mixed.write_text(f"{good}\n{forge.keys['alice'].line}\n")
    taken = team("key", "add", "bob", mixed)
    assert taken.out.splitlines() == ["line 1: good", "line 2: it belongs to alice already"]
    assert team("key", "list", "bob", "--json").document == []
    mixed.write_text(f"{good}\n{also}\n")
    assert team("key", "add", "bob", mixed).status == 0
    assert len(team("key", "list", "bob", "--json").document) == 2
    twice = team("key", "add", "bob", mixed, "--name", "x")
    assert refuses(twice, "--name is for one key", 2)


def test_the_same_key_twice_in_a_file_is_one(team: Run, forge: Forge, tmp_path: Path):
    file = tmp_path / "keys.txt"
    file.write_text(f"{forge.keys['bob'].line} a\n{forge.keys['bob'].line} b\n")
    first, second = team("key", "add", "bob", file).out.splitlines()
    assert first.endswith("added to bob")
    assert second.endswith("bob has it already")


# ---- repo ------------------------------------------------------------------------------------


def test_repo(team: Run, state: Path, forge: Forge):
    place = state / "repositories/alice/tools.git"
    assert says(
        team("repo", "create", "alice/tools", "--public", "--default-branch", "trunk"),
        f"created alice/tools in {place}",
    )
    assert forge.git("rev-parse", "--is-bare-repository", cwd=place) == "true"
    assert forge.git("symbolic-ref", "HEAD", cwd=place) == "refs/heads/trunk"
    assert team("repo", "create", "bob/first", "--json").document == {
        "repository": "bob/first",
        "created": True,
        "path": str(state / "repositories/bob/first.git"),
    }
    listed = team("repo", "list").out.splitlines()
    assert listed[0].split() == ["NAME", "ACCESS", "BRANCH", "CREATED", "DIRECTORY"]
    assert [line.split()[:3] for line in listed[1:]] == [
        ["alice/project", "private", "main"],
        ["alice/tools", "public", "trunk"],
        ["bob/first", "private", "main"],
    ]
    document = team("repo", "list", "alice", "--json").document
    assert [(one["name"], one["public"]) for one in document] == [
        ("alice/project", False),
        ("alice/tools", True),
    ]
    assert says(
        team("repo", "set", "alice/tools", "--private"),
        "alice/tools is private, its default branch trunk",
    )
    change = ("repo", "set", "alice/tools", "--public", "--default-branch", "next/2")
    assert team(*change, "--json").document == {
        "repository": "alice/tools",
        "public": True,
        "default_branch": "next/2",
    }
    assert forge.git("symbolic-ref", "HEAD", cwd=place) == "refs/heads/next/2"
    assert says(team("repo", "rename", "alice/tools", "bob/kit"), "renamed alice/tools to bob/kit")
    assert not place.exists()
    assert team("repo", "rename", "bob/kit", "bob/Kit", "--json").document == {
        "repository": "bob/Kit",
        "renamed_from": "bob/kit",
        "path": str(state / "repositories/bob/Kit.git"),
    }
    assert says(team("repo", "remove", "bob/Kit", "--yes"), "removed bob/Kit")
    assert team("repo", "remove", "bob/first", "--yes", "--json").document == {
        "repository": "bob/first",
        "removed": True,
    }
    assert says(team("repo", "list", "bob"), "no repositories yet")
    assert not (state / "repositories/bob").exists()


def test_repo_refuses(team: Run, state: Path, forge: Forge):
    (state / "repositories/alice/in-the-way.git").mkdir()
    for words, reason, status in [
        (("create", "alice/project"), "there is a repository alice/project already", 1),
        (("create", "alice/Project"), "there is a repository alice/project already", 1),
        (("create", "nobody/x"), "there is no user nobody", 1),
        (("create", "alice/in-the-way"), "take it over with --adopt", 1),
        (("create", "alice/in-the-way", "--adopt"), "is no Git repository", 1),
        (("create", "alice/missing", "--adopt"), "is missing", 1),
        (("create", "alice/x", "--default-branch", "a..b"), "cannot be a branch", 2),
        (("create", "alice/x", "--default-branch", "--x"), "expected one argument", 2),
        (("create", "project"), "is no repository: write user/name", 2),
        (("create", "alice/../bob/x"), "cannot be a repository", 2),
        (("create", "alice/.."), "cannot be a repository", 2),
        (("create", "alice/x.git"), "leave .git out", 2),
        (("create", "alice/-x"), "cannot be a repository", 2),
        (("create", "alice/\uff58"), "cannot be a repository", 2),
        (("create", "alice/x\u202ey"), "cannot be a repository", 2),
        (("create", "alice/x\ny"), "cannot be a repository", 2),
        (("rename", "alice/nothing", "alice/x"), "there is no repository alice/nothing", 1),
        (("rename", "alice/project", "nobody/x"), "there is no user nobody", 1),
        (("rename", "alice/project", "alice/in-the-way"), "exists already", 1),
        (("rename", "alice/project", "../x"), "cannot be a user", 2),
        (("remove", "alice/nothing", "--yes"), "there is no repository alice/nothing", 1),
        (("remove", "alice/project"), "this deletes alice/project for good: add --yes", 2),
        (("set", "alice/project"), "say what to set: --public, --private or", 2),
        (("set", "alice/project", "--default-branch", "a b"), "cannot be a branch", 2),
        (("set", "alice/project", "--public", "--private"), "not allowed with argument", 2),
        (("set", "alice/nothing", "--public"), "there is no repository", 1),
        (("list", "nobody"), "there is no user nobody", 1),
    ]:
        before = sorted(map(str, state.rglob("*.git")))
        assert refuses(team("repo", *words), reason, status), (words, team("repo", *words))
        assert sorted(map(str, state.rglob("*.git"))) == before
    assert [one["name"] for one in team("repo", "list", "--json").document] == ["alice/project"]


def test_a_repository_without_its_directory_is_shown_and_removed(team: Run, state: Path):
    (state / "repositories/alice/project.git").rename(state / "elsewhere")
    assert team("repo", "list").out.splitlines()[1].split()[-1] == "MISSING"
    assert team("repo", "list", "--json").document[0]["path"] is None
    assert says(team("repo", "remove", "alice/project", "--yes"), "removed alice/project")


@pytest.mark.parametrize(
    ("typed", "status", "left"), [("alice/project", 0, []), ("yes", 1, ["alice/project"])]
)
def test_on_a_terminal_remove_asks(team: Run, state: Path, typed: str, status: int, left: list):
    terminal, inside = pty.openpty()
    command = [sys.executable, "-m", "pyplue.ssh", "repo", "remove", "alice/project"]
    process = subprocess.Popen(
        command, stdin=inside, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    os.close(inside)
    os.write(terminal, typed.encode() + b"\n")
    out, err = process.communicate(timeout=30)
    os.close(terminal)
    assert process.returncode == status
    assert "This deletes alice/project for good. Type its name: " in err
    assert ("removed" in out, "alice/project stays" in err) == (status == 0, status == 1)
    assert [one["name"] for one in team("repo", "list", "--json").document] == left


# ---- access ----------------------------------------------------------------------------------


def test_access(team: Run):
    grant = ("access", "grant", "alice/project", "bob")
    assert says(team(*grant, "read"), "bob has read on alice/project")
    assert team(*grant, "write", "--json").document == {
        "repository": "alice/project",
        "user": "bob",
        "permission": "write",
    }
    team("repo", "set", "alice/project", "--public")
    assert says(
        team("access", "show"),
        "REPOSITORY     USER   PERMISSION",
        "alice/project  *      read",
        "alice/project  alice  owner",
        "alice/project  bob    write",
    )
    assert len(team("access", "show", "alice/project", "--json").document) == 3
    assert team("access", "show", "--user", "alice", "--json").document == [
        {"repository": "alice/project", "user": "*", "permission": "read"},
        {"repository": "alice/project", "user": "alice", "permission": "owner"},
    ]
    revoke = ("access", "revoke", "alice/project", "bob")
    assert says(team(*revoke), "bob has no permission on alice/project any more")
    team(*grant, "admin")
    assert team(*revoke, "--json").document["permission"] is None
    team("repo", "remove", "alice/project", "--yes")
    assert says(team("access", "show"), "no permissions yet")


def test_access_refuses(team: Run):
    for words, reason, status in [
        (("grant", "alice/project", "bob", "owner"), "use read, write, admin", 2),
        (("grant", "alice/project", "bob", "READ"), "use read, write, admin", 2),
        (("grant", "alice/project", "nobody", "read"), "there is no user nobody", 1),
        (("grant", "alice/project", "*", "read"), "cannot be a user", 2),
        (("grant", "alice/nothing", "bob", "read"), "there is no repository", 1),
        (("grant", "project", "bob", "read"), "write user/name", 2),
        (("grant", "alice/project", "alice", "read"), "alice owns alice/project", 1),
        (("revoke", "alice/project", "bob"), "bob has no permission on alice/project", 1),
        (("revoke", "alice/project", "alice"), "alice owns alice/project", 1),
        (("show", "alice/nothing"), "there is no repository", 1),
        (("show", "--user", "nobody"), "there is no user", 1),
        (("grant", "alice/project", "bob"), "required: permission", 2),
    ]:
        assert refuses(team("access", *words), reason, status), words
    assert len(team("access", "show", "--json").document) == 1


# ---- host-key --------------------------------------------------------------------------------


def test_host_key(run: Run, state: Path, forge: Forge, tmp_path: Path):
    assert refuses(run("host-key", "show"), "there is no host key")
    state.mkdir()
    host = forge.keys["host"]
    (state / "ssh_host_ed25519_key").write_bytes(host.private.read_bytes())
    shown = subprocess.run(
        ["ssh-keygen", "-lf", f"{host.private}.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]
    assert says(
        run("host-key", "show"), f"256 {shown} ssh-ed25519", f"[localhost]:2222 {host.line}"
    )
    document = run(
        "host-key", "show", "--host", "git.example.org", "--port", "22", "--json"
    ).document
    assert document == {
        "path": str(state / "ssh_host_ed25519_key"),
        "type": "ssh-ed25519",
        "bits": 256,
        "fingerprint": shown,
        "known_hosts": f"git.example.org {host.line}",
    }
    for kind in (["rsa", "-b", "3072"], ["ecdsa"], ["rsa", "-b", "2048", "-m", "PEM"]):
        name = "-".join(kind)
        key = make_key(tmp_path, name, *kind)
        found = run("host-key", "show", "--host-key", key.private, "--json").document
        assert found["known_hosts"] == f"[localhost]:2222 {key.line}"
    pem = make_key(tmp_path, "alone", "rsa", "-b", "2048", "-m", "PEM").private
    pem.with_suffix(".pub").unlink()
    for path, reason in [
        (pem, "alone.pub is not beside it"),
        (Path("/dev/null"), "is no OpenSSH private key"),
        (tmp_path, "cannot read the host key"),
    ]:
        assert refuses(run("host-key", "show", "--host-key", path), reason)
    cut = tmp_path / "cut"
    text = host.private.read_text().splitlines()
    cut.write_text("\n".join([text[0], text[1][:40], text[-1]]))
    assert refuses(run("host-key", "show", "--host-key", cut), "the key is")


# ---- all of them -----------------------------------------------------------------------------

COMMANDS = [
    "user add", "user list", "user remove", "key add", "key list", "key remove", "repo create",
    "repo list", "repo rename", "repo set", "repo remove", "access grant", "access revoke",
    "access show", "host-key show",
]  # fmt: skip


@pytest.mark.parametrize("command", ["", "user", "key", "repo", "access", "host-key", *COMMANDS])
def test_every_command_has_a_help(run: Run, command: str):
    outcome = run(*command.split(), "--help")
    assert outcome.status == 0
    assert f"usage: python -m pyplue.ssh {command}".strip() in outcome.out
    assert outcome.err == ""


@pytest.mark.parametrize("command", ["", "user", "key", "fly", "user fly", "user add", "--colour"])
def test_wrong_words_are_a_usage_error(run: Run, command: str):
    assert refuses(run(*command.split()), "see python -m pyplue.ssh", 2)


def test_places_come_from_options_or_the_environment(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run("user", "add", "from-state")
    run("--state", tmp_path / "a", "user", "add", "before")
    run("user", "add", "after", "--state", tmp_path / "a")
    assert len(run("user", "list", "--state", tmp_path / "a", "--json").document) == 2
    run("user", "add", "other", "--database", tmp_path / "b.sqlite")
    monkeypatch.setenv("PLUE_SSH_DATABASE", f"sqlite:///{tmp_path}/b.sqlite")
    assert [one["name"] for one in run("user", "list", "--json").document] == ["other"]
    made = run("repo", "create", "other/x", "--repos", tmp_path / "r", "--json").document
    assert made["path"] == f"{tmp_path}/r/other/x.git"
    monkeypatch.delenv("PLUE_SSH_DATABASE")
    monkeypatch.delenv("PLUE_SSH_STATE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    run("user", "add", "xdg")
    assert (tmp_path / "data/pyplue/plue.sqlite").exists()
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run("user", "add", "home")
    assert (tmp_path / "home/.local/share/pyplue/plue.sqlite").exists()


def test_a_state_that_cannot_be_used_is_explained(run: Run, tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert refuses(run("user", "list", "--state", tmp_path / "file"), "name another directory")
    assert refuses(
        run("user", "list", "--database", "postgresql://a:secret@127.0.0.1:1/x"), "is away"
    )
    assert (
        "secret" not in run("user", "list", "--database", "postgresql://a:secret@127.0.0.1:1/x").err
    )
    assert refuses(run("user", "list", "--database", "mysql://x"), "use sqlite:///FILE", 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can work among another user's files")
def test_root_does_not_make_files_that_the_server_cannot_use(run: Run, state: Path):
    run("repo", "list")
    (state / "repositories").mkdir()
    for path in (state, state / "repositories", state / "plue.sqlite"):
        os.chown(path, 65534, 65534)
        assert refuses(run("user", "add", "alice"), f"{path} belongs to nobody: do this as nobody")
        os.chown(path, 0, 0)
    assert run("user", "list", "--json").document == []


@pytest.mark.parametrize("raw", [b"\xff", b"a/\xed\xa0\x80", b"\xc3\xa9"])
def test_bytes_that_are_no_text_are_refused(team: Run, raw: bytes):
    word = os.fsdecode(raw)
    for words in (
        ("user", "add", word),
        ("user", "remove", word),
        ("key", "add", word, "ssh-ed25519 AAAA"),
        ("key", "remove", word),
        ("repo", "create", f"alice/{word}"),
        ("repo", "remove", word, "--yes"),
        ("access", "grant", "alice/project", word, "read"),
        ("access", "show", word),
    ):
        outcome = team(*words)
        assert refuses(outcome, "", outcome.status) and outcome.status in (1, 2), words


def test_output_that_cannot_be_written_is_an_error(team: Run, state: Path):
    with open("/dev/full", "w") as full:
        answer = subprocess.run(
            [sys.executable, "-m", "pyplue.ssh", "user", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert answer.returncode == 1
    assert answer.stderr == "pyplue.ssh: No space left on device\n"


def test_what_others_wrote_into_the_database_cannot_harm_a_terminal(run: Run, state: Path):
    run("user", "add", "alice")
    connection = sqlite3.connect(state / "plue.sqlite")
    connection.execute("UPDATE users SET username = 'a' || char(27) || '[2Jb' || char(10) || 'c'")
    connection.commit()
    connection.close()
    assert "a\\x1b[2Jb\\nc" in run("user", "list").out
    assert run("user", "list", "--json").document[0]["name"] == "a\x1b[2Jb\nc"


def test_a_reader_who_has_seen_enough_is_no_error(state: Path, run: Run):
    run("user", "list")
    connection = sqlite3.connect(state / "plue.sqlite")
    connection.executemany(
        "INSERT INTO users (username, lower_username) VALUES (?, ?)",
        [(f"user{number}", f"user{number}") for number in range(5000)],
    )
    connection.commit()
    connection.close()
    answer = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m pyplue.ssh user list | head -n 1"],
        capture_output=True,
        text=True,
    )
    assert answer.stdout.startswith("NAME")
    assert answer.stderr == ""


def test_without_sqlalchemy_the_cure_is_named(state: Path):
    program = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from pyplue.ssh.admin.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    for words, status in [(["user", "list"], 1), (["--version"], 0), (["--help"], 0)]:
        answer = subprocess.run(
            [sys.executable, "-c", program, *words], capture_output=True, text=True
        )
        assert answer.returncode == status
        assert ("pip install 'pyplue[ssh]'" in answer.stderr) == (status == 1)
        assert answer.stderr.count("\n") <= 1


def test_the_same_commands_on_postgresql(run: Run, postgres, tmp_path: Path, forge: Forge):
    database = postgres.new_database()
    on = ("--database", database, "--repos", tmp_path / "repositories")
    assert says(run(*on, "user", "add", "alice"), "added user alice")
    assert says(run(*on, "user", "add", "bob"), "added user bob")
    assert run(*on, "key", "add", "alice", forge.keys["alice"].line).status == 0
    assert refuses(run(*on, "key", "add", "bob", forge.keys["alice"].line), "belongs to alice")
    assert run(*on, "repo", "create", "alice/project").status == 0
    assert refuses(run(*on, "repo", "create", "alice/PROJECT"), "alice/project already")
    assert run(*on, "access", "grant", "alice/project", "bob", "read").status == 0
    for command in ("user list", "key list", "repo list", "access show"):
        assert run(*on, *command.split()).status == 0
        assert run(*on, *command.split(), "--json").document
    assert run(*on, "repo", "remove", "alice/project", "--yes").status == 0
    assert run(*on, "user", "remove", "alice").status == 0
    assert run(*on, "key", "list", "--json").document == []
