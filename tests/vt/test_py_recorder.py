"""`pyplue.vt.record`, and the pytest plugin that keeps the recordings of failed tests."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pyplue import vt
from vt.harness import Home, Recording, eventually
from vt.test_py_session import descriptors


class Cast(Recording):
    """A recording without VibeTunnel's exit line, as other players expect it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, finished=False)
        assert self.exit is None


def test_a_block_is_recorded_with_all_that_its_children_write(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gc.collect()
    before, threads, streams = descriptors(), threading.active_count(), (sys.stdout, sys.stderr)
    path = tmp_path / "demo.cast"
    with vt.record(path, cols=90, rows=20, title="a dëmo") as recording:
        print("from print: é", flush=True)
        recording.marker("half way")
        print("on stderr", file=sys.stderr)
        os.write(1, b"from write\n")
        subprocess.run(["sh", "-c", "test -t 1 && stty size <&1"], check=True)
        assert sys.stdout.isatty()
        assert os.get_terminal_size(1) == (90, 20)
        print("no newline", end="")
    text = "from print: é\r\non stderr\r\nfrom write\r\n20 90\r\nno newline"
    cast = Cast(path)
    assert cast.text() == text
    assert cast.of_kind("m") == ["half way"]
    assert (cast.header["width"], cast.header["height"]) == (90, 20)
    assert cast.header["title"] == "a dëmo"
    assert path.stat().st_mode & 0o77 == 0
    assert capfd.readouterr().out == text.replace("\r\n", "\n")
    print("afterwards")
    assert "afterwards" in capfd.readouterr().out
    assert (sys.stdout, sys.stderr) == streams
    assert descriptors() == before
    assert threading.active_count() == threads


def test_a_block_that_fails_is_recorded_up_to_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "demo.cast"

    def fails() -> None:
        with vt.record(path, echo=False):
            print("before")
            print(1 / 0)

    with pytest.raises(ZeroDivisionError):
        fails()
    assert Cast(path).text() == "before\r\n"
    assert capfd.readouterr() == ("", "")
    with vt.record(path):
        pass
    assert Cast(path).events == []


def test_blocks_within_blocks_and_much_output(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lines = "".join(f"line {n} with some text\n" for n in range(100_000))
    with vt.record(tmp_path / "outer.cast"):
        print("outer")
        with vt.record(tmp_path / "inner.cast"):
            sys.stdout.write(lines)
        print("outer again")
    wanted = lines.replace("\n", "\r\n")
    assert Cast(tmp_path / "inner.cast").text() == wanted
    outer = Cast(tmp_path / "outer.cast").text()
    assert outer.replace("\r", "") == f"outer\n{lines}outer again\n"
    assert capfd.readouterr().out.replace("\r", "") == f"outer\n{lines}outer again\n"


def test_a_child_that_stays_does_not_hold_the_block_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with vt.record(tmp_path / "demo.cast"):
        child = subprocess.Popen(["sh", "-c", "echo up; exec sleep 60"])
        eventually(lambda: (tmp_path / "demo.cast").read_text().count("up"))
    child.kill()
    child.wait()
    assert Cast(tmp_path / "demo.cast").text() == "up\r\n"


SELDOM = "import os, time\nwhile os.write(1, b'more\\n'): time.sleep(0.002)"


@pytest.mark.parametrize("argv", [["yes"], [sys.executable, "-c", SELDOM]], ids=["yes", "seldom"])
def test_a_child_that_goes_on_writing_does_not_hold_the_block_up(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    path = tmp_path / "demo.cast"
    with vt.record(path, echo=False):
        child = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
        killer = threading.Timer(5, child.kill)
        killer.start()
        eventually(lambda: path.stat().st_size > 300)
        print("the last line")
        begin = time.monotonic()
    assert time.monotonic() - begin < 3
    assert "the last line\r\n" in Cast(path).text()
    killer.cancel()
    child.kill()
    child.wait()


def test_what_cannot_be_recorded_is_said_and_changes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = descriptors()
    with pytest.raises(vt.CastError, match="cannot be recorded to"):
        vt.record(tmp_path / "no" / "where").__enter__()
    for size in [(0, 1), (1, 0), (65536, 1), (1, -1)]:
        with pytest.raises(ValueError, match="1 to 65535"):
            vt.record(tmp_path / "x", cols=size[0], rows=size[1])
    with pytest.raises(TypeError, match="cwd is for a recording of a program"):
        vt.record(tmp_path / "x", cwd="/")  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="NUL"):
        vt.record(tmp_path / "x", title="a\0b").__enter__()
    assert descriptors() == before
    assert os.listdir(tmp_path) == []
    if os.path.exists("/dev/full"):
        with pytest.raises(vt.CastError), vt.record("/dev/full"):
            print("x")


def test_a_program_is_recorded_while_it_is_driven(tmp_path: Path) -> None:
    path = tmp_path / "demo.cast"
    with vt.record(path, ["python3", "-q"], cols=60, rows=10, title="a demo") as session:
        session.send("6 * 7", key="enter")
        session.wait("42", timeout=10)
        assert vt.sessions(control_dir=session.path.parent)
        assert not path.exists()
    cast = Recording(path)
    assert "42\r\n" in cast.text()
    assert cast.text("i") == "6 * 7\r"
    assert cast.exit == (129, session.id), "it was hung up at the end"
    assert cast.header["title"] == "a demo"
    assert not session.path.parent.exists()


def test_a_device_that_is_recorded_to_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.cast"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with vt.record(pipe, ["echo", "hello"]) as session:
        session.wait()
    assert b"hello" in os.read(reader, 65536)
    os.close(reader)
    assert pipe.is_fifo()


def test_a_program_is_recorded_when_the_block_fails(tmp_path: Path) -> None:
    path = tmp_path / "demo.cast"

    def fails() -> None:
        with vt.record(path, ["sh", "-c", "echo x; exit 3"], session_id="x") as session:
            session.wait(timeout=5)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert Recording(path).exit == (3, "x")


def test_a_program_that_does_not_want_to_end_is_killed(tmp_path: Path, home: Home) -> None:
    path = tmp_path / "demo.cast"
    command = ["sh", "-c", "trap '' HUP TERM; echo up; while :; do sleep 0.1; done"]
    with vt.record(path, command, control_dir=home.control) as session:
        session.wait("up", timeout=5)
    assert Recording(path).exit == (137, session.id)
    assert session.path.exists(), "in a control directory that was chosen, the session stays"


TESTS = """
import re

def test_that_passes(vt_spawn):
    session = vt_spawn(["sh", "-c", "echo fine"])
    assert session.wait(timeout=5) == 0

def test_that_fails(vt_spawn):
    session = vt_spawn(["sh", "-c", "echo shown; sleep 60"], cols=40)
    session.wait("shown", timeout=5)
    (open("control", "w")).write(str(session.path.parent))
    session.wait("not shown", timeout=0.2)

def test_without():
    assert False
"""


def test_the_pytest_plugin_keeps_what_a_failed_test_recorded(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    options: dict[str, Any] = {
        "cwd": tmp_path, "capture_output": True, "text": True,
        "env": {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    }  # fmt: skip
    plain = subprocess.run(command, **options)
    assert "fixture 'vt_spawn' not found" in plain.stdout, "it is opt-in"
    for flags, folder in [((), "vt-casts"), (("--vt-casts", "kept/here"), "kept/here")]:
        done = subprocess.run([*command, "-p", "pyplue.vt.pytest_plugin", *flags], **options)
        assert "2 failed, 1 passed" in done.stdout, done.stdout
        kept = list((tmp_path / folder).iterdir())
        assert len(kept) == 1
        assert kept[0].name.startswith("test_it.py_test_that_fails-fwd_")
        assert '"shown\\r\\n"' in kept[0].read_text()
        assert f"asciinema play {kept[0]}" in done.stdout
        assert "- terminal session fwd_" in done.stdout
        assert not Path((tmp_path / "control").read_text()).exists(), "nothing else is left"
