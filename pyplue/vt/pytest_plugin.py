"""Terminal sessions in tests, for pytest. Opt in with `-p pyplue.vt.pytest_plugin`, or in a
conftest.py:

    pytest_plugins = ["pyplue.vt.pytest_plugin"]

A test then asks for the fixture `vt_spawn`, which is `pyplue.vt.spawn` with sessions of the test's
own, that end with the test. When the test fails, their recordings are kept (`--vt-casts`), and the
report shows the screens.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyplue.vt.errors import VtError
from pyplue.vt.recorder import end, private_control_dir
from pyplue.vt.session import Session
from pyplue.vt.spawn import Word, spawn

_SESSIONS = pytest.StashKey[list[Session]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("pyplue.vt").addoption(
        "--vt-casts",
        metavar="DIR",
        default="vt-casts",
        help="where the recordings of failed tests' terminal sessions are kept (vt-casts)",
    )


@pytest.fixture
def vt_spawn(request: pytest.FixtureRequest) -> Iterator[Callable[..., Session]]:
    """`pyplue.vt.spawn`, for this test: its sessions end with it, and a failed test's are kept."""
    started = request.node.stash.setdefault(_SESSIONS, [])
    with private_control_dir() as control:

        def start(argv: list[Word], **options: Any) -> Session:
            session = spawn(argv, **{"control_dir": control, **options})
            started.append(session)
            return session

        yield start
        for session in started:
            end(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when != "teardown":
        for session in item.stash.get(_SESSIONS, []):
            report.sections.append((f"terminal session {session.id}", _keep(item, session)))
    return report


def _keep(item: pytest.Item, session: Session) -> str:
    folder = item.config.invocation_params.dir / str(item.config.getoption("--vt-casts"))
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", item.nodeid)[-150:].strip("_")
    path = Path(folder) / f"{name}-{session.id}.cast"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(session.cast_path, path)
        return f"{session.text()}\n[the recording: asciinema play {path}]"
    except (VtError, OSError) as error:
        return f"[no recording: {error}]"
