"""asciinema, which nobody here wrote, plays recordings."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vt.harness import Recording, Terminal

PLAY = ["play", "-s", "1000000", "-i", "0.0001"]


def shown(player: str, command: list[str], cast: Path) -> bytes:
    """What the player shows for a recording, on a terminal that changes nothing."""
    terminal = Terminal([player, *command, str(cast)], size=(200, 60))
    try:
        subprocess.run(["stty", "-opost"], stdin=terminal.tty, check=True)
        code = terminal.wait(120)
        assert code == 0, (cast.name, terminal.output[-500:])
        return terminal.output
    finally:
        terminal.close()


def check(player: str, command: list[str], cast: Path) -> None:
    """The player shows all the text of the recording."""
    text = Recording(cast, finished=False).text()
    # Python's text output turns lone line feeds of a recording into the terminal's own.
    seen = shown(player, command, cast).decode().replace("\r\n", "\n")
    assert seen == text.replace("\r\n", "\n"), (cast.name, command)


def check_all(player: str, folder: Path) -> None:
    """Of every recording in `folder`; of those that record the same, one, whatever its times."""
    distinct = {
        tuple((kind, text) for _, kind, text in Recording(path, finished=False).events): path
        for path in sorted(folder.glob("*.cast"))
    }
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda cast: check(player, ["cat"], cast), distinct.values()))
