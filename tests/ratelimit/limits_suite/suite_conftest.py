"""Stands in for limits' own conftest.py: makes `plue://` known and writes down what passed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import pyplue.ratelimit.storage  # noqa: F401

outcomes: dict[str, str] = {}

# A file for each of pytest-xdist's processes: their tests use the same keys.
shared = Path(os.environ["SHARED_FOLDER"], os.environ.get("PYTEST_XDIST_WORKER", "main"))
os.environ["SHARED"] = f"{shared}?max_keys=100000"


@pytest.fixture(autouse=True)
def fresh_file() -> None:
    """Each test expects a storage without keys."""
    shared.unlink(missing_ok=True)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        outcomes[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        Path(os.environ["OUTCOMES"]).write_text(json.dumps(outcomes))
