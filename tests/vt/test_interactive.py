"""Programs that people use, on a terminal that the test plays: vim, less, top, bash, tmux."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pyte
import pytest

from vt.harness import Home, Terminal, eventually

pytestmark = pytest.mark.timeout(120)

Need = Callable[[str], str]


class Screen(pyte.Screen):
    """pyte's screen, for which `CSI > 4 m` (keyboard modes, of vim) is about colours."""

    def select_graphic_rendition(self, *attributes: int, **private: bool) -> None:
        if not private:
            super().select_graphic_rendition(*attributes)


def render(data: bytes, size: tuple[int, int]) -> list[str]:
    """What a terminal of this size shows after all these bytes."""
    screen = Screen(*size)
    pyte.ByteStream(screen).feed(data)
    return [line.rstrip() for line in screen.display]


def shows(
    terminal: Terminal, text: str, size: tuple[int, int] = (100, 30), after: int = 0
) -> list[str]:
    """The screen, once it shows `text`; of a screen resized since, what came `after`."""

    def look() -> list[str] | None:
        lines = render(terminal.output[after:], size)
        return lines if any(text in line for line in lines) else None

    try:
        return list(eventually(look, 10))
    except AssertionError:
        shown = "\n".join(render(terminal.output[after:], size))
        raise AssertionError(f"{text!r} is not on the screen:\n{shown}") from None


def recorded_equals_shown(terminal: Terminal) -> None:
    assert terminal.session.recording().text().encode() == terminal.output


def test_vim_edits_a_file(home: Home, need: Need) -> None:
    file = home.work / "text"
    terminal = home.terminal(need("vim"), "-Nu", "NONE", "-n", str(file))
    shows(terminal, "~")
    terminal.send("ihéllo vim €".encode())
    shows(terminal, "héllo vim €")
    terminal.send(b"\x1b")
    time.sleep(0.1)
    terminal.resize(70, 20)
    eventually(lambda: terminal.session.recording(finished=False).of_kind("r"))
    mark = terminal.mark()
    terminal.send(b":echo &columns . 'x' . &lines\r")
    shows(terminal, "70x20", (70, 20), mark)
    terminal.send(b":wq\r")
    assert terminal.wait() == 0
    assert file.read_text("utf-8") == "héllo vim €\n"
    assert terminal.restored()
    recorded_equals_shown(terminal)
    assert set(terminal.session.recording().of_kind("r")) == {"70x20"}  # again behind clears


def test_less_pages_and_follows_a_resize(home: Home, need: Need) -> None:
    file = home.work / "numbers"
    file.write_text("".join(f"number {n}\n" for n in range(1, 1001)))
    terminal = home.terminal(need("less"), str(file))
    shows(terminal, "number 29")
    terminal.send(b" ")
    shows(terminal, "number 58")
    mark = terminal.mark()
    terminal.resize(100, 12)
    # Its repaint first: less alone too forgets a key that comes just when it hears of a new size.
    terminal.expect(b"\x1b[2J", after=mark)
    shows(terminal, "number 40", (100, 12), mark)
    mark = terminal.mark()
    terminal.send(b"G")
    lines = shows(terminal, "number 1000", (100, 12), mark)
    assert next(line for line in lines if line.startswith("number")) == "number 990"
    terminal.send(b"q")
    assert terminal.wait() == 0
    assert terminal.restored()
    recorded_equals_shown(terminal)


def test_top_refreshes_and_quits(home: Home, need: Need) -> None:
    terminal = home.terminal(need("top"), "-d", "0.3")
    shows(terminal, "Tasks:")
    before = terminal.mark()
    eventually(lambda: terminal.mark() > before)
    terminal.send(b"q")
    assert terminal.wait() == 0
    assert terminal.restored()
    recorded_equals_shown(terminal)


def plain_prompts(home: Home, prompt: str) -> None:
    """A shell's prompt without the sequences that bracket a paste."""
    inputrc = home.path / "inputrc"
    inputrc.write_text("set enable-bracketed-paste off\n")
    home.env |= {"PS1": prompt, "INPUTRC": str(inputrc)}


@pytest.fixture
def bash(home: Home, need: Need) -> Iterator[Terminal]:
    plain_prompts(home, "ready> ")
    terminal = home.terminal(need("bash"), "--norc", "--noprofile", "-i")
    terminal.expect(b"ready> ")
    yield terminal
    assert terminal.restored()


def command(bash: Terminal, line: str, wanted: str) -> str:
    """Types a line and waits for what it should say, then for the prompt."""
    start = bash.mark()
    bash.send(line.encode() + b"\r")
    bash.expect(b"\r\n" + wanted.encode(), after=start)
    return bash.expect(b"ready> ", after=start + len(line)).decode()


def test_bash_has_job_control(bash: Terminal) -> None:
    assert "no job control" not in bash.output.decode()
    bash.send(b"sleep 100\r")
    time.sleep(0.3)
    start = bash.mark()
    bash.send(b"\x03")  # Ctrl-C
    bash.expect(b"ready> ", after=start)
    command(bash, "echo code=$?", "code=130")
    bash.send(b"sleep 101\r")
    time.sleep(0.3)
    start = bash.mark()
    bash.send(b"\x1a")  # Ctrl-Z
    bash.expect(b"Stopped", after=start)
    bash.expect(b"ready> ", after=start)
    assert "Stopped" in command(bash, "jobs", "[1]")
    bash.send(b"fg\r")
    time.sleep(0.3)
    start = bash.mark()
    bash.send(b"\x03")
    bash.expect(b"ready> ", after=start)
    command(bash, "jobs; echo none left", "none left")
    bash.send(b"exit 17\r")
    assert bash.wait() == 17
    recorded_equals_shown(bash)


def test_bash_is_told_of_a_resize(bash: Terminal) -> None:
    bash.resize(123, 45)
    command(bash, "stty size", "45 123")
    with bash.session.client() as client:
        client.control(cmd="resize", cols=61, rows=19)
        eventually(lambda: "61x19" in bash.session.recording(finished=False).of_kind("r"))
    command(bash, "stty size", "19 61")
    bash.send(b"exit\r")
    assert bash.wait() == 0


def test_bash_edits_its_line(bash: Terminal) -> None:
    bash.send(b"echo world\x01\x1b[C\x1b[C\x1b[C\x1b[C\x1b[Chello \r")
    bash.expect(b"\r\nhello world\r\nready> ")
    bash.send(b"\x04")
    assert bash.wait() == 0


def test_a_shell_goes_on_after_it_with_the_same_modes(home: Home) -> None:
    """The forwarder within an interactive shell, stopped and ended in several ways."""
    forward = shlex.join([*home.command, "--session-id"])
    plain_prompts(home, "outer> ")
    shell = Terminal(["bash", "--norc", "--noprofile", "-i"], env=home.env, cwd=home.work)
    home.running.append(shell)
    shell.expect(b"outer> ")
    for number, inner in enumerate(["true", "sh -c 'kill -9 $$'", "vim -Nu NONE -n -c q", "nope"]):
        start = shell.mark()
        shell.send(
            f"stty -a >before; {forward} x{number} -- {inner}; stty -a >after;"
            f" cmp before after && echo sa''me{number}\r".encode()
        )
        shell.expect(f"same{number}\r\n".encode(), after=start)
    shell.send(b"exit\r")
    shell.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_vim_is_ended_by_a_signal(home: Home, need: Need, number: int) -> None:
    terminal = home.terminal(need("vim"), "-Nu", "NONE", "-n")
    shows(terminal, "~")
    terminal.signal(number)
    if number == signal.SIGINT:  # vim takes it as Ctrl-C and stays
        time.sleep(0.3)
        terminal.signal(signal.SIGTERM)
    terminal.wait()
    assert terminal.restored()
    assert terminal.session.info["status"] == "exited"


def test_in_a_real_tmux(home: Home, need: Need) -> None:
    tmux = [need("tmux"), "-L", f"vt{os.getpid()}", "-f", "/dev/null"]

    def do(*argv: str) -> str:
        return subprocess.run(
            [*tmux, *argv], env=home.env, check=True, capture_output=True, text=True
        ).stdout

    def screen() -> str:
        return do("capture-pane", "-p", "-t", "t")

    plain_prompts(home, "ready> ")
    inner = shlex.join([*home.command, "--session-id", "x", "--title-mode", "static", "bash"])
    do("new-session", "-d", "-s", "t", "-x", "80", "-y", "24", f"{inner} --norc; stty -a; sleep 60")
    try:
        eventually(lambda: "ready>" in screen())
        do("send-keys", "-t", "t", "echo from t'mu'x; stty size", "Enter")
        eventually(lambda: "from tmux\n24 80" in screen())
        do("resize-window", "-t", "t", "-x", "90", "-y", "20")
        resized = home.session("x")
        eventually(lambda: "90x20" in resized.recording(finished=False).of_kind("r"))
        do("send-keys", "-t", "t", "clear; stty size", "Enter")
        eventually(lambda: "20 90" in screen())
        title = do("display-message", "-p", "-t", "t", "#{pane_title}").strip()
        assert title == "~/work · bash" or title.endswith("· bash")
        do("send-keys", "-t", "t", "exit", "Enter")
        eventually(lambda: " icanon" in screen() and " echo " in screen())
        session = home.session("x").wait("exited")
        assert "90x20" in session.recording().of_kind("r")
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)
