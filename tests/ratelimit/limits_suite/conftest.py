"""In place of limits' own conftest.py, which starts the servers of the storages not tested here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import pyplue.ratelimit.storage  # noqa: F401  (registers plue://)


@pytest.fixture(autouse=True)
def fresh_file():
    """The tests expect a storage without entries; those on the old file keep it."""
    shared = Path(os.environ["PLUE_FOLDER"]) / os.environ["PYTEST_XDIST_WORKER"]
    shared.unlink(missing_ok=True)
