"""asciinema plays what is recorded. All that the other tests record, it shows at the end of the
run: see the fixture `recordings`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vt import players
from vt.harness import Home


@pytest.mark.parametrize("command", [players.PLAY, ["cat"]], ids=["play", "cat"])
def test_asciinema_shows_what_was_printed(
    home: Home, need: Callable[[str], str], command: list[str]
) -> None:
    home.run("sh", "-c", r"printf 'one \033[31mred\033[m é\n'; sleep 0.2; echo two")
    players.check(need("asciinema"), command, home.last.path / "stdout")


def test_text_that_the_player_does_not_show_is_noticed(
    home: Home, need: Callable[[str], str], tmp_path: Path
) -> None:
    home.run("sh", "-c", "echo one; sleep 0.2; echo two")
    text = (home.last.path / "stdout").read_text()
    (tmp_path / "it.cast").write_text(text.replace('"o"', '"x"', 1))
    (tmp_path / "false.cast").write_text(text)
    # A player that shows another recording than it was asked for.
    wrong = tmp_path / "player"
    wrong.write_text(f'#!/bin/sh\nexec {need("asciinema")} cat "{tmp_path}/it.cast"\n')
    wrong.chmod(0o755)
    with pytest.raises(AssertionError, match=r"false\.cast"):
        players.check(str(wrong), ["cat"], tmp_path / "false.cast")
