"""`vt` and what VibeTunnel publishes: its Node forwarder as the fallback, its server, its vt."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from vt.harness import Home, eventually
from vt.server import Server, real_node

PACKAGE = Path(__file__).parent / "vibetunnel/node_modules/vibetunnel"
CLI = PACKAGE / "dist/vibetunnel-cli"

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def home(need: Callable[[str], str]) -> Iterator[Home]:
    """A home whose `vibetunnel` on PATH is the link that npm makes for an installed package."""
    need(str(CLI))
    home = Home([need("vt")])
    programs = home.path / "bin"
    programs.mkdir()
    (programs / "vibetunnel").symlink_to(PACKAGE / "bin/vibetunnel")
    home.env["PATH"] = f"{programs}:{Path(real_node(need('node'))).parent}:{home.env['PATH']}"
    yield home
    home.close()


def broken(home: Home) -> dict[str, str]:
    path = home.path / "broken-fwd"
    path.write_bytes(b"\x7fELF of another machine")
    path.chmod(0o755)
    return {"VIBETUNNEL_FWD_BIN": str(path)}


def test_the_fallback_runs_the_command_once_and_records_it(home: Home) -> None:
    text = 'echo "$1" >>"$HOME/ran"; echo shown; sleep 0.5; exit 7'
    done = home.run("sh", "-c", text, "sh", "it's $(a) *", env=broken(home), timeout=60)
    assert done.code == 7
    assert b"shown" in done.out
    assert (home.path / "ran").read_text() == "it's $(a) *\n"
    assert f"{home.path}/broken-fwd cannot start: ".encode() in done.err
    assert f"using Node's {home.path}/bin/vibetunnel".encode() in done.err
    assert home.last.info["status"] == "exited"
    # Its recording may lack the end, but it is one.
    assert "shown" in (home.last.path / "stdout").read_text()


def test_every_option_that_both_forwarders_have(home: Home) -> None:
    log = home.path / "a log"
    flags = ("-vvv", "--title-mode", "static", "--log-file", str(log), "-S")
    env = {"VIBETUNNEL_USE_ZIG_FWD": "0"}
    done = home.run("sh", "-c", "sleep 0.5; exit 5", flags=flags, env=env, timeout=60)
    assert done.code == 5
    assert home.last.info["exitCode"] == 5
    assert log.exists()


@pytest.mark.parametrize("env", [{"VIBETUNNEL_USE_ZIG_FWD": "0"}, None], ids=["off", "broken"])
def test_an_alias_through_the_fallback(home: Home, need, env: dict[str, str] | None) -> None:
    (home.path / ".bashrc").write_text("alias gs='sh -c \"echo alias \\$0; sleep 0.5; exit 3\"'\n")
    chosen = {"SHELL": need("bash"), **(broken(home) if env is None else env)}
    terminal = home.terminal("gs", "a b", env=chosen)
    terminal.expect(b"alias a b", 30)
    assert terminal.wait(30) == 3


def test_a_title_through_the_fallback(home: Home) -> None:
    env = {"VIBETUNNEL_USE_ZIG_FWD": "0"}
    text = f'"{home.command[0]}" title "from node"; sleep 60'
    process = home.start("sh", "-c", text, env=env)
    eventually(lambda: process.session.status() == "running", 30)
    eventually(lambda: process.session.info["name"] == "from node", 30)


@pytest.fixture
def server(home: Home, need: Callable[[str], str]) -> Iterator[Server]:
    server = Server(need("node"), CLI, home)
    server.start()
    yield server
    server.stop()


def test_title_changes_what_the_server_lists_and_the_terminal_shows(
    home: Home, server: Server, need
) -> None:
    (home.path / ".zshrc").write_text("alias shell=sh\n")
    terminal = home.terminal("shell", env={"SHELL": need("zsh"), "PS1": "$ "})
    name = terminal.session.id
    server.wait_listed(name)
    server.type(name, "vt title nightly build €\n")
    terminal.expect("\x1b]2;nightly build €\x07".encode())
    eventually(lambda: (server.listed(name) or {})["name"] == "nightly build €")
    server.type(name, "vt ls\n")
    terminal.expect(b"already inside session")
    server.type(name, "exit 4\n")
    assert terminal.wait() == 4
    assert server.wait_listed(name, "exited")["name"] == "nightly build €"


def test_status_asks_the_real_server(home: Home, server: Server) -> None:
    done = home.cli("status", env={"VIBETUNNEL_CONTROL_DIR": str(home.control)})
    assert done.code == 0, done
    assert b"Running: Yes" in done.out


def test_what_the_demo_records_is_where_it_says(home: Home, server: Server) -> None:
    def python(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, *argv], env=home.env, cwd=home.work, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = python("-c", "from pyplue import demo; print(demo.session())")
    recording = home.session("pyplue-demo").recording()
    assert f"asciinema play {home.control}/pyplue-demo/stdout" in said
    assert recording.exit == (7, "pyplue-demo")
    assert "python -m pyplue.vt tail pyplue-demo" in said
    assert "typed by Python on" in python("-m", "pyplue.vt", "tail", "pyplue-demo")
    assert server.wait_listed("pyplue-demo", "exited")["exitCode"] == 7
    assert "http://127.0.0.1:4020" in said


def test_status_without_a_server(home: Home) -> None:
    done = home.cli("status")
    assert b"Running: No" in done.out


def test_version_of_the_package(home: Home) -> None:
    done = home.cli("version", env={"VIBETUNNEL_USE_ZIG_FWD": "0"})
    assert done.code == 0
    assert b"1.0.0-beta.15.1" in done.out


def test_vibetunnels_own_vt_and_ours_run_a_program_alike(home: Home, need) -> None:
    """Their output and exit code; what each says beside that is its own."""
    theirs = home.cli("sh", "-c", "echo the same; sleep 0.5; exit 6")
    shutil.copy(PACKAGE / "bin/vt", home.path / "bin/their-vt")
    home.command = [need("bash"), str(home.path / "bin/their-vt")]
    env = {"VIBETUNNEL_BIN": os.fspath(CLI)}
    ours = home.cli("sh", "-c", "echo the same; sleep 0.5; exit 6", env=env)
    assert theirs.code == ours.code == 6
    assert b"the same" in theirs.out
    assert b"the same" in ours.out
