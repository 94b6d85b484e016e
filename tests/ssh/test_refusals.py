"""Who and what is refused, and that a refusal tells nothing: default deny, with real clients."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from .forge import (
    Client,
    Forge,
    Key,
    Server,
    commit,
    free_port,
    make_key,
    serve,
    short_path,
    wait_for_port,
)

# Raw commands that must run nothing. %ROOT is the directory of the repositories, %OUT a
# repository beside it, %MARK a file that a command injection would make.
COMMANDS = [
    "id",
    "git-upload-pack",
    "git-upload-pack ",
    "git-upload-pack ''",
    "git-upload-pack '/'",
    "git-upload-pack '.'",
    "git-upload-pack '..'",
    "git-upload-pack '../outside.git'",
    "git-upload-pack 'alice/../../outside.git'",
    "git-upload-pack 'alice/../bob/private.git'",
    "git-upload-pack 'alice/./project.git'",
    "git-upload-pack 'alice//project.git'",
    "git-upload-pack 'alice/project.git/..'",
    "git-upload-pack 'alice/project.git/objects'",
    "git-upload-pack '%OUT'",
    "git-upload-pack '%ROOT/alice/project.git'",
    "git-upload-pack '/etc'",
    "git-upload-pack '~/alice/project.git'",
    "git-upload-pack 'alice/link.git'",
    "git-upload-pack 'alice/linked/project.git'",
    "git-upload-pack 'alice/gitfile.git'",
    "git-upload-pack '-alice'",
    "git-upload-pack '--help'",
    "git-upload-pack '--upload-pack=touch %MARK'",
    "git-upload-pack --help",
    "git-upload-pack --strict 'alice/project.git'",
    "git-upload-pack -- 'alice/project.git'",
    "git-upload-pack 'alice/project.git' 'alice/project.git'",
    "git-upload-pack 'alice/project.git'; touch %MARK",
    "git-upload-pack 'alice/project.git' && touch %MARK",
    "git-upload-pack 'alice/project.git'\ntouch %MARK",
    "git-upload-pack '$(touch %MARK)'",
    "git-upload-pack `touch %MARK`",
    "git-upload-pack 'alice/project.git",
    "git-upload-pack alice/project.git'",
    "git-upload-pack 'alice/project.git\x01'",
    "git-upload-pack 'alice/project.git\n'",
    "git-upload-pack '" + "a" * 5000 + "'",
    "git-upload-pack '" + "a/" * 3000 + "'",
    "git-upload-pack '" + "'\\''" * 2000 + "'",
    "git-upload-pack  'alice/project.git'",
    " git-upload-pack 'alice/project.git'",
    "git-upload-pack\t'alice/project.git'",
    "Git-Upload-Pack 'alice/project.git'",
    "/usr/bin/git-upload-pack 'alice/project.git'",
    "git-upload-archive 'alice/project.git'",
    "git-lfs-authenticate alice/project.git download",
    "git upload-pack --strict 'alice/project.git'",
    "git -c core.pager=id log",
    "git --exec-path=/tmp upload-pack 'alice/project.git'",
    "git shell",
    "git-shell -c \"git-upload-pack 'alice/project.git'\"",
    "sh -c 'touch %MARK'",
    "scp -t /tmp",
    "sftp-server",
    "rsync --server . .",
]


@pytest.fixture(scope="module", autouse=True)
def traps(forge: Forge) -> None:
    """Links out of the root, and sideways within it."""
    outside = forge.directory / "outside.git"
    forge.git("clone", "-q", "--bare", str(forge.repositories / "alice/project.git"), str(outside))
    (forge.repositories / "alice/link.git").symlink_to(outside)
    (forge.repositories / "alice/linked").symlink_to(forge.repositories / "alice")
    linked = forge.repositories / "alice/gitfile.git"
    linked.mkdir()
    (linked / ".git").symlink_to(outside)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda text: repr(text)[:60])
def test_a_command_that_is_not_exactly_gits_runs_nothing(server: Server, forge, work, command):
    mark = work / "mark"
    for name, value in (
        ("%ROOT", forge.repositories),
        ("%OUT", forge.directory / "outside.git"),
        ("%MARK", mark),
    ):
        command = command.replace(name, str(value))
    answer = Client(server, "alice").ssh(command)
    assert answer.returncode not in (0, 255), answer
    assert answer.stdout == b""
    assert answer.stderr.strip(), "a refusal says something"
    assert not mark.exists()
    assert server.counters()["gits_running"] == 0


@pytest.mark.parametrize("service", ["git-upload-pack", "git upload-pack"])
def test_both_spellings_of_gits_own_command_work(server: Server, service):
    answer = Client(server, "alice").ssh(f"{service} 'alice/project.git'", input=b"0000")
    assert answer.returncode == 0, answer
    assert b"refs/heads/main" in answer.stdout


def says(answer: subprocess.CompletedProcess, *names: str) -> tuple[int, str, str]:
    """What a client was told, without the name that it asked for itself."""
    texts = []
    for output in (answer.stdout, answer.stderr):
        text = output.decode(errors="replace") if isinstance(output, bytes) else output
        for name in names:
            text = text.replace(name, "NAME")
        texts.append(re.sub(r"127\.0\.0\.1:\d+", "ADDRESS", text))
    return (answer.returncode, *texts)


def test_refused_and_unknown_repositories_read_alike(any_server, forge, work):
    alice = Client(any_server, "alice", directory=work)

    def cloned(name: str) -> tuple[int, str, str]:
        return says(alice.try_git("clone", alice.url(name), "clone"), name)

    unknown = cloned("alice/nothing.git")
    assert unknown[0] == 128
    assert "Could not read from remote repository" in unknown[2]
    for name in (
        *("bob/private.git", "bob/nothing.git", "nobody/nothing", "nothing", "alice/link.git"),
        *("alice/linked/project.git", "alice/../bob/private.git", "alice"),
    ):
        assert cloned(name) == unknown, name


def test_refused_and_unknown_pushes_read_alike(any_server, forge, work):
    alice = Client(any_server, "alice", directory=work)
    clone = alice.clone("alice/project", "clone")

    def pushed(name: str) -> tuple[int, str, str]:
        return says(alice.try_git("push", alice.url(name), "main:refs/heads/x", cwd=clone), name)

    before = forge.objects(forge.repositories / "public/library.git")
    unknown = pushed("alice/nothing.git")
    assert unknown[0] == 128
    for name in ("bob/private.git", "public/library.git", "public/nothing.git", "alice/link.git"):
        assert pushed(name) == unknown, name
    assert forge.objects(forge.repositories / "public/library.git") == before


def test_who_may_push_makes_no_repository_inside_another(server: Server, forge, work):
    """Neither in a work tree nor among the references: it would have hooks of the client's."""
    outer = f"alice/{os.urandom(3).hex()}"
    path = forge.repository(outer, bare=False)
    forge.git("config", "receive.denyCurrentBranch", "updateInstead", cwd=path)
    bare = forge.repositories / f"{outer}-bare"
    forge.git("clone", "-q", "--bare", str(path), str(bare))
    alice = Client(server, "alice", directory=work)
    clone, mark = alice.clone(outer, "clone"), work / "mark"
    hook = clone / "evil/hooks/pre-receive"
    hook.parent.mkdir(parents=True)
    hook.write_text(f"#!/bin/sh\ntouch {mark}\n")
    hook.chmod(0o755)
    commit(forge, clone, "evil/HEAD", b"ref: refs/heads/main\n")
    commit(forge, clone, "evil/objects/keep")
    commit(forge, clone, "evil/refs/keep")
    alice.git("push", "-q", "origin", "main", cwd=clone)
    names = [f"main:refs/heads/x/{name}" for name in ("HEAD", "objects/a", "refs/b")]
    alice.git("push", "-q", alice.url(f"{outer}-bare"), *names, cwd=clone)
    assert (path / "evil/hooks/pre-receive").exists()
    assert (bare / "refs/heads/x/HEAD").exists()

    def pushed(name: str) -> tuple[int, str, str]:
        return says(alice.try_git("push", alice.url(name), "main:refs/heads/y", cwd=clone), name)

    unknown = pushed("alice/nothing")
    assert pushed(f"{outer}/evil") == unknown
    assert not mark.exists()
    assert pushed(f"{outer}-bare/refs/heads/x") == unknown
    server.wait_for("command_refused", reason="not_found", repository=f"{outer}/evil")


def test_unknown_key_wrong_user_and_no_key_read_alike(any_server):
    def tried(key: str | None, user: str | None = None) -> tuple[int, str, str]:
        return says(Client(any_server, key, user=user).ssh("id"), user or any_server.user)

    unknown = tried("mallory")
    assert unknown[0] == 255
    assert "Permission denied (publickey)" in unknown[2]
    assert tried(None) == unknown
    if isinstance(any_server, Server):
        assert tried("alice", "alice") == unknown
        assert tried("alice", "root") == unknown
        assert tried("mallory", "root") == unknown


@pytest.mark.parametrize("method", ["password", "keyboard-interactive", "hostbased", "none"])
def test_no_method_but_public_keys(server: Server, method):
    options = ("-o", f"PreferredAuthentications={method}", "-o", "BatchMode=no")
    answer = Client(server, None, *options, "-o", "NumberOfPasswordPrompts=1").ssh("id")
    assert answer.returncode == 255
    assert b"Permission denied (publickey)." in answer.stderr


def test_a_short_rsa_key_is_refused(forge, work):
    key = make_key(work, "short", "rsa", "-b", "1024")
    people = forge.people()
    people["alice"]["keys"].append(key.line)
    with serve(forge, "callback", people=people) as own:
        client = Client(own, None, "-i", str(key.private), "-o", "RequiredRSASize=1024")
        assert client.ssh("id").returncode == 255
        own.wait_for("auth_failed", reason="weak_key")


def test_an_old_sha1_signature_is_refused(server: Server):
    options = ("-o", "PubkeyAcceptedAlgorithms=ssh-rsa")
    assert Client(server, "alice-rsa", *options).ssh("id").returncode == 255


def test_a_certificate_is_refused(server: Server, forge, work):
    authority = make_key(work, "authority")
    mine = make_key(work, "mine")
    command = ["ssh-keygen", "-q", "-s", str(authority.private), "-I", "alice", "-n", "git"]
    public = mine.private.with_suffix(".pub")
    subprocess.run([*command, str(public)], check=True, capture_output=True)
    certificate = work / "mine-cert.pub"
    client = Client(server, None, "-i", str(mine.private), "-o", f"CertificateFile={certificate}")
    assert client.ssh("id").returncode == 255


def test_too_many_keys_end_the_connection(server: Server, forge, work):
    keys = [make_key(work, f"key{number}") for number in range(8)]
    options = [word for key in keys for word in ("-i", str(key.private))]
    client = Client(server, None, *options, "-i", str(forge.keys["alice"].private))
    answer = client.ssh("git-upload-pack 'alice/project'", input=b"0000")
    assert answer.returncode == 255
    assert b"Too many authentication failures" in answer.stderr or b"closed" in answer.stderr


def test_no_shell_but_a_friendly_word(server: Server):
    answer = Client(server, "alice").ssh()
    assert answer.returncode == 1
    text = answer.stdout + answer.stderr
    assert b"alice" in text
    assert b"successfully authenticated" in text


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("-tt",), b"PTY allocation request failed"),
        (("-s",), b"subsystem request failed"),
        (("-A",), None),
        (("-X",), None),
    ],
    ids=["pty", "subsystem", "agent", "x11"],
)
def test_requests_that_are_not_gits_are_refused(server: Server, options, complaint):
    answer = Client(server, "alice").ssh("sftp", options=options)
    assert answer.returncode != 0
    assert answer.stdout == b""
    if complaint:
        assert complaint in answer.stderr


@pytest.mark.parametrize("forward", ["-R 0:127.0.0.1:22", "-W 127.0.0.1:22"])
def test_nothing_is_forwarded(server: Server, forward):
    flag, target = forward.split()
    command = [] if flag == "-W" else ["git-upload-pack 'alice/project'"]
    options = ("-o", "ExitOnForwardFailure=yes", flag, target)
    client = Client(server, "alice")
    answer = client.ssh(*command, options=options)
    assert answer.returncode == 255
    assert b"refs/heads" not in answer.stdout


def test_nobody_gets_through_a_socks_proxy(server: Server):
    """`ssh -D`: the client listens, and asks the server for each connection through it."""
    client, port = Client(server, "alice"), free_port()
    words = ["-N", "-D", f"127.0.0.1:{port}", "-p", str(server.port), f"{client.user}@127.0.0.1"]
    proxy = subprocess.Popen([*client.ssh_command, *words], env=client.forge.environment())
    try:
        wait_for_port(port)
        with socket.create_server(("127.0.0.1", 0)) as target:
            target.settimeout(0.5)
            with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
                # RFC 1928, sections 3 and 4: no authentication; CONNECT to an IPv4 address.
                peer.sendall(b"\x05\x01\x00")
                assert peer.recv(2) == b"\x05\x00"
                address = socket.inet_aton("127.0.0.1") + target.getsockname()[1].to_bytes(2, "big")
                peer.sendall(b"\x05\x01\x00\x01" + address)
                answer = peer.recv(10)
                # ssh may say yes before it asks the server; then it hangs up.
                assert answer[1:2] != b"\x00" or peer.recv(1) == b""
            with pytest.raises(TimeoutError):
                target.accept()
        assert server.wait_for("request_refused", request="direct-tcpip")
    finally:
        proxy.kill()
        proxy.wait()


def test_of_the_clients_environment_only_the_protocol_reaches_git(server: Server, forge, work):
    """A hook sees what git sees."""
    name = f"alice/env-{os.urandom(3).hex()}"
    hook = forge.repository(name) / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\nenv >&2\n")
    hook.chmod(0o755)
    names = ("LD_PRELOAD", "GIT_SSH_COMMAND", "GIT_DIR", "PATH", "BASH_ENV", "FOO")
    options = [word for n in names for word in ("-o", f"SetEnv={n}=/nowhere/evil.so")]
    client = Client(server, "alice", *options[:2], directory=work)
    client.ssh_command += ["-o", "SendEnv=LD_PRELOAD GIT_DIR BASH_ENV FOO GIT_TRACE"]
    clean = client.environment
    client.environment = lambda protocol: (
        clean(protocol)
        | {
            "FOO": "/nowhere/evil.so",
            "BASH_ENV": "/nowhere/evil.so",
            "GIT_TRACE": "/nowhere/evil.so",
        }
    )
    clone = client.clone(name, "clone")
    commit(forge, clone, "file")
    seen = client.try_git("push", "origin", "main", cwd=clone).stderr
    assert not re.search("^remote:.*evil", seen, re.MULTILINE)
    environment = dict(
        line.removeprefix("remote: ").rstrip().split("=", 1)
        for line in seen.splitlines()
        if line.startswith("remote: ") and "=" in line
    )
    assert environment["PLUE_USER"] == "alice"
    assert environment["PLUE_REPO"] == name
    for leaked in ("HOSTNAME", "OLDPWD", "VIRTUAL_ENV", "PYTEST_CURRENT_TEST"):
        assert leaked not in environment
    assert not [name for name in environment if name.startswith("SSH_")]


@pytest.mark.parametrize(
    "value", ["version=3", "version=2; id", "version=2:--upload-pack=x\n", "--help", "v" * 9000]
)
def test_an_odd_git_protocol_is_not_handed_on(server: Server, value):
    client = Client(server, "alice", "-o", "SendEnv=GIT_PROTOCOL")
    client.forge = forge_with(client.forge, {"GIT_PROTOCOL": value})
    answer = client.ssh("git-upload-pack 'alice/project'", input=b"0000")
    # Version 0 is what git speaks when it was told nothing.
    assert answer.returncode == 0
    assert b"refs/heads/main" in answer.stdout


def forge_with(forge: Forge, variables: dict[str, str]) -> Forge:
    """The same forge, whose commands run with more environment variables."""

    class Changed:
        def __getattr__(self, name: str):
            return getattr(forge, name)

        def environment(self) -> dict[str, str]:
            return forge.environment() | variables

    return Changed()  # type: ignore[return-value]


def test_a_removed_key_gets_no_new_login_and_no_new_command(forge, work):
    socket = short_path()
    with serve(forge) as own:
        client = Client(own, "alice", "-o", f"ControlPath={socket}", directory=work)
        options = ("-o", "ControlMaster=yes", "-o", "ControlPersist=30", "-f", "-N")
        assert client.ssh(options=options).returncode == 0
        assert client.ssh("git-upload-pack 'alice/project'", input=b"0000").returncode == 0
        people = forge.people()
        del people["alice"]
        own.ask("keys " + json.dumps(people))
        answer = client.ssh("git-upload-pack 'alice/project'", input=b"0000")
        assert answer.returncode != 0
        assert b"refs" not in answer.stdout
        client.ssh(options=("-O", "exit"))
        assert Client(own, "alice").ssh("git-upload-pack 'alice/project'").returncode == 255


def test_refusals_are_logged_with_their_reason(server: Server):
    Client(server, "mallory").ssh("id")
    event = server.wait_for("auth_failed", reason="unknown_key")
    assert event["fingerprint"].startswith("SHA256:")
    Client(server, "alice", user="root").ssh("id")
    assert server.wait_for("auth_failed", reason="wrong_user")["user"] == "root"
    Client(server, "alice").ssh("git-upload-pack 'bob/private'")
    event = server.wait_for("command_refused", repository="bob/private")
    assert (event["principal"], event["reason"]) == ("alice", "denied")
    Client(server, "alice").ssh("git-upload-pack 'alice/nothing'")
    server.wait_for("command_refused", repository="alice/nothing", reason="not_found")


def test_no_log_line_holds_a_key(server: Server, forge):
    Client(server, "alice").ssh("id")
    Client(server, "mallory").ssh("id")
    text = repr(server.events())
    for key in forge.keys.values():
        assert isinstance(key, Key)
        assert key.line.split()[1] not in text
    assert Path(forge.keys["alice"].private).read_text()[40:80] not in text


def test_common_algorithms_missing_is_explained(server: Server):
    answer = Client(server, "alice", "-c", "aes256-cbc").ssh("id")
    assert answer.returncode == 255
    assert b"no matching cipher found" in answer.stderr or b"closed" in answer.stderr
    event = server.wait_for("disconnected", reason="kex")
    assert "aes256-cbc" in event["detail"]
