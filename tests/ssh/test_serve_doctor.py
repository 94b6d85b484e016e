"""`python -m pyplue.ssh doctor`: what it finds, in words, as JSON and as exit status."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pyplue.ssh.doctor import advisories, handshake
from pyplue.ssh.doctor.advisories import HOLES, Package, verdict
from pyplue.ssh.errors import SshError

from .forge import LIBSSH, Forge, free_port
from .postgres import Postgres
from .serving import Team, serving


def findings(team: Team, *words: str) -> dict[tuple[str, str], list[str]]:
    """Texts by area and status."""
    port = () if "--port" in words else ("--port", str(free_port()))
    answer = team.ask("doctor", "--json", *port, *words)
    document = json.loads(answer.stdout)
    found: dict[tuple[str, str], list[str]] = {}
    for check in document["checks"]:
        found.setdefault((check["area"], check["status"]), []).append(check["text"])
        assert check["status"] == "ok" or check["cure"]
    broken = any(status == "broken" for _, status in found)
    assert document["healthy"] == (not broken)
    assert answer.returncode == (1 if broken else 0)
    assert answer.stderr.count("\n") == (1 if broken else 0)
    return found


def test_a_healthy_server_in_words(team: Team):
    answer = team.run("doctor", "--port", str(free_port()))
    assert answer.returncode == 0, answer.stdout
    lines = [line for line in answer.stdout.splitlines() if not line.startswith(" ")]
    ok = {line.split()[1] for line in lines if line.startswith("ok ")}
    assert {"libssh", "host", "repositories", "git", "database", "port"} <= ok
    assert not any(line.startswith("broken") for line in lines)
    assert "users 2, keys 2, repositories 1, collaborators 0" in answer.stdout
    assert "journal WAL" in answer.stdout
    shown = json.loads(team.run("host-key", "show", "--json").stdout)
    assert shown["fingerprint"] in answer.stdout


def test_what_a_new_machine_lacks_is_no_fault_and_nothing_is_made(tmp_path: Path):
    state = tmp_path / "state"
    team = Team.__new__(Team)
    team.options = ["--state", str(state)]
    found = findings(team)
    for area in ("host key", "repositories", "database"):
        assert "there is no" in found[area, "warning"][0]
    assert not state.exists()


def test_algorithms_are_those_that_clients_see(team: Team):
    with serving(team) as server:
        offer = handshake.ask("127.0.0.1", server.port)
        found = findings(team, "--port", str(server.port))
        assert found["port", "ok"] == [f"127.0.0.1 port {server.port}: a server is running"]
    text = (found.get(("algorithms", "ok")) or found["algorithms", "warning"])[0]
    assert "curve25519-sha256" in text
    assert ("algorithms", "ok") in found or not any("mlkem" in name for name in offer.kex)
    assert offer.host_keys == ["ssh-ed25519"]
    found = findings(team, "--set", "kex=curve25519-sha256", "--set", "ciphers=aes128-ctr")
    assert found["algorithms", "warning"] == [
        "no post-quantum key exchange: curve25519-sha256; aes128-ctr"
    ]


def test_a_server_behind_a_load_balancer_is_known_too(team: Team):
    proxy = ("--proxy-protocol-from", "127.0.0.1")
    with serving(team, *proxy) as server:
        found = findings(team, "--port", str(server.port), *proxy)
    assert found["port", "ok"] == [f"127.0.0.1 port {server.port}: a server is running"]


def test_what_keeps_the_server_from_starting_is_said(team: Team):
    assert "ciphers" in findings(team, "--set", "ciphers=rot13")["server", "broken"][0]
    found = findings(team, "--set", "git=/nowhere/git")
    assert found["git", "broken"] == ["/nowhere/git is not to be found"]
    (team.state / "ssh_host_ed25519_key").chmod(0o640)
    found = findings(team)
    assert "others can read" in found["host key", "broken"][0]
    assert "chmod 600" in found["server", "broken"][0]


def test_git_is_asked_for_its_version(team: Team, tmp_path: Path):
    for text, status in [("git version 2.20.1", "warning"), ("hello", "broken")]:
        program = tmp_path / "git"
        program.write_text(f"#!/bin/sh\necho {text}\n")
        program.chmod(0o755)
        assert ("git", status) in findings(team, "--set", f"git={program}")


def test_repositories_are_looked_at(team: Team, tmp_path: Path):
    team.repositories.chmod(0o777)
    assert "everybody can write" in findings(team)["repositories", "warning"][0]
    team.repositories.chmod(0o755)
    shutil.rmtree(team.path("alice/project"))
    found = findings(team)
    assert found["database", "warning"] == ["1 repositories have no directory: alice/project"]
    if os.getuid() == 0:
        os.chown(team.repositories, 65534, -1)
        assert "belongs to user number 65534" in findings(team)["repositories", "warning"][0]
    (tmp_path / "file").touch()
    found = findings(team, "--repos", str(tmp_path / "file"))
    assert "is no directory" in found["repositories", "broken"][0]
    (tmp_path / "link").symlink_to(team.repositories)
    found = findings(team, "--repos", str(tmp_path / "link"))
    assert f"a link to {team.repositories}" in found["repositories", "ok"][0]


def test_the_database_is_looked_at(team: Team, forge: Forge, tmp_path: Path):
    with team.store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE ssh_keys SET public_key = 'nonsense' WHERE user_id = 2")
    found = findings(team)
    assert "1 of 2 keys let nobody in" in found["database", "warning"][0]
    (team.state / "plue.sqlite").chmod(0o644)
    assert "others can read" in findings(team)["database", "warning"][0]
    (team.state / "plue.sqlite").chmod(0o666)
    assert "everybody can write" in findings(team)["database", "broken"][0]
    (tmp_path / "poem").write_text("a poem, and longer than a header of SQLite " * 20)
    (tmp_path / "poem").chmod(0o600)
    found = findings(team, "--database", str(tmp_path / "poem"))
    assert "not a database" in found["database", "broken"][0]
    (tmp_path / "empty").touch(0o600)
    found = findings(team, "--database", str(tmp_path / "empty"))
    assert "has no table users" in found["database", "warning"][0]


def test_postgresql_is_looked_at(forge: Forge, postgres: Postgres, tmp_path: Path):
    team = Team(forge, tmp_path, postgres.new_database())
    text = findings(team)["database", "ok"][0]
    assert "PostgreSQL" in text and "users 2, keys 2" in text
    postgres.stop()
    try:
        assert "is away" in findings(team)["database", "broken"][0]
    finally:
        postgres.start()


def test_a_port_is_tried(team: Team):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"220 mail\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        found = findings(team, "--port", port)
        answering.join()
    assert found["port", "broken"] == [f"127.0.0.1 port {port} is in use"]
    found = findings(team, "--host", "192.0.2.1")
    assert "192.0.2.1" in found["port", "broken"][0]


def test_a_state_directory_that_others_can_write_is_broken(team: Team):
    team.state.chmod(0o777)
    assert "others can write" in findings(team)["process", "broken"][0]


def test_wrong_words_are_one_line(team: Team):
    for words in (["--port", "no"], ["--set", "x=1"], ["--config", "/dev/null"], ["me"]):
        answer = team.ask("doctor", *words)
        assert (answer.returncode, answer.stdout) == (2, "")
        assert answer.stderr.count("\n") == 1


def test_nothing_is_changed_by_looking(team: Team):
    def everything() -> list[tuple[str, int, int]]:
        found = []
        for path in sorted(team.state.rglob("*")):
            status = path.lstat()
            # SQLite's own files beside the database come and go with connections.
            if not path.name.startswith("plue.sqlite-"):
                size = status.st_size if stat.S_ISREG(status.st_mode) else 0
                found.append((str(path), status.st_mode, size))
        return found

    before = everything()
    findings(team)
    assert everything() == before


# ---- libssh's holes --------------------------------------------------------------------------

HOLE = {hole.cve: hole for hole in HOLES}
GCM, TERRAPIN, KDF = (HOLE[f"CVE-{n}"] for n in ("2026-59847", "2023-48795", "2025-5372"))


def debian(version: str, changelog: str = "") -> Package:
    return Package("libssh-4", version, changelog)


@pytest.mark.parametrize(
    ("hole", "version", "package", "gcm", "is_"),
    [
        (GCM, "0.12.2", None, True, "fixed"),
        (GCM, "0.13.0", None, True, "fixed"),
        (GCM, "0.12.1/openssl", None, True, "open"),
        (GCM, "0.12.1", None, False, "avoided"),
        (GCM, "0.10.6", debian("0.10.6-0+deb12u3"), True, "fixed by the package"),
        (GCM, "0.10.6", debian("0.10.6-0+deb12u12"), True, "fixed by the package"),
        (GCM, "0.10.6", debian("0.10.6-0+deb12u2"), True, "open"),
        (GCM, "0.10.6", debian("0.10.6-2ubuntu1"), True, "open"),
        (GCM, "0.10.6", debian("0.10.6-2ubuntu2", "* CVE-2026-59847: check"), True,
         "fixed by the package"),
        (TERRAPIN, "0.10.6", None, True, "fixed"),
        (TERRAPIN, "0.9.9", None, True, "open"),
        (KDF, "0.11.1", None, False, "open"),
        (KDF, "0.11.10", None, False, "fixed"),
        (KDF, "garbage", None, False, "open"),
    ],
)  # fmt: skip
def test_a_hole_is_open_until_it_is_known_to_be_fixed(hole, version, package, gcm, is_):
    assert verdict(hole, version, package, gcm_offered=gcm) == is_


def test_open_holes_are_named_with_their_cure(team: Team, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("pyplue.ssh.doctor.checks.libssh_version", lambda: "0.11.1/openssl")
    monkeypatch.setattr(advisories, "package", lambda: None)
    monkeypatch.setattr(advisories, "is_bundled", lambda: False)
    found = findings(team)
    assert any(text.startswith("CVE-2025-5372") for text in found["libssh", "warning"])
    if LIBSSH < (0, 12, 2):
        assert any("does not offer AES-GCM" in text for text in found["libssh", "ok"])
    else:  # the real one is fixed and offers it, whatever version it is said to have here
        assert any(text.startswith("CVE-2026-59847") for text in found["libssh", "warning"])
    monkeypatch.setattr(advisories, "is_bundled", lambda: True)
    found = findings(team)
    assert any(text.startswith("CVE-2025-5372") for text in found["libssh", "broken"])


def test_the_package_of_the_loaded_library_is_found(need: Callable[[str], str]):
    need("dpkg-query")
    if advisories.is_bundled():
        pytest.skip("libssh is inside libplue_ssh")
    package = advisories.package()
    assert package is not None
    assert package.name.startswith("libssh")
    assert package.version[0].isdigit()


# ---- a peer that is no server ----------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"220 mail\r\n",
        b"SSH-1.5-old\r\n",
        b"SSH-2.0-x\r\n",
        b"SSH-2.0-x\r\n\xff\xff\xff\xff",
        b"SSH-2.0-x\r\n\0\0\0\x02\0\x14",
        b"SSH-2.0-x\r\n\0\0\0\x20\0\x14" + b"\xff" * 30,
        b"SSH-2.0-x\r\n\0\0\0\x20\0\x01" + b"\0" * 30,
        b"x" * 100_000,
    ],
    ids=range(9),
)
def test_what_is_no_handshake_is_an_error(answer: bytes):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):  # the peer may leave first
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)

        serving_it = threading.Thread(target=serve)
        serving_it.start()
        with pytest.raises((SshError, OSError)):
            handshake.ask("127.0.0.1", listener.getsockname()[1])
        serving_it.join()
