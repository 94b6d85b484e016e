"""asciinema, which nobody here wrote, plays every recording that the other tests have made."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from vt.harness import Home, Recording, Terminal


def played(player: str, command: list[str], cast: Path) -> bytes:
    """What the player shows for a recording, on a terminal that changes nothing."""
    terminal = Terminal([player, *command, str(cast)], size=(200, 60))
    try:
        subprocess.run(["stty", "-opost"], stdin=terminal.tty, check=True)
        code = terminal.wait(120)
        assert code == 0, (cast.name, terminal.output[-500:])
        return terminal.output
    finally:
        terminal.close()


def test_asciinema_plays_every_recording(
    home: Home, recordings: Path, need: Callable[[str], str]
) -> None:
    player = need("asciinema")
    home.run("sh", "-c", r"printf 'one \033[31mred\033[m é\n'; sleep 0.2; echo two")
    cast = home.last.path / "stdout"
    # Many tests record the same: once is enough, whatever the times in it.
    distinct = {
        tuple((kind, text) for _, kind, text in Recording(path, finished=False).events): path
        for path in [cast, *sorted(recordings.glob("*.cast"))]
    }

    def check(number: int, cast: Path) -> None:
        text = Recording(cast, finished=False).text()
        # It reads a file in the same way for both: a few are enough for what only `play` does.
        play = [["play", "-s", "1000000", "-i", "0.0001"]] if number % 5 == 0 else []
        for command in (["cat"], *play):
            shown = played(player, command, cast).decode()
            # Python's text output turns lone line feeds of a recording into the terminal's own.
            assert shown.replace("\r\n", "\n") == text.replace("\r\n", "\n"), (cast.name, command)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, count(), distinct.values()))
    print(f"asciinema played {len(distinct)} recordings")
