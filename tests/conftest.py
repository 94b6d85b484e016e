"""What all tests share: the real tools they need, and what happens where one is missing."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from source_tree import ROOT

IN_CI = os.environ.get("CI") == "true"
# What CI may skip: tests for another libssh than the one in use, and one that is run by hand.
SKIPPED_IN_CI = re.compile("libssh is inside|libssh before|PLUE_SSH_VALGRIND")


def pytest_configure() -> None:
    # Started in the background of a script, everything ignores these; programs under test pass on
    # to their children what they find, as they should.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    local = [ROOT / ".venv" / "bin", ROOT / "bun" / "node_modules" / ".bin"]
    # Debian keeps PostgreSQL's server out of PATH.
    postgres = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    os.environ["PATH"] = os.pathsep.join(
        [*map(str, local), os.environ["PATH"], *map(str, postgres)]
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The tests of the release take as long as half of all others, one after the other: where files
    # run side by side they begin first, or the last minutes would be theirs alone.
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.name != "test_release.py")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    """In CI a test that is skipped for another reason has failed: nobody would miss it."""
    report = (yield).get_result()
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2]
        if not SKIPPED_IN_CI.search(reason):
            report.outcome = "failed"
            report.longrepr = f"CI skips no test for this reason: {reason}"


@pytest.fixture(scope="session")
def need() -> Callable[[str], str]:
    """`need("bun")` is its path; where it is missing, CI fails and a user's machine skips."""

    def path_of(program: str) -> str:
        found = shutil.which(program)
        if found is None:
            message = f"{program} is not installed: ./dev test installs it where it can"
            if IN_CI:
                pytest.fail(message)
            pytest.skip(message)
        return found

    return path_of
