"""A8 of the contract: the command line, the environment and the log."""

from __future__ import annotations

import os
import socket
import stat
import time
from typing import Any

import pytest

from vt.harness import Home, eventually


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["--"]], ids=str)
def test_a8_usage(home: Home, argv: list[str]) -> None:
    result = home.cli(*argv)
    assert result.code == 0
    assert result.out.startswith(b"Usage: vibetunnel-fwd")
    assert not result.err
    for word in (
        "--session-id",
        "--title-mode",
        "--update-title",
        "--log-file",
        "-q",
        "VIBETUNNEL_",
    ):
        assert word.encode() in result.out
    assert home.sessions() == []


@pytest.mark.parametrize(
    "argv",
    [
        ["--session-id"],
        ["--title-mode"],
        ["--verbosity"],
        ["--log-file"],
        ["--update-title"],
        ["--no-such-option", "true"],
        ["--session", "x", "true"],
        ["-x", "true"],
        ["--title-mode", "loud", "true"],
        ["--verbosity", "loud", "true"],
        ["--verbosity", "", "true"],
        ["--update-title", "x"],
        ["--session-id", "nobody", "--update-title", "x"],
        ["--session-id", "../x", "--update-title", "x"],
    ],
    ids=str,
)
def test_a8_what_is_wrong_is_said_on_stderr_and_is_1(home: Home, argv: list[str]) -> None:
    result = home.cli(*argv)
    assert result.code == 1
    assert result.err.strip()
    assert not result.out
    assert home.sessions() == []


@pytest.mark.parametrize(
    "argv",
    [
        ["echo", "--title-mode", "x"],
        ["--", "echo", "--title-mode", "x"],
        ["--", "--", "echo", "--title-mode", "x"],
        ["--session-id", "x", "--", "echo", "--title-mode", "x"],
        ["--title-mode", "FILTER", "-v", "echo", "--title-mode", "x"],
        ["--verbosity", "Debug", "-q", "--", "--", "echo", "--title-mode", "x"],
    ],
    ids=str,
)
def test_a8_options_stop_at_the_command(home: Home, argv: list[str]) -> None:
    assert home.cli(*argv).out == b"--title-mode x\r\n"


def test_a8_a_second_double_dash_is_the_commands(home: Home) -> None:
    result = home.cli("--", "--", "--", "x")
    assert result.code == 127


def test_a8_the_title_mode_from_the_environment(home: Home) -> None:
    script = r"printf 'a\033]0;t\007b'"
    for value, flags, out in [
        ("filter", [], b"ab"),
        ("Filter", [], b"ab"),
        ("nonsense", [], b"a\x1b]0;t\x07b"),
        ("filter", ["--title-mode", "none"], b"a\x1b]0;t\x07b"),
    ]:
        environment = {"VIBETUNNEL_TITLE_MODE": value}
        assert home.cli(*flags, "sh", "-c", script, env=environment).out == out


def test_a8_a_session_id_in_the_environment_is_not_the_id(home: Home) -> None:
    assert home.cli("true", env={"VIBETUNNEL_SESSION_ID": "outer"}).code == 0
    (session,) = home.sessions()
    assert session.id.startswith("fwd_")


def test_a8_claude_is_a_command_like_any_other(home: Home) -> None:
    assert home.cli("echo", "claude").out == b"claude\r\n"


def test_a8_the_started_file(home: Home) -> None:
    file = home.path / "started"
    environment = {"VIBETUNNEL_FWD_STARTED_FILE": str(file)}
    assert home.cli("sh", "-c", "kill -9 $$", env=environment).code == 137
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_text("somebody's")
    home.cli("true", env=environment)
    assert file.read_text() == "somebody's", "created exclusively"


# ---- the log ------------------------------------------------------------------------------------


def test_a8_the_log_is_appended_to_and_private(home: Home) -> None:
    log = home.path / ".vibetunnel" / "log.txt"
    log.parent.mkdir()
    log.write_text("kept\n")
    log.chmod(0o644)
    home.run("true", flags=("-vvv",), umask=0)
    home.run("true", flags=("--verbosity", "debug"))
    assert log.read_text().startswith("kept\n")
    assert len(log.read_text()) > len("kept\n")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a8_a_new_log_is_private(home: Home) -> None:
    home.run("true", flags=("-vvv",), umask=0)
    assert stat.S_IMODE((home.path / ".vibetunnel" / "log.txt").stat().st_mode) == 0o600


def test_a8_the_default_level_is_error(home: Home) -> None:
    result = home.run("true")
    assert result.err == b""
    log = home.path / ".vibetunnel" / "log.txt"
    assert not log.exists() or log.read_text() == ""


@pytest.mark.parametrize(
    ("variables", "flags", "logs"),
    [
        ({"VIBETUNNEL_LOG_LEVEL": "debug"}, (), True),
        ({"VIBETUNNEL_LOG_LEVEL": "DEBUG"}, (), True),
        ({"VIBETUNNEL_LOG_LEVEL": "nonsense"}, (), False),
        ({"VIBETUNNEL_DEBUG": "1"}, (), True),
        ({"VIBETUNNEL_DEBUG": "true"}, (), True),
        ({"VIBETUNNEL_DEBUG": "0"}, (), False),
        ({"VIBETUNNEL_DEBUG": "1", "VIBETUNNEL_LOG_LEVEL": "error"}, (), True),
        ({"VIBETUNNEL_DEBUG": "1"}, ("-q",), False),
        ({"VIBETUNNEL_LOG_LEVEL": "debug"}, ("--verbosity", "silent"), False),
        ({}, ("-vvv",), True),
    ],
    ids=str,
)
def test_a8_levels(
    home: Home, variables: dict[str, str], flags: tuple[str, ...], logs: bool
) -> None:
    file = home.path / "log"
    home.run("true", flags=(*flags, "--log-file", str(file)), env=variables)
    assert (file.exists() and file.stat().st_size > 0) == logs


def test_a8_a_log_files_name_is_exact(home: Home) -> None:
    name = os.fsencode(home.path) + b"/log\xff\xfe"
    home.cli("-vvv", "--log-file", name, "true")
    assert os.path.getsize(name) > 0


def test_a8_a_log_that_is_no_file_of_ours_alone_keeps_its_mode(home: Home) -> None:
    log = home.path / "log"  # as /dev/null is for root
    os.mkfifo(log)
    log.chmod(0o666)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert home.run("true", flags=("-vvv", "--log-file", str(log))).code == 0
        assert b"session" in os.read(reader, 4096)
    finally:
        os.close(reader)
    assert stat.S_IMODE(log.stat().st_mode) == 0o666


def test_a8_a_log_that_cannot_be_written_does_not_stop_the_session(home: Home) -> None:
    result = home.run("echo", "on", flags=("-vvv", "--log-file", "/no/such/folder/log"))
    assert result.code == 0
    assert result.out == b"on\r\n"


# ---- --update-title -----------------------------------------------------------------------------


def update(home: Home, name: str, title: str | bytes) -> Any:
    return home.cli("--session-id", name, "--update-title", title)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("plain", "plain"),
        ("CLI\nTitle", "CLITitle"),
        (b"raw\xfftitle", "rawtitle"),
        ("hi\nthere\x1b[", "hithere["),
        ("héllo €", "héllo €"),
        ("x" * 1000, "x" * 256),
    ],
)
def test_a8_update_title_of_a_running_session(home: Home, title: str | bytes, name: str) -> None:
    process = home.start("cat")
    session = process.session.wait()
    assert update(home, session.id, title).code == 0
    assert session.info["name"] == name, "on disk when it returns"
    with session.client() as client:
        client.control(cmd="kill")
        process.wait()
    assert session.info["name"] == name
    assert session.info["exitCode"] == 143


def test_a8_update_title_of_an_ended_session(home: Home) -> None:
    home.run("true")
    before = home.last.info
    assert update(home, home.last.id, "later").code == 0
    assert home.last.info == {**before, "name": "later"}


def test_a8_update_title_keeps_what_it_does_not_know(home: Home) -> None:
    home.run("true")
    path = home.last.path / "session.json"
    path.write_text(path.read_text().replace('"id"', '"later field": [1.50, "\\u00e9"],\n  "id"'))
    assert update(home, home.last.id, "new").code == 0
    assert home.last.info["later field"] == [1.5, "é"]


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b"\xff"])
def test_a8_update_title_of_a_broken_session_is_an_error(home: Home, content: bytes) -> None:
    home.run("true")
    (home.last.path / "session.json").write_bytes(content)
    assert update(home, home.last.id, "x").code == 1
    assert (home.last.path / "session.json").read_bytes() == content


def test_a8_update_title_does_not_hang_on_a_stuck_forwarder(home: Home) -> None:
    home.run("true")
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(home.last.path / "ipc.sock"))
        stuck.listen(0)
        fillers = []
        for _ in range(3):  # fill the backlog, so that another connect would wait
            filler = socket.socket(socket.AF_UNIX)
            filler.setblocking(False)
            filler.connect_ex(str(home.last.path / "ipc.sock"))
            fillers.append(filler)
        start = time.monotonic()
        assert update(home, home.last.id, "free").code == 0
        assert time.monotonic() - start < 1.5
        for filler in fillers:
            filler.close()
    assert home.last.info["name"] == "free"


def test_a8_update_title_is_shown_by_the_running_session(home: Home) -> None:
    terminal = home.terminal("cat")
    session = terminal.session.wait()
    assert update(home, session.id, "shown").code == 0
    terminal.expect(b"\x1b]2;shown\x07", timeout=2)
    eventually(lambda: session.info["name"] == "shown")
