"""`vt`'s own words: help, refusals, `vt title`, and what it asks VibeTunnel's server for."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vt.harness import Home, Result

NODE = '#!/bin/sh\nprintf "<%s>" "$@"\nexit 42\n'


@pytest.fixture
def home(need: Callable[[str], str]) -> Iterator[Home]:
    home = Home([need("vt")])
    server = home.path / "npm" / "vibetunnel"
    server.parent.mkdir()
    server.write_text(NODE)
    server.chmod(0o755)
    home.env["VIBETUNNEL_BIN"] = str(server)
    yield home
    home.close()


@pytest.mark.parametrize("argv", [(), ("-h",), ("--help",)])
@pytest.mark.parametrize("session", ["", "x"])
def test_help(home: Home, argv: tuple[str, ...], session: str) -> None:
    done = home.cli(*argv, env={"VIBETUNNEL_SESSION_ID": session})
    assert (done.code, done.err) == (0, b"")
    text = done.out.decode()
    assert text.startswith("Usage: vt [options] [--] command [arguments...]\n")
    assert all(len(line) <= 100 for line in text.splitlines())
    for word in (
        "-S",
        "-i",
        "--title-mode",
        "-q",
        "title TEXT",
        "VIBETUNNEL_USE_ZIG_FWD",
        "status",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--frobnicate",), "unknown option --frobnicate, see vt --help"),
        (("-x", "ls"), "a program of that name: vt -S -- -x"),
        (("--session-id",), "--session-id needs a value"),
        (("--title-mode", ""), "--title-mode needs a value"),
        (("-q",), "no command, see vt --help; vt -i starts your shell"),
        (("--",), "no command"),
        (("title", "x"), "'vt title' is for use inside a session"),
    ],
)
def test_wrong_usage(home: Home, argv: tuple[str, ...], message: str) -> None:
    done = home.cli(*argv)
    assert (done.code, done.out) == (1, b"")
    assert done.err.startswith(b"vt: ")
    assert message in done.err.decode()
    assert home.sessions() == []


@pytest.mark.parametrize("argv", [("--title-mode", "loud", "ls"), ("--session-id", "a/b", "ls")])
def test_the_forwarder_says_what_is_wrong_with_a_value(home: Home, argv: tuple[str, ...]) -> None:
    done = home.cli(*argv)
    assert done.code == 1
    assert done.err.startswith(b"vibetunnel-fwd: ")


def test_a_program_whose_name_begins_with_a_dash(home: Home) -> None:
    program = home.path / "bin" / "-odd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho odd: $*\n")
    program.chmod(0o755)
    home.env["PATH"] += f":{program.parent}"
    assert home.run("-odd", "-x").out == b"odd: -x\r\n"
    assert home.run("-odd", flags=("-S",)).out == b"odd:\r\n"


def test_a_program_that_is_called_as_a_word_of_vts(home: Home) -> None:
    program = home.path / "bin" / "status"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho my own\n")
    program.chmod(0o755)
    home.env["PATH"] += f":{program.parent}"
    assert home.cli("status").code == 42
    assert home.cli("--", "status").out == b"my own\r\n"


def test_a_path_where_nothing_is(home: Home) -> None:
    done = home.run("./nothing")
    assert done.code == 127
    assert b"./nothing: command not found" in done.out


def test_version(home: Home, need) -> None:
    native = subprocess.run([need("vibetunnel-fwd"), "--version"], capture_output=True).stdout
    assert home.cli("--version").out == home.cli("version").out == native
    assert home.cli("version", env={"VIBETUNNEL_USE_ZIG_FWD": "0"}).out == b"<version>"


# ---- inside a session ---------------------------------------------------------------------------


@pytest.mark.parametrize("argv", ["ls", "-i", "-S ls", "-q ls", "--", "-vv -- ls"])
def test_sessions_do_not_nest(home: Home, argv: str) -> None:
    done = home.run("sh", "-c", f'"{home.command[0]}" {argv}; echo code $?')
    assert b"vt: already inside session s1, and sessions do not nest: leave out vt" in done.out
    assert b"code 1" in done.out
    assert len(home.sessions()) == 1


def inside(home: Home, *argv: str | bytes) -> Result:
    return home.run(home.command[0], *argv, flags=("-S",))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["my build"], "my build"),
        (["my", "build"], "my build"),
        (["--help"], "--help"),
        (["-x", "--", "*"], "-x -- *"),
        (["größe €😀"], "größe €😀"),
        (["two\nlines\x1b]2;x\x07"], "twolines]2;x"),
        ([b"raw\xfftitle"], "rawtitle"),
    ],
)
def test_title_renames_the_session(home: Home, words: list[str | bytes], name: str) -> None:
    done = inside(home, "title", *words)
    assert (done.code, done.out) == (0, b"")
    assert home.last.info["name"] == name


def test_title_without_a_text(home: Home) -> None:
    done = inside(home, "title")
    assert done.code == 1
    assert b"'vt title' needs a text" in done.out


def test_the_outer_terminal_shows_the_title(home: Home) -> None:
    text = f'"{home.command[0]}" title nightly build; sleep 60'
    terminal = home.terminal("sh", "-c", text)
    terminal.expect(b"\x1b]2;nightly build\x07")
    terminal.signal(15)
    terminal.wait()
    assert terminal.session.info["name"] == "nightly build"


def test_title_through_node(home: Home) -> None:
    env = {"VIBETUNNEL_SESSION_ID": "x", "VIBETUNNEL_USE_ZIG_FWD": "0"}
    done = home.cli("title", "a b", "c", env=env)
    assert done.out == b"<fwd><--session-id><x><--update-title><a b c>"


# ---- the server's own ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "called"),
    [(["status"], b"<status>"), (["unfollow"], b"<unfollow>"), (["git", "event"], b"<git-event>")],
)
@pytest.mark.parametrize("session", ["", "x"])
def test_what_the_server_is_asked(home: Home, argv: list[str], called: bytes, session: str) -> None:
    done = home.cli(*argv, env={"VIBETUNNEL_SESSION_ID": session})
    assert (done.code, done.out) == (42, called)


def test_without_a_vibetunnel_it_says_what_to_install(home: Home) -> None:
    del home.env["VIBETUNNEL_BIN"]
    home.env["PATH"] = "/usr/bin:/bin"
    done = home.cli("status")
    assert done.code == 1
    assert b"npm install -g vibetunnel, or the Mac app" in done.err


@pytest.fixture
def repository(home: Home) -> Path:
    """A repository with two worktrees: `main`, and `side` in a folder whose name has a space."""

    def git(*words: str) -> None:
        who = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-C", str(home.work)]
        subprocess.run(["git", *who, *words], env=home.env, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("commit", "-q", "--allow-empty", "-m", "First")
    git("worktree", "add", "-q", "-b", "side", str(home.path / "the side"))
    return home.work


def test_follow(home: Home, repository: Path) -> None:
    side = str(home.path / "the side")
    called = f"<follow><--worktree-path><{side}><--main-repo><{repository}>".encode()
    assert home.cli("follow", "side").out == called
    assert home.cli("follow", side).out == called
    assert home.cli("follow", cwd=side).out == called


@pytest.mark.parametrize("word", ["main", "nobody", ""])
def test_nothing_to_follow(home: Home, repository: Path, word: str) -> None:
    done = home.cli("follow", *([word] if word else []))
    assert done.code == 1
    assert b"no worktree to follow: make one with git worktree add" in done.err


def test_follow_outside_a_repository(home: Home) -> None:
    done = home.cli("follow")
    assert done.code == 1
    assert b"'vt follow' is for use inside a Git repository" in done.err
