"""The own tests of the library limits, from its source distribution, on `plue://`.

Wherever they run on the storage "memory", two rows are added with the same expectations: a private
storage and one in a shared file, for the synchronous and for the asynchronous strategies.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

VERSION = "5.8.0"
SDIST_SHA256 = "c9e0d74aed837e8f6f50d1fcebcf5fd8130957287206bc3799adaee5092655da"
SUITE = Path(__file__).resolve().parent / "limits_suite"

# Each row of the storage "memory", in front of which the others go.
UTILS_ROW = """    "memory": pytest.param(
        "memory://", {}, None, marks=pytest.mark.memory, id="in-memory"
    ),
"""
STORAGE_ROW = """        pytest.param("memory://", {}, MemoryStorage, None, id="in-memory"),
"""
ASYNC_STORAGE_ROW = """        pytest.param(
            "async+memory://",
            {},
            MemoryStorage,
            None,
            marks=pytest.mark.memory,
            id="in-memory",
        ),
"""
ROWS = {
    "tests/utils.py": [UTILS_ROW, UTILS_ROW.replace("memory://", "async+memory://")],
    "tests/test_storage.py": [STORAGE_ROW],
    "tests/aio/test_storage.py": [ASYNC_STORAGE_ROW],
}

# How many tests of each file must pass on either kind of plue://.
EXPECTED = {
    "test_storage.py": 9,
    "test_strategy.py": 18,
    "aio/test_storage.py": 9,
    "aio/test_strategy.py": 19,
    "integration/test_concurrency.py": 6,
}


@pytest.fixture(scope="module")
def suite(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tests of limits and the rows for plue; the archive is downloaded once."""
    cache = pytestconfig.cache.mkdir("limits")
    sdist = cache / f"limits-{VERSION}.tar.gz"
    if not sdist.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        subprocess.run([*pip, f"--dest={cache}", f"limits=={VERSION}"], check=True)
    assert hashlib.sha256(sdist.read_bytes()).hexdigest() == SDIST_SHA256
    unpacked = tmp_path_factory.mktemp("limits")
    shutil.unpack_archive(sdist, unpacked)
    # Without the package itself: the installed one is tested.
    folder = unpacked / "suite"
    shutil.move(unpacked / f"limits-{VERSION}" / "tests", folder / "tests")
    # limits' own conftest.py starts servers for the storages that are not tested here.
    shutil.copy(SUITE / "suite_conftest.py", folder / "tests" / "conftest.py")
    future = "from __future__ import annotations\n"
    imported = "from pyplue.ratelimit.storage import AsyncPlueStorage, PlueStorage\n"
    for name, rows in ROWS.items():
        text = (folder / name).read_text().replace(future, f"{future}import os\n{imported}")
        for row in rows:
            assert text.count(row) == 1, f"{name} has changed"
            text = text.replace(
                row, plue_row(row, "plue", "") + plue_row(row, "file", "SHARED") + row
            )
        (folder / name).write_text(text)
    return folder


def plue_row(row: str, name: str, variable: str) -> str:
    """The row for `plue://` and the path in an environment variable."""
    is_async = "async+" in row
    scheme = "async+memory://" if is_async else "memory://"
    uri = scheme.replace("memory", "plue")
    for old, new in {
        '"memory": ': f'"{name}": ',
        f'"{scheme}"': f'"{uri}" + os.environ.get("{variable}", "")',
        "in-memory": name,
        " MemoryStorage": " AsyncPlueStorage" if is_async else " PlueStorage",
        "marks=pytest.mark.memory, ": "",
        "            marks=pytest.mark.memory,\n": "",
    }.items():
        row = row.replace(old, new)
    return row


def test_every_test_passes_on_plue(suite: Path, tmp_path: Path) -> None:
    outcomes = tmp_path / "outcomes.json"
    run = subprocess.run(
        [
            # Several at once: most of the time these tests sleep.
            *(sys.executable, "-m", "pytest", "tests", "-k", "[plue] or [file]", "-n", "8"),
            *("-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "-q", "--tb=short"),
            *("--ignore=tests/benchmarks", "-W", "ignore", "-c", os.devnull),
            *("--rootdir", str(suite)),
        ],
        cwd=suite,
        env={**os.environ, "OUTCOMES": str(outcomes), "SHARED_FOLDER": str(tmp_path)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert outcomes.exists(), run.stdout + run.stderr
    found: dict[str, str] = json.loads(outcomes.read_text())
    assert set(found.values()) == {"passed"}, run.stdout
    for kind in ("plue", "file"):
        passed = Counter(name.partition("::")[0] for name in found if f"[{kind}]" in name)
        assert {name.removeprefix("tests/"): n for name, n in passed.items()} == EXPECTED
