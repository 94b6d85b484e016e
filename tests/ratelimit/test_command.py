"""The executable plue-ratelimit: each command, and standard input however it ends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]
CLOSED_INPUT = ("sh", "-c", 'exec "$@" <&-', "sh")
CLOSED_OUTPUT = ("sh", "-c", 'exec "$@" >&-', "sh")


@pytest.fixture
def run(need: Callable[[str], str]) -> Run:
    """`run("replay", "--limit", "2", input="a\\n")`; a command that does not end fails the test."""
    program = need("plue-ratelimit")

    def run(*words: str, input: str = "", before: tuple[str, ...] = ()):
        command = [*before, program, *words]
        return subprocess.run(command, input=input, capture_output=True, text=True, timeout=60)

    return run


def test_help_names_every_command_and_the_version_is_told(run: Run):
    for flag in ("--help", "-h", "help"):
        shown = run(flag)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert shown.stdout.startswith("usage: plue-ratelimit COMMAND")
        assert all(f"\n  {name} " in shown.stdout for name in ("replay", "simulate", "bench"))
    assert run("--version").stdout.startswith("plue-ratelimit ")


@pytest.mark.parametrize(
    ("keys", "answers", "totals"),
    [
        ("a\na\nb\na\n", ["pass a", "pass a", "pass b", "refuse a"], "3 passed, 1 refused, 2 keys"),
        ("a\nb", ["pass a", "pass b"], "2 passed, 0 refused, 2 keys"),
        ("", [], "0 passed, 0 refused, 0 keys"),
        ("\n\n", ["pass ", "pass "], "2 passed, 0 refused, 1 keys"),
        ("x" * 1024, ["pass " + "x" * 1024], "1 passed, 0 refused, 1 keys"),
    ],
    ids=["lines", "no-last-line-feed", "empty", "empty-lines", "longest-key"],
)
def test_replay_answers_each_line(run: Run, keys: str, answers: list[str], totals: str):
    done = run("replay", "--limit", "2", "--window", "1d", input=keys)
    assert done.returncode == 0
    assert done.stdout.splitlines() == answers
    assert done.stderr == totals + "\n"
    quiet = run("replay", "--limit", "2", "--window", "1d", "--quiet", input=keys)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", done.stderr)


def test_replay_takes_the_times_of_a_log(run: Run):
    options = ("--limit", "1", "--window", "1s", "--algorithm", "fixed-window", "--timed")
    done = run("replay", *options, input="0 a\n999 a\n1000 a\n")
    assert done.stdout.splitlines() == ["pass a", "refuse a", "pass a"]
    assert run("replay", *options, input="soon a\n").returncode == 1


@pytest.mark.parametrize("length", [1025, 5000])
def test_a_line_longer_than_a_key_ends_the_replay(run: Run, length: int):
    done = run("replay", input="ok\n" + "x" * length + "\nnever\n")
    assert (done.returncode, done.stdout) == (1, "pass ok\n")
    assert done.stderr


def test_closed_input_and_output_are_errors_not_loops(run: Run):
    no_input = run("replay", before=CLOSED_INPUT)
    assert (no_input.returncode, no_input.stdout) == (1, "")
    assert run("replay", before=CLOSED_OUTPUT, input="a\n").returncode == 1


def test_simulate_compares_the_algorithms(run: Run):
    done = run("simulate", "--limit", "20", "--load", "120", "--windows", "50")
    assert done.returncode == 0
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()[1:]}
    assert set(rows) == {"sliding_window", "gcra", "fixed_window"}
    for requests, passed, *_ in rows.values():
        assert 0 < int(passed) < int(requests)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("bogus",),
        ("replay", "--bogus", "1"),
        ("replay", "--limit"),
        ("replay", "--limit", "-1"),
        ("replay", "--limit", "4294967296"),
        ("replay", "--window", "0s"),
        ("replay", "--window", "5"),
        ("replay", "--window", "99999999999999999999d"),
        ("replay", "--max-keys", "0"),
        ("replay", "--algorithm", "guess"),
        ("simulate", "--load", "0"),
    ],
    ids=" ".join,
)
def test_wrong_usage_says_what_is_wrong(run: Run, words: tuple[str, ...]):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("plue-ratelimit: wrong usage: ")
    assert "--help" in done.stderr
