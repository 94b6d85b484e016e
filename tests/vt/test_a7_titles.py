"""A7 of the contract: names, titles, the filter, and renames from outside."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from vt.harness import Home, Terminal, eventually

TITLE = re.compile(rb"\x1b\][012];([^\x07\x1b]*)(?:\x07|\x1b\\)")


def titles(data: bytes) -> list[str]:
    return [title.decode() for title in TITLE.findall(data)]


# ---- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        (".", "~"),
        ("work", "~/work"),
        ("a/b", "~/a/b"),
        ("Development/x", "~/Dev/x"),
        ("Documents/x", "~/Docs/x"),
        ("Applications/x", "~/Apps/x"),
        ("a/b/c/d", "…/c/d"),
    ],
)
def test_a7_a_name_is_the_command_and_the_short_path(home: Home, place: str, shown: str) -> None:
    directory = home.path / place
    directory.mkdir(parents=True, exist_ok=True)
    home.run("/bin/sh", "-c", ":", cwd=directory)
    assert home.last.info["name"] == f"sh ({shown})"


def test_a7_a_home_that_is_only_a_prefix_is_not_home(home: Home) -> None:
    beside = Path(f"{home.path}2")
    beside.mkdir()
    try:
        home.run("true", cwd=beside)
        assert home.last.info["name"] == f"true ({beside})"
    finally:
        beside.rmdir()


def test_a7_control_characters_in_a_command_do_not_reach_the_name(home: Home) -> None:
    odd = home.work / "od\x1b]2;d\x07\n"
    odd.write_text("#!/bin/sh\n")
    odd.chmod(0o755)
    terminal = home.terminal(str(odd), flags=("--title-mode", "static"))
    terminal.wait()
    name = terminal.session.info["name"]
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", name)
    assert all("\x1b" not in title for title in titles(terminal.output))


# ---- modes --------------------------------------------------------------------------------------


def shown_by(home: Home, mode: str, script: str) -> Terminal:
    terminal = home.terminal("sh", "-c", script, flags=("--title-mode", mode))
    terminal.wait()
    return terminal


APP = r"printf 'a\033]0;app\007b\033]1;icon\007c\033]2;window\033\\d'"


def test_a7_none_shows_nothing_of_its_own_and_lets_titles_pass(home: Home) -> None:
    terminal = shown_by(home, "none", APP)
    assert terminal.output == b"a\x1b]0;app\x07b\x1b]1;icon\x07c\x1b]2;window\x1b\\d"
    assert terminal.session.recording().text() == terminal.output.decode()


def test_a7_filter_takes_titles_out_of_both(home: Home) -> None:
    terminal = shown_by(home, "filter", APP)
    assert terminal.output == b"abcd"
    assert terminal.session.recording().text() == "abcd"


@pytest.mark.parametrize("mode", ["static", "dynamic", "STATIC"])
def test_a7_static_shows_the_sessions_own(home: Home, mode: str) -> None:
    terminal = shown_by(home, mode, APP)
    assert titles(terminal.output) == ["~/work · sh"]
    assert terminal.output == "\x1b]2;~/work · sh\x07abcd".encode()
    assert terminal.session.recording().text() == "abcd", "titles are not recorded"


def test_a7_static_outside_home(home: Home) -> None:
    terminal = home.terminal("sh", "-c", ":", flags=("--title-mode", "static"), cwd="/tmp")
    terminal.wait()
    assert terminal.output == "\x1b]2;/tmp · sh\x07".encode()


@pytest.mark.parametrize("mode", ["none", "filter", "static"])
def test_a7_no_title_goes_into_a_pipe(home: Home, mode: str) -> None:
    process = home.start("sh", "-c", "read x; printf end", flags=("--title-mode", mode))
    session = process.session.wait()
    with session.client() as client:
        client.control(cmd="update-title", title="new").type(b"\n")
        assert b"\x1b" not in process.wait().out


KEPT = {
    "colours": b"\x1b]4;1;rgb:00/00/00\x07",
    "a link": b"\x1b]8;;http://x/\x1b\\link\x1b]8;;\x1b\\",
    "the clipboard": b"\x1b]52;c;aGk=\x07",
    "property": b"\x1b]3;x=y\x07",
    "foreground": b"\x1b]10;?\x07",
    "twenty": b"\x1b]20;x\x07",
    "a number without an end": b"\x1b]0\x07",
    "CSI and DCS": b"\x1b[2J\x1bP0;t\x1b\\",
    "UTF-8 with 0x9d in it": "❝“”\u041d".encode(),
}


@pytest.mark.parametrize("data", KEPT.values(), ids=KEPT.keys())
def test_a7_filter_leaves_everything_else(home: Home, data: bytes) -> None:
    octal = "".join(f"\\{byte:03o}" for byte in b"<" + data + b">")
    terminal = shown_by(home, "filter", f"stty raw; printf '{octal}'")
    assert terminal.output == b"<" + data + b">"
    assert terminal.session.recording().text() == terminal.output.decode()


REMOVED = {
    "two in a row": (b"<\x1b]0;a\x07\x1b]2;b\x07>", b"<>"),
    "ended by ST": (b"<\x1b]2;a\x1b\\>", b"<>"),
    "empty": (b"<\x1b]0;\x07>", b"<>"),
    "behind a lone ESC": (b"<\x1b\x1b]0;a\x07>", b"<\x1b\x1b\\>"),
    "with UTF-8": ("<\x1b]2;títle €\x07>".encode(), b"<>"),
}


@pytest.mark.parametrize(("data", "left"), REMOVED.values(), ids=REMOVED.keys())
def test_a7_filter_removes(home: Home, data: bytes, left: bytes) -> None:
    # One byte at a time, so that the filter meets every split.
    parts = "; ".join(f"printf '\\{byte:03o}'; sleep 0.002" for byte in data)
    terminal = shown_by(home, "filter", f"stty raw; {parts}")
    assert terminal.output == left
    assert terminal.session.recording().text() == left.decode()


@pytest.mark.parametrize(
    "ender",
    [rb"\030", rb"\032", rb"\033[m", rb"\033]4;", b"x" * 5000],
    ids=["CAN", "SUB", "ESC [", "ESC ]", "cap"],
)
def test_a7_a_title_without_an_end_swallows_nothing_for_ever(home: Home, ender: bytes) -> None:
    script = f"stty raw; printf 'before\\033]0;never ended{ender.decode()}'; printf 'after'"
    terminal = shown_by(home, "filter", script)
    assert terminal.output.startswith(b"before")
    assert terminal.output.endswith(b"after")


def test_a7_a_prefix_at_the_very_end_is_shown(home: Home) -> None:
    terminal = shown_by(home, "filter", r"stty raw; printf 'end\033]'")
    assert terminal.output == b"end\x1b]"
    assert terminal.session.recording().text() == "end\x1b]"


# ---- renames ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["none", "filter", "static"])
def test_a7_a_rename_from_outside_is_shown(home: Home, mode: str) -> None:
    terminal = home.terminal("cat", flags=("--title-mode", mode))
    session = terminal.session.wait()
    session.rename("my build")
    terminal.expect(b"\x1b]2;my build\x07", timeout=3)
    terminal.send(b"\x04")
    terminal.wait()
    assert session.info["name"] == "my build"
    assert "my build" not in session.recording().text()


@pytest.mark.parametrize("mode", ["none", "filter", "static"])
def test_a7_a_title_through_the_socket_is_shown_at_once(home: Home, mode: str) -> None:
    terminal = home.terminal("cat", flags=("--title-mode", mode))
    session = terminal.session.wait()
    with session.client() as client:
        client.control(cmd="update-title", title="now")
        terminal.expect(b"\x1b]2;now\x07", timeout=1)
    eventually(lambda: session.info["name"] == "now")
    terminal.signal(signal.SIGTERM)
    terminal.wait()


def test_a7_a_hostile_name_never_reaches_the_terminal(home: Home) -> None:
    """The server stores names as they come; Node's forwarder shows them raw."""
    terminal = home.terminal("cat")
    terminal.session.wait().rename("ok\x07\x1b]52;c;ZXZpbA==\x07\x9b31m\u009d end")
    terminal.expect(b"\x1b]2;ok", timeout=3)
    time.sleep(0.1)
    assert titles(terminal.output) == ["ok]52;c;ZXZpbA==31m end"]
    assert TITLE.sub(b"", terminal.output) == b""


def test_a7_titles_wait_until_a_sequence_is_over(home: Home) -> None:
    script = r"stty raw; printf 'A\033[3'; sleep 1; printf '1mB'; sleep 30"
    terminal = home.terminal("sh", "-c", script)
    terminal.expect(b"A\x1b[3")
    with terminal.session.wait().client() as client:
        client.control(cmd="update-title", title="T")
        terminal.expect(b"\x1b]2;T\x07")
    assert terminal.output in (b"A\x1b[31m\x1b]2;T\x07B", b"A\x1b[31mB\x1b]2;T\x07")
