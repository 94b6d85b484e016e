"""The screen of pyplue.vt beside that of tmux, for random programs.

VT_SCREENS  how many (100)
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyplue import vt
from vt.harness import eventually

SCREENS = int(os.environ.get("VT_SCREENS", "100"))
COLS, ROWS = 30, 8


def random_output(rng: random.Random) -> str:
    """Text and sequences, without what tmux does in a way of its own, other than xterm and the
    terminal in VibeTunnel's web page: inserting and deleting lines outside of a scroll region or in
    mid-line, and repeating beyond the end of a line; and without wide characters, which get cut."""
    below = rng.randrange
    pieces: list[Callable[[], str]] = [
        *[lambda: "".join(rng.choices("abcdefgh ", k=below(12) + 1))] * 4,
        *(lambda text=text: text for text in (  # type: ignore[misc]
            "\r\n", "\n", "\r", "\b", "\t", "\x1bM", "\x1bD", "\x1bE", "\x1b7", "\x1b8",
            "\x1b[?1049h", "\x1b[?1049l", "\x1b[?7l", "\x1b[?7h", "\x1b[4h", "\x1b[4l",
            "\rx\x1b[3b", "\x1b[2Z", "\x1b#8", "\x1b[r", "\x1b[31;1m", "\x1b[m", "\x1b]0;title\x07",
        )),
        *(lambda final=final: f"\x1b[{below(5)}{final}" for final in "ABCDEFGPX@"),  # type: ignore[misc]
        lambda: f"\x1b[{below(ROWS + 2)};{below(COLS + 3)}H",
        lambda: f"\x1b[{below(ROWS)}d",
        lambda: f"\x1b[{below(3)}{rng.choice('JK')}",
        lambda: f"\x1b[{below(3) + 1}{rng.choice('ST')}",
    ]  # fmt: skip
    if rng.random() < 0.5:
        pieces.append(lambda: f"\x1b[{below(4)}{rng.choice('LM')}\r")
    else:
        pieces.append(lambda: f"\x1b[{below(4) + 1};{below(4) + 5}r")
    return "".join(rng.choice(pieces)() for _ in range(rng.randrange(1, 14)))


@pytest.fixture
def tmux(need: Callable[[str], str]) -> Iterator[Callable[..., str]]:
    socket = f"pyplue-{os.getpid()}"
    program = need("tmux")

    def run(*words: str | Path) -> str:
        command = [program, "-L", socket, "-f", "/dev/null", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    run("new-session", "-d", "-x", str(COLS), "-y", str(ROWS), "sh")
    run("set", "-g", "status", "off")
    run("resize-window", "-x", str(COLS), "-y", str(ROWS))
    yield run
    run("kill-server")


def test_the_screen_is_that_of_tmux(tmux: Callable[..., str], tmp_path: Path) -> None:
    rng = random.Random(SCREENS)
    for number in range(SCREENS):
        output = random_output(rng)
        file = tmp_path / str(number)
        file.write_text(output)
        tmux("respawn-pane", "-k", f"stty raw; cat {file}; exec sleep 100")
        screen = vt.Screen(COLS, ROWS)
        screen.feed(output)
        wanted = screen.text()

        def shown() -> str:
            rows = tmux("capture-pane", "-p").split("\n")
            return "\n".join(row.rstrip() for row in rows).rstrip("\n")

        what = f"number {number}, {output!r}: {wanted!r}"
        eventually(lambda shown=shown, wanted=wanted: shown() == wanted, 5, what)
