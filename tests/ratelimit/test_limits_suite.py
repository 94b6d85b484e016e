"""limits' own tests, from its sdist, on plue://: in the process, in a shared file, and async."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest
from source_tree import ROOT

CONFTEST = Path(__file__).parent / "limits_suite" / "conftest.py"


def insert(path: Path, before: str, text: str) -> None:
    """The places are looked for, so that a changed suite fails here and is not half tested."""
    source = path.read_text()
    assert source.count(before) == 1, f"{path.name}: {before!r} is not there once"
    path.write_text(source.replace(before, text + before))


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("limits")
    wanted = f"limits=={version('limits')}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:"]
    subprocess.run([*command, "-d", folder, wanted], check=True)
    [archive] = folder.glob("limits-*.tar.gz")
    with tarfile.open(archive) as opened:
        # tar filters are missing in the oldest Pythons; the archive is limits' own release.
        opened.extractall(folder)
    tests = folder / archive.name.removesuffix(".tar.gz") / "tests"
    # A file for each worker of pytest-xdist: the tests use the same keys.
    shared = f"plue://{folder}/" + "{os.environ['PYTEST_XDIST_WORKER']}"
    row = 'pytest.param(f"{uri}", {{}}, {kind}None, id="{id}"),\n'
    for uri, name in (("plue://", "plue"), (shared, "plue-shared")):
        utils_row = row.format(uri=uri, kind="", id=name)
        insert(
            tests / "utils.py",
            '    "memory": pytest.param(\n        "memory://"',
            f'    "{name}": {utils_row}',
        )
        async_row = row.format(uri=f"async+{uri}", kind="", id=name)
        insert(
            tests / "utils.py",
            '    "memory": pytest.param(\n        "async+memory://"',
            f'    "{name}": {async_row}',
        )
        insert(
            tests / "test_storage.py",
            '        pytest.param("memory://", {}, MemoryStorage, None, id="in-memory"),\n',
            "        " + row.format(uri=uri, kind="PlueStorage, ", id=name),
        )
        insert(
            tests / "aio" / "test_storage.py",
            '        pytest.param(\n            "async+memory://",',
            "        " + row.format(uri=f"async+{uri}", kind="AsyncPlueStorage, ", id=name),
        )
    for path, name in (
        ("test_storage.py", "PlueStorage"),
        ("aio/test_storage.py", "AsyncPlueStorage"),
    ):
        text = (tests / path).read_text()
        start = f"from pyplue.ratelimit.storage import {name}\n"
        text = text.replace("import pytest\n", f"import os\nimport pytest\n{start}", 1)
        (tests / path).write_text(text)
    (tests / "conftest.py").write_text(CONFTEST.read_text())
    return tests


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("files", "least"),
    [(("test_storage.py", "test_strategy.py"), 40), (("aio",), 40)],
    ids=["sync", "async"],
)
def test_the_suite_of_limits_passes(suite: Path, files: tuple[str, ...], least: int):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "6",
        "-k",
        "plue",
    ]
    command += ["-c", os.devnull, "--rootdir", str(suite.parent), "-o", "asyncio_mode=auto"]
    answer = subprocess.run(
        [*command, *(str(suite / name) for name in files)],
        cwd=suite.parent,
        env={
            **os.environ,
            "PLUE_FOLDER": str(suite.parent.parent),
            "PYTHONPATH": f"{suite.parent}:{ROOT}",
        },
        capture_output=True,
        text=True,
    )
    assert answer.returncode == 0, answer.stdout[-6000:] + answer.stderr[-2000:]
    assert "failed" not in answer.stdout
    # That many ran: a suite that collects nothing passes too.
    passed = int(re.search(r"(\d+) passed", answer.stdout)[1])
    assert passed >= least
    print(answer.stdout.splitlines()[-1])
