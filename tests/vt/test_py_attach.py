"""`python -m pyplue.vt attach`: the right screen at once, and the terminal as it was afterwards.

VT_BEHIND_MB  how much a session has written before somebody attaches to it (50)
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pyplue import vt
from vt.harness import Home, Terminal, alive, eventually

BEHIND_MB = int(os.environ.get("VT_BEHIND_MB", "50"))

# Paints its screen whenever its size changes, asks the terminal what programs ask, and shows what
# it is sent.
PAINTER = r"""
import os, signal, tty
QUERIES = "\033[c\033[>c\033[6n\033[?2026$p\033]11;?\007\033[>q\033P+q544e\033\\\033[18t\005"
def paint(word, *_):
    size = os.get_terminal_size()
    text = f"\033[?1049h\033[H\033[2J{word} {size.lines} {size.columns}\r\nsecond row{QUERIES}"
    os.write(1, text.encode())
tty.setraw(0)
signal.signal(signal.SIGWINCH, lambda *_: paint("again"))
paint("first")
while got := os.read(0, 100):
    os.write(1, b"\033[4;1Hgot:" + got.hex().encode())
"""


class Attached(Terminal):
    """The command on a terminal of its own, and what that terminal shows."""

    def __init__(
        self, session: vt.Session, *flags: str, size: tuple[int, int] = (80, 24), key: bytes = b""
    ) -> None:
        control = str(session.path.parent)
        argv = [sys.executable, "-m", "pyplue.vt", "--control-dir", control, "attach", session.id]
        self.key = key
        super().__init__([*argv, *flags], size=size)

    def screen(self) -> str:
        cols, rows = os.get_terminal_size(self.tty)
        screen = vt.Screen(cols, rows)
        screen.feed(self.output.decode("utf-8", "replace"))
        return screen.text()

    def shows(self, wanted: str, timeout: float = 10) -> str:
        eventually(lambda: wanted in self.screen(), timeout, f"{wanted!r} on the screen")
        return self.screen()

    def leave(self) -> None:
        self.send(b"\x1c")
        assert self.wait() == 0
        assert self.restored()


@pytest.fixture
def attach(request: pytest.FixtureRequest) -> Callable[..., Attached]:
    def attached(*arguments: str, **options: object) -> Attached:
        terminal = Attached(*arguments, **options)  # type: ignore[arg-type]
        request.addfinalizer(terminal.close)
        return terminal

    return attached


def shell(home: Home, session_id: str = "shell") -> vt.Session:
    session = vt.spawn(
        ["sh"], control_dir=home.control, session_id=session_id, env={**home.env, "PS1": "$ "}
    )
    session.wait("$", timeout=5)
    return session


def test_a_shell_is_shown_and_typed_into(home: Home, attach: Callable[..., Attached]) -> None:
    session = shell(home)
    session.send("echo be''fore\r")
    session.wait("before", timeout=5)
    view = attach(session, size=(100, 30))
    view.shows("before\n$")
    view.send("echo tÿ''ped €\r".encode())
    view.shows("tÿped €\n$")
    eventually(lambda: session.screen().rows == 30)
    session.send("stty size\r")
    view.shows("30 100")
    view.resize(90, 20)
    eventually(lambda: session.screen().rows == 20)
    view.send(b"stty size\r")
    view.shows("20 90")
    view.leave()
    assert b"[left session shell; python -m pyplue.vt attach shell comes back]" in view.output
    assert session.info.running
    again = attach(session)
    again.shows("20 90")
    again.send(b"exit 4\r")
    assert again.wait() == 0
    assert again.restored()
    assert b"[session shell ended with exit code 4]" in again.output


@pytest.mark.parametrize("cleared", [True, False])
def test_a_session_with_much_behind_it_shows_the_right_screen(
    home: Home, attach: Callable[..., Attached], cleared: bool
) -> None:
    size = BEHIND_MB * 1_000_000
    line = "a line of a build log with path/to/file.zig:12:34 and some more text"
    script = f"yes '{line}' | head -c {size}; exec \"$@\""
    program = [sys.executable, "-c", PAINTER] if cleared else ["sh"]
    session = vt.spawn(
        ["sh", "-c", script, "sh", *program],
        control_dir=home.control,
        session_id="long",
        env={**home.env, "PS1": "$ "},
    )
    session.wait("first" if cleared else "$", timeout=60)
    assert session.cast_path.stat().st_size > size
    start = time.monotonic()
    view = attach(session)
    shown = view.shows("again 24 80" if cleared else "$")
    print(f"shown after {time.monotonic() - start:.2f} s, with the start of Python")
    if cleared:
        assert shown == "again 24 80\nsecond row"
        assert shown == vt.Session.open("long", control_dir=home.control).text()
    else:
        assert shown.split("\n")[:-2] == [line] * 22
    view.leave()
    session.kill("KILL")
    session.wait(timeout=5)


def test_queries_are_not_asked_again(home: Home, attach: Callable[..., Attached]) -> None:
    session = vt.spawn([sys.executable, "-c", PAINTER], control_dir=home.control)
    session.wait("first", timeout=5)
    view = attach(session, "--read-only")
    view.shows("second row")
    for query in (b"\x1b[c", b"\x1b[6n", b"]11;?", b"$p", b">q", b"+q", b"18t", b"\x05"):
        assert query not in view.output
    view.send(b"unheard")
    view.leave()
    assert "got" not in session.text()
    assert session.text().startswith("first 24 80"), "who only watches changes no size"
    session.kill("KILL")
    session.wait(timeout=5)


def test_a_full_screen_program_is_shown_as_it_is(
    home: Home, attach: Callable[..., Attached], need: Callable[[str], str], tmp_path: Path
) -> None:
    text = tmp_path / "text"
    text.write_text("".join(f"{n} {'word ' * (n % 17)}é\n" for n in range(300)))
    session = vt.spawn(
        [need("vim"), "-u", "NONE", "-N", "-n", text], control_dir=home.control, env=home.env
    )
    session.wait("0 é", timeout=10)
    session.send("150Gzt")
    session.wait(re.compile(r"^160 ", re.MULTILINE), timeout=5)
    view = attach(session, size=(100, 30))
    view.shows("173 word word word é")  # further down than the smaller screen showed
    eventually(lambda: view.screen() == session.text())
    view.send(b"oinserted\x1b")
    view.shows("inserted")
    view.send(b":q!\r")
    assert view.wait() == 0
    assert view.restored()


# Reads nothing until its file is there, and says all the while that it lives; then it writes into
# the file what it got.
DEAF = r"""
import os, select, sys, time, tty
tty.setraw(0)
while not os.path.exists(sys.argv[1]):
    os.write(1, b"alive ")
    time.sleep(0.02)
heard = b""
while select.select([0], [], [], 0.5)[0]:
    heard += os.read(0, 65536)
with open(sys.argv[1], "wb") as file:
    file.write(heard)
"""


def test_a_paste_that_nobody_reads_freezes_nothing_and_is_not_mixed_up(
    home: Home, attach: Callable[..., Attached], tmp_path: Path
) -> None:
    file = tmp_path / "heard"
    terminal = home.terminal(sys.executable, "-c", DEAF, str(file), size=(77, 22))
    session = vt.Session.open(terminal.session.wait().id, control_dir=home.control)
    view = attach(session, size=(100, 30))
    view.shows("alive")
    eventually(lambda: session.screen().cols == 100)
    paste = threading.Thread(target=view.send, args=(b"x" * 2_000_000,), daemon=True)
    paste.start()
    paste.join(5)
    assert not paste.is_alive(), "the terminal is read"
    view.expect(b"alive", after=view.mark(), timeout=2)
    begin = time.monotonic()
    view.leave()
    assert time.monotonic() - begin < 4
    eventually(lambda: session.screen().cols == 77, 2)
    file.touch()
    assert session.wait(timeout=10) == 0
    assert set(file.read_bytes()) == {ord("x")}


LEAVINGS = (
    r"\033[?1049h\033[?1000h\033[?2004h\033[?25l\033[?1h\033=\033[>1u\033[>4;2m\033[4 q\033[3;5r"
)


@pytest.mark.parametrize("way", ["detach", "TERM", "HUP", "INT", "exit", "forwarder", "hang up"])
def test_the_terminal_is_as_it_was_on_every_way_out(
    home: Home, attach: Callable[..., Attached], way: str
) -> None:
    home.env["PS1"] = "$ "
    process = home.start("sh", "-c", f"printf '{LEAVINGS}up'; read x; exit 6")
    session = vt.Session.open(process.session.wait().id, control_dir=home.control)
    session.wait("up", timeout=5)
    view = attach(session)
    view.shows("up")
    eventually(lambda: not view.restored())
    code = 0
    if way == "detach":
        view.send(b"\x1c")
    elif way == "exit":
        session.send("\r")
    elif way == "forwarder":
        process.signal(signal.SIGKILL)
        process.wait()
    elif way == "hang up":
        view.hang_up()
        eventually(lambda: view.popen.poll() is not None, 5, "it ends with its terminal")
        return
    else:
        number = signal.Signals[f"SIG{way}"]
        view.signal(number)
        code = 128 + number
    assert view.wait() == code
    assert view.restored()
    back = view.output.decode()
    for sequence in (
        *("\x1b[?1049l", "\x1b[?1000l", "\x1b[?2004l", "\x1b[?25h", "\x1b[?1l", "\x1b>"),
        *("\x1b[<99u", "\x1b[>4;0m", "\x1b[0 q", "\x1b[r", "\x1b[0m"),
    ):
        assert sequence in back[back.rindex("up") :], ascii(sequence)


def test_the_terminal_is_as_it_was_when_signals_come_in_a_row(
    home: Home, attach: Callable[..., Attached]
) -> None:
    session = shell(home)
    for pause in (0, 0.0005, 0.001, 0.002, 0.004):
        view = attach(session)
        while view.restored():  # it is not raw yet
            time.sleep(0.001)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            view.signal(number)
            time.sleep(pause)
        view.popen.wait(10)
        assert view.restored()


@pytest.mark.parametrize(
    ("key", "typed"),
    [
        ("ctrl+\\", b"\x1c"),
        ("ctrl+\\", b"\x1b[92;5u"),
        ("ctrl+\\", b"\x1b[27;5;92~"),
        ("ctrl+]", b"\x1d"),
        ("ctrl+A", b"\x01"),
        ("ctrl+a", b"\x1b[97;5u"),
    ],
    ids=repr,
)
def test_the_detach_key(
    home: Home, attach: Callable[..., Attached], key: str, typed: bytes
) -> None:
    session = shell(home)
    view = attach(session, "--detach-key", key)
    view.shows("$")
    view.send(b"echo " + typed + b"unheard")
    assert view.wait() == 0
    assert session.wait(quiet=0.1, timeout=5).endswith("$ echo")


@pytest.mark.parametrize("key", ["a", "enter_", "arrow_up", "ctrl+", ""])
def test_a_detach_key_that_is_none(home: Home, attach: Callable[..., Attached], key: str) -> None:
    view = attach(shell(home), f"--detach-key={key}")
    assert view.wait() == 1
    assert b"key" in view.output
    assert view.restored()


def test_the_size_goes_back_to_the_terminal_of_the_session(
    home: Home, attach: Callable[..., Attached]
) -> None:
    terminal = home.terminal("sh", size=(77, 22), env={"PS1": "$ "})
    session = vt.Session.open(terminal.session.wait().id, control_dir=home.control)
    view = attach(session, size=(100, 30))
    view.shows("$")
    eventually(lambda: (session.screen().cols, session.screen().rows) == (100, 30))
    view.leave()
    eventually(lambda: (session.screen().cols, session.screen().rows) == (77, 22))


def test_after_a_stop_the_terminal_is_raw_again(
    home: Home, attach: Callable[..., Attached]
) -> None:
    session = shell(home)
    view = attach(session)
    view.shows("$")
    view.signal(signal.SIGSTOP)
    os.system(f"stty sane < {os.ttyname(view.tty)}")  # as a shell does
    view.signal(signal.SIGCONT)
    view.send(b"")
    eventually(lambda: "-icanon" in view.stty())
    view.send(b"echo awa''ke\r")
    view.shows("awake")
    view.signal(signal.SIGTERM)
    view.wait()


def test_two_viewers_see_the_same(home: Home, attach: Callable[..., Attached]) -> None:
    session = shell(home)
    first, second = attach(session), attach(session)
    first.shows("$")
    second.shows("$")
    first.send(b"echo on''e\r")
    second.shows("one")
    second.send(b"echo tw''o\r")
    first.shows("two")
    first.leave()
    second.leave()


def test_what_cannot_be_attached_to_is_said(home: Home, attach: Callable[..., Attached]) -> None:
    session = vt.spawn(["sh", "-c", "exit 2"], control_dir=home.control)
    session.wait(timeout=5)
    eventually(lambda: not (session.path / "ipc.sock").exists())
    view = attach(session)
    assert view.wait() == 1
    assert b"has ended (with exit code 2)" in view.output
    assert view.restored()


def test_a_session_is_not_shown_in_itself(home: Home) -> None:
    session = shell(home)
    command = f"{sys.executable} -m pyplue.vt --control-dir {home.control} attach {session.id}"
    session.resize(300, 24)
    session.send(f"{command}\r")
    session.wait("this terminal is session shell: look at it from another one", timeout=10)


def test_a_session_that_is_cleaned_up_meanwhile(
    home: Home, attach: Callable[..., Attached]
) -> None:
    session = shell(home)
    view = attach(session)
    view.shows("$")
    pid = session.info.pid
    assert pid is not None
    for entry in session.path.iterdir():
        entry.unlink()
    session.path.rmdir()
    view.send(b"echo still he''re\r")
    view.shows("still here")
    view.send(b"exit 3\r")
    assert view.wait() == 0
    assert b"ended with exit code 3" in view.output
    eventually(lambda: not alive(pid))
