"""Commands that a page shows and no test runs: that they exist as written, by their own help."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

from source_tree import ROOT

# Programs of this project whose --help names all their options; what follows a command that they
# start is that command's.
OURS = {"vt", "vibetunnel-fwd", "plue-jwt", "plue-ratelimit", "plue-ssh"}
# Programs of others that readers have.
OTHERS = {
    "bun",
    "cd",
    "cp",
    "curl",
    "echo",
    "git",
    "install",
    "pip",
    "python3",
    "sha256sum",
    "systemctl",
    "tar",
    "tee",
    "useradd",
}


def commands_in(text: str) -> list[list[str]]:
    """The words of each line after `$ `, and of each part of a pipe."""
    found: list[list[str]] = []
    for line in re.findall(r"^\$ (.*)", text, re.MULTILINE):
        found.append([])
        for word in shlex.split(line, comments=True):
            if word in ("|", "&&", "&"):
                found.append([])
            else:
                found[-1].append(word)
    return [words for words in found if words]


def check(words: list[str], module: Path | None) -> None:
    """Fails for a program, a command, an option or a package that is not there.

    `module` is the folder whose build.zig a `zig build` is about; None for the root.
    """
    while re.fullmatch(r"\w+=.*|sudo", words[0]):
        words = words[3:] if words[:2] == ["sudo", "-u"] else words[1:]
    # Where the guides install for services.
    program, *rest = [words[0].removeprefix("/opt/plue/bin/"), *words[1:]]
    if program == "./dev":
        assert re.search(rf"^  {rest[0]}\b", help_of("./dev"), re.MULTILINE), words
    elif program == "zig":
        check_build(rest, module or ROOT)
    elif program == "apt-get":
        for package in rest[1:]:
            assert re.search(rf"[| ]{re.escape(package)}[| \n]", dev()), (
                f"{package} is not in ./dev"
            )
    elif program == "python" and rest[0] == "-m":
        check_options(rest[2:], [sys.executable, "-m", rest[1]])
    elif program in OURS:
        check_options(rest, [program])
    else:
        assert program in OTHERS, words


def check_options(rest: list[str], command: list[str]) -> None:
    text = help_of(*command)
    # Down to the command of a command: `user add`.
    while rest and "{" in text and not rest[0].startswith("-"):
        below = help_of(*command, rest[0])
        if below == text:
            break
        command, rest, text = [*command, rest[0]], rest[1:], below
    started = command[0] in ("vt", "vibetunnel-fwd")
    for word in rest:
        if word == "--" or (started and not word.startswith("-") and word == rest[0]):
            break
        if word.startswith("--"):
            assert word.partition("=")[0] in text, f"{' '.join(command)} has no {word}"


def check_build(rest: list[str], folder: Path) -> None:
    assert rest[0] == "build"
    text = help_of(sys.executable, "-m", "ziglang", "build", folder=folder)
    for word in rest[1:]:
        option = re.match(r"-D[\w-]+", word)
        if option:
            assert option[0] in text, f"zig build has no {word}"
        elif not word.startswith("-"):
            assert re.search(rf"^  {word}\b", text, re.MULTILINE), f"zig build has no step {word}"


@cache
def help_of(*command: str, folder: Path = ROOT) -> str:
    words = [*command, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


@cache
def dev() -> str:
    return (ROOT / "dev").read_text()
