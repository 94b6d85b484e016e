"""`python -m pyplue.vt`: what each command prints, in which file it writes, and how it fails."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pyplue import vt
from pyplue.vt.__main__ import main
from vt.harness import Home, Terminal, eventually
from vt.test_py_recording import HEADER, made, output

EVIL = "na\x1b]2;me\x07\x9b31m\r\n\u202ex"


@pytest.fixture
def run(home: Home) -> Callable[..., tuple[int, str, str]]:
    """The command's exit status, standard output and standard error."""

    def run_it(*words: str, text: str = "", **env: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pyplue.vt", *words],
            env={**home.env, "TZ": "UTC", **env},
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run_it


Run = Callable[..., tuple[int, str, str]]


def test_help_names_every_command_and_example(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    commands = ["list", "tail", "send", "attach", "kill", "rename", "prune", "export"]
    for word in [*commands, "exit status", "VIBETUNNEL_CONTROL_DIR", "examples:"]:
        assert word in out
    for command in commands:
        code, out, err = run(command, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: python -m pyplue.vt {command}")


@pytest.mark.parametrize(
    "words",
    [[], ["fly"], ["tail"], ["send"], ["list", "x"], ["tail", "x", "-n", "many"],
     ["export", "x", "-f", "gif"], ["kill", "x", "-w", "soon"], ["--no-such"]],
    ids=str,
)  # fmt: skip
def test_wrong_usage_is_2(run: Run, words: list[str]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("usage:")


@pytest.mark.parametrize("command", ["tail", "send", "attach", "kill", "rename", "prune", "export"])
def test_a_session_that_is_none_is_1_and_one_line(run: Run, home: Home, command: str) -> None:
    last = ["new"] if command == "rename" else []
    for name, cause in [
        ("nobody", "there is no session nobody in"),
        ("a\x1b]2;evil\x07b", "is no session id"),
    ]:
        code, out, err = run(command, name, *last)
        assert (code, out) == (1, "")
        assert cause in err
        assert err.startswith("pyplue.vt: ")
        assert err.count("\n") == 1
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", err)


def test_list(run: Run, home: Home) -> None:
    code, out, err = run("list")
    assert (code, out) == (0, "")
    assert err == f"no sessions in {home.control}\n"
    assert run("list", "--json") == (0, "[]\n", "")
    made(home, HEADER, session_id="ended", exitCode=3, startedAt="2026-01-02T03:04:05.678Z")
    made(home, HEADER, session_id="evil", name=EVIL, command=["a", EVIL], startedAt="2026-01-03T")
    made(home, HEADER, session_id="lost", status="running", pid=2**22 + 1, exitCode=None)
    (home.control / "broken").mkdir()
    (home.control / "broken" / "session.json").write_text("{")
    running = vt.spawn(["sleep", "60"], control_dir=home.control, session_id="up", name="höhe ✓")
    code, out, err = run("list")
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert list(rows) == ["ID", "evil", "lost", "ended", "up"] or set(rows) >= {"ended", "up"}
    assert "broken" not in rows
    assert re.match(r"ended +exited 3 +2026-01-02 03:04 +ended +x$", rows["ended"])
    assert "exited ?" in rows["lost"]
    assert re.search(r"up +running +\d{4}-\d\d-\d\d \d\d:\d\d +höhe ✓ +sleep 60$", rows["up"])
    assert "na]2;me31mx" in rows["evil"]
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
    code, out, err = run("list", "--json")
    assert (code, err) == (0, "")
    assert out.isascii()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", out)
    entries = {entry["id"]: entry for entry in json.loads(out)}
    assert set(entries) == {"ended", "evil", "lost", "up"}
    assert entries["evil"]["name"] == EVIL
    assert entries["up"] == {
        **running.info.fields, "status": "running", "castPath": str(running.cast_path)
    }  # fmt: skip
    assert entries["lost"]["status"] == "exited"
    other = run("--control-dir", str(home.path / "other"), "list", "--json")
    assert other == (0, "[]\n", "")
    assert run("list", "--json", VIBETUNNEL_CONTROL_DIR=str(home.path / "other"))[1] == "[]\n"
    running.kill("KILL")
    running.wait(timeout=5)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_list_knows_no_impossible_time(run: Run, home: Home, zone: str) -> None:
    made(home, HEADER, session_id="first", startedAt="0001-01-01T00:00:00Z")
    made(home, HEADER, session_id="last", startedAt="9999-12-31T23:59:59Z")
    status, out, err = run("list", TZ=zone)
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["ID", "first", "last"]


def test_sessions_that_go_while_they_are_listed(home: Home, capsys) -> None:
    ids = [f"s{number}" for number in range(20)]
    for session_id in ids:
        made(home, HEADER, session_id=session_id)
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            for session_id in ids:
                path = home.control / session_id / "session.json"
                path.rename(path.with_name("gone"))
                path.with_name("gone").rename(path)

    thread = threading.Thread(target=come_and_go, daemon=True)
    thread.start()
    try:
        for words in (["list"], ["list", "--json"], ["prune", "--dry-run"]) * 20:
            assert main(["--control-dir", str(home.control), *words]) == 0, capsys.readouterr()
    finally:
        stop.set()
        thread.join()


def test_a_session_is_named_by_the_beginning_of_its_id(run: Run, home: Home) -> None:
    for name in ("alpha", "alpine", "beta", "bet"):
        made(home, HEADER, *output(f"i am {name}\r\n"), session_id=name)
    assert run("tail", "b")[0] == 1
    assert run("tail", "bet")[1] == "i am bet\n"
    assert run("tail", "alph")[1] == "i am alpha\n"
    code, _, err = run("tail", "alp")
    assert code == 1
    assert "the beginning of 2 ids" in err
    assert run("tail", "lpha")[0] == 1


def test_tail(run: Run, home: Home) -> None:
    lines = [f"\x1b[3{n % 8}mline {n}\x1b[0m\x07\r\n" for n in range(30)]
    made(home, HEADER, *output(*lines, "\x1b]2;evil\x07unfinish", "ed"), ["exit", 0, "made"])
    assert run("tail", "made")[1].splitlines() == [
        *(f"line {n}" for n in range(21, 30)),
        "unfinished",
    ]
    assert run("tail", "made", "-n", "2") == (0, "line 29\nunfinished\n", "")
    assert run("tail", "made", "-n", "0", "-f") == (0, "", "")
    assert len(run("tail", "made", "-n", "500")[1].splitlines()) == 31
    assert run("tail", "made", "-n", "-1")[0] == 1
    long = made(
        home, HEADER, *output(*(f"number {n}\r\n" for n in range(300_000))), session_id="long"
    )
    assert long.cast_path.stat().st_size > 6 << 20
    assert run("tail", "long", "-n", "1")[1] == "number 299999\n"
    long.cast_path.unlink()
    assert run("tail", "long")[0] == 1


def test_tail_follows_to_the_end(home: Home) -> None:
    session = vt.spawn(
        ["sh", "-c", "echo one; read x; echo two; read x; printf three"], control_dir=home.control
    )
    session.wait("one", timeout=5)
    command = [sys.executable, "-m", "pyplue.vt", "tail", "-f", session.id]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=home.env) as tail:
        assert tail.stdout is not None
        assert tail.stdout.readline() == "one\n"
        session.send(key="enter")
        assert [tail.stdout.readline() for _ in range(2)] == ["\n", "two\n"]
        session.send(key="enter")
        assert tail.communicate(timeout=10)[0] == "\nthree\n"
    assert tail.returncode == 0


def test_a_session_is_not_watched_from_within(run: Run, home: Home) -> None:
    made(home, HEADER, *output("x"))
    code, out, err = run("tail", "-f", "made", VIBETUNNEL_SESSION_ID="made")
    assert (code, out) == (1, "")
    assert "this terminal is session made: look at it from another one" in err
    assert run("tail", "made", VIBETUNNEL_SESSION_ID="made") == (0, "x\n", "")


def test_tail_into_a_reader_that_has_seen_enough(home: Home) -> None:
    made(home, HEADER, *output(*(f"number {n}\r\n" for n in range(100_000))))
    script = f"'{sys.executable}' -m pyplue.vt tail made -n 100000 | head -n 1"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env=home.env)
    assert (done.stdout, done.stderr) == ("number 0\n", "")


def test_send(run: Run, home: Home) -> None:
    session = vt.spawn(
        ["sh", "-c", "stty raw -echo; echo up; head -c 23 | od -An -c"], control_dir=home.control
    )
    session.wait("up", timeout=5)
    assert run("send", session.id, "héllo --x", "-k", "enter", "--key", "ctrl+c") == (0, "", "")
    assert run("send", session.id, "-", text="from stdin\n") == (0, "", "")
    shown = session.wait("\\n", timeout=5)
    assert re.sub(r"\s+", " ", shown) == "up h 303 251 l l o - - x \\r 003 f r o m s t d i n \\n"
    session.wait(timeout=5)
    code, out, err = eventually(lambda: (got := run("send", session.id, "x"))[0] and got)
    assert (code, out) == (1, "")
    assert (
        err == f"pyplue.vt: session {session.id} has ended (with exit code 0): start another one\n"
    )
    assert "is no key" in run("send", session.id, "-k", "any")[2]


def test_kill_and_rename(run: Run, home: Home) -> None:
    session = vt.spawn(["sleep", "60"], control_dir=home.control, session_id="sleeper")
    assert run("rename", "sleep", EVIL) == (0, "", "")
    assert session.info.name == "na]2;me31m\u202ex"
    code, _, err = run("kill", "sleeper", "-s", "WINCH", "-w", "0.2")
    assert code == 1
    assert err == "pyplue.vt: waited in vain for the end of session sleeper\n"
    assert run("kill", "sleeper", "--wait", "5") == (0, "", "")
    assert session.exit_code == 143
    again = vt.spawn(["sleep", "60"], control_dir=home.control)
    assert run("kill", again.id, "-s", "9", "-w", "5")[0] == 0
    assert again.exit_code == 137


def test_prune_removes_what_has_ended_and_nothing_else(run: Run, home: Home) -> None:
    up = vt.spawn(["sleep", "60"], control_dir=home.control, session_id="up")
    vt.spawn(["true"], control_dir=home.control, session_id="one").wait(timeout=5)
    made(home, HEADER, session_id="two")
    (home.control / "two" / "activity.json").write_text("{}")
    (home.control / "two" / ".session.json.77.1.tmp").write_text("{}")
    made(home, HEADER, session_id="lost", status="running", pid=2**22 + 1)
    made(home, HEADER, session_id="kept")
    (home.control / "kept" / "notes.txt").write_text("mine")
    made(home, HEADER, session_id="nested")
    (home.control / "nested" / "stdin").mkdir()
    target = made(home, HEADER, session_id="target")
    (home.control / "link").symlink_to(target.path)
    (home.control / "api.sock").write_text("")
    (home.control / "uploads").mkdir()
    shutil.move(target.path, home.path / "elsewhere")
    before = sorted(os.listdir(home.control))

    code, out, err = run("prune", "--dry-run")
    assert code == 0
    assert {"would remove one", "would remove two", "would remove lost"} <= set(out.splitlines())
    assert sorted(os.listdir(home.control)) == before

    code, out, err = run("prune")
    assert code == 1
    assert set(out.splitlines()) == {"removed one", "removed two", "removed lost"}
    assert "something that no session leaves there, 'notes.txt': remove it by hand" in err
    assert "'stdin'" in err
    assert set(os.listdir(home.control / "nested")) == {"session.json", "stdout", "stdin"}
    left = {"up", "kept", "nested", "link", "api.sock", "uploads"}
    assert set(os.listdir(home.control)) == left
    assert set(os.listdir(home.control / "kept")) == {"session.json", "stdout", "notes.txt"}
    code, out, err = run("prune", "up")
    assert (code, out) == (1, "")
    assert "session up is running: kill it first" in err
    assert up.info.running
    assert (home.path / "elsewhere" / "stdout").exists()
    up.kill("KILL")
    up.wait(timeout=5)
    assert run("prune", "up") == (0, "removed up\n", "")


def test_prune_leaves_a_session_that_is_being_started(run: Run, home: Home) -> None:
    session = made(home, HEADER)
    directory = os.open(session.path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)  # as a forwarder that takes the id over
    code, _, err = run("prune")
    os.close(directory)
    assert code == 1
    assert "is being started" in err
    assert session.cast_path.exists()


def test_prune_waits_for_the_last_moment_of_a_session_that_has_ended(run: Run, home: Home) -> None:
    session = made(home, HEADER)
    directory = os.open(session.path, os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)  # as a forwarder after "exited", before its own end
    end = threading.Timer(0.1, os.close, [directory])
    end.start()
    assert run("prune") == (0, f"removed {session.id}\n", "")
    end.join()


# ---- export -------------------------------------------------------------------------------------

SHOW = [
    {**HEADER, "title": EVIL, "command": "x", "env": {"TERM": "xterm"}},
    [0.5, "o", "\x1b[1;31mréd\x1b[0m \x1b[38;2;1;2;3;44mtrue\x1b[0m\r\n"],
    [1.25, "i", "x"],
    [1.250001, "r", "50x8"],
    [1.2, "o", "10%\r20%\r\n"],
    [3, "m", "here"],
    [4.0, "o", "\x1b[H\x1b[2Jlast <&> screen"],
    ["exit", 3, "made"],
]  # fmt: skip


def test_export_as_text(run: Run, home: Home) -> None:
    made(home, *SHOW)
    text = "réd true\n20%\nlast <&> screen\n"
    assert run("export", "made") == (0, text, "")
    for name in ("out.txt", "out.log", "OUT.TXT"):
        path = home.path / name
        assert run("export", "made", "-o", str(path)) == (0, "", "")
        assert path.read_text() == text
    umask = os.umask(0o77)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    path = home.path / "out"
    assert run("export", "made", "-o", str(path), "--format", "text")[0] == 0
    assert path.read_text() == text
    code, _, err = run("export", "made", "-o", str(home.path / "out.mp4"))
    assert (code, "which format is it?" in err) == (1, True)
    assert run("export", "made", "-o", str(home.path / "no" / "where.txt"))[0] == 1
    assert run("export", "made", "--at", "1")[0] == 1


def test_export_as_asciicast_3(run: Run, home: Home) -> None:
    made(home, *SHOW)
    path = home.path / "out.cast"
    assert run("export", "made", "-o", str(path)) == (0, "", "")
    header, *events = [json.loads(line) for line in path.read_text().splitlines()]
    assert header == {
        "version": 3,
        "term": {"cols": 40, "rows": 5, "type": "xterm-256color"},
        "timestamp": 1, "command": "x", "title": EVIL, "env": {"TERM": "xterm"},
    }  # fmt: skip
    assert [event[1:] for event in events] == [*(event[1:] for event in SHOW[1:-1]), ["x", "3"]]
    assert [event[0] for event in events] == [0.5, 0.75, 0.000001, 0, 1.749999, 1, 0]


def test_export_as_svg(run: Run, home: Home) -> None:
    made(home, *SHOW, name="<evil>")
    path = home.path / "out.svg"
    assert run("export", "made", "-o", str(path)) == (0, "", "")
    picture = path.read_text()
    texts = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")
    assert "last <&> screen" in texts
    assert "<evil>" in texts
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "").replace(
        "https://www.textualize.io", ""
    ), "nothing is fetched by who looks at it"
    code, picture, _ = run("export", "made", "-f", "svg", "--at", "1.3")
    assert code == 0
    texts = "".join(ElementTree.fromstring(picture).itertext()).replace("\xa0", " ")
    assert "réd" in texts
    assert "last" not in texts
    assert "#010203" in picture


def test_export_of_a_file(run: Run, home: Home) -> None:
    session = made(home, *SHOW)
    path = home.path / "a.cast"
    shutil.copy(session.cast_path, path)
    assert run("export", str(path))[1].endswith("last <&> screen\n")
    code, _, err = run("export", str(home.path / "missing.cast"))
    assert (code, "is missing" in err) == (1, True)
    path.write_text("junk\n")
    code, _, err = run("export", str(path))
    assert (code, "is no asciicast" in err) == (1, True)
    path.write_text('{"version":3,"term":{"cols":80,"rows":24}}\n')
    assert "version 3" in run("export", str(path), "-f", "v3")[2]


def test_export_leaves_devices_pipes_and_links_what_they_are(run: Run, home: Home) -> None:
    made(home, HEADER, *output("one\r\n"))
    pipe, link, target = (home.path / name for name in ("pipe", "link.txt", "target"))
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert run("export", "made", "-f", "text", "-o", str(pipe)) == (0, "", "")
    assert os.read(reader, 100) == b"one\n"
    os.close(reader)
    assert pipe.is_fifo()
    target.write_text("old")
    link.symlink_to(target)
    assert run("export", "made", "-o", str(link)) == (0, "", "")
    assert link.is_symlink()
    assert target.read_text() == "one\n"


def test_export_of_a_recording_that_was_cut(run: Run, home: Home) -> None:
    session = made(home, *SHOW[:2])
    with session.cast_path.open("a") as cast:
        cast.write('[9,"o","half a li')
    code, out, err = run("export", "made")
    assert (code, out) == (0, "réd true\n")
    assert "ends in the middle of a line: its last 17 bytes are left out" in err
    with session.cast_path.open("a") as cast:
        cast.write("\n" + json.dumps([10, "o", "more"]) + "\n")
    output_path = home.path / "old.txt"
    output_path.write_text("precious")
    code, out, err = run("export", "made", "-o", str(output_path))
    assert code == 1
    assert "is no asciicast event" in err
    assert output_path.read_text() == "precious", "a failed export leaves the old file"
    assert [p.name for p in home.path.iterdir() if p.name.startswith(".old")] == []


def test_a_long_export_shows_progress_on_a_terminal(home: Home) -> None:
    lines: list[Any] = [[n, "o", f"\x1b[{n % 20};{n % 40}Hword{n}"] for n in range(50_000)]
    made(home, HEADER, *lines)
    argv: list[bytes | str] = [sys.executable, "-m", "pyplue.vt", "export", "made"]
    terminal = Terminal([*argv, "-o", str(home.path / "x.svg")], env=home.env)
    try:
        terminal.expect(b"%", timeout=20)
        assert terminal.wait() == 0
        assert re.search(rb"\rexporting  ?\d+% ", terminal.output)
        assert terminal.output.endswith(b"\r\x1b[K")
    finally:
        terminal.close()
    start = time.monotonic()
    quiet = subprocess.run([*argv, "-f", "svg"], env=home.env, capture_output=True, check=True)
    assert quiet.stderr == b""
    assert time.monotonic() - start < 60


def test_without_the_extras_it_says_what_to_install(home: Home, tmp_path: Path) -> None:
    made(home, *SHOW)
    for name in ("pyte", "rich"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name}')\n")
    for missing, words, extra in [
        ("pyte", ["export", "made", "-f", "svg"], "pip install 'pyplue[vt]'"),
        ("rich", ["export", "made", "-f", "svg"], "pip install 'pyplue[vt-svg]'"),
    ]:
        folder = tmp_path / missing
        folder.mkdir()
        shutil.copy(tmp_path / f"{missing}.py", folder)
        done = subprocess.run(
            [sys.executable, "-m", "pyplue.vt", *words],
            env={**home.env, "PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert extra in done.stderr
        for command in (["list"], ["tail", "made"], ["export", "made"]):
            subprocess.run(
                [sys.executable, "-m", "pyplue.vt", *command],
                env={**home.env, "PYTHONPATH": str(folder)},
                capture_output=True,
                check=True,
            )
