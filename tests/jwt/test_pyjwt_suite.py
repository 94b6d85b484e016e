"""PyJWT's own tests, from its source distribution, with pyplue.jwt in PyJWT's place."""

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
from source_tree import ROOT

VERSION = "2.15.1"
SDIST_SHA256 = "4f259e80cdfb6b3fc18a7de51fd1ef9ec79652f25019bae68975ca2468a34df8"
SUITE = Path(__file__).resolve().parent / "pyjwt_suite"

FILES = (
    "test_api_jwt.py",
    "test_api_jws.py",
    "test_jwt.py",
    "test_exceptions.py",
    "test_compressed_jwt.py",
)
# Of test_algorithms.py what goes through encode and decode: the warning of short keys.
SINGLE_TESTS = tuple(
    f"test_algorithms.py::TestKeyLengthValidation::test_{name}"
    for name in (
        "pyjws_encode_warns_short_hmac_key",
        "pyjws_encode_enforces_short_hmac_key",
        "pyjws_encode_no_warning_adequate_key",
        "pyjwt_encode_warns_short_hmac_key",
        "pyjwt_encode_enforces_short_hmac_key",
        "pyjwt_decode_enforces_short_hmac_key",
        "pyjwt_decode_honors_per_call_enforce_minimum_key_length",
        "pyjwt_encode_no_warning_adequate_key",
    )
)

# What each file must have passed and skipped; the skipped need RSA or elliptic curves.
EXPECTED = {
    "test_api_jwt": {"passed": 94, "skipped": 3},
    "test_api_jws": {"passed": 70, "skipped": 11},
    "test_jwt": {"passed": 1},
    "test_exceptions": {"passed": 1},
    "test_compressed_jwt": {"passed": 1},
    "test_algorithms": {"passed": 8},
}


@pytest.fixture(scope="module")
def suite(pytestconfig: pytest.Config) -> Path:
    """PyJWT's folder of tests, downloaded once."""
    cache = pytestconfig.cache.mkdir("pyjwt")
    sdist = cache / f"pyjwt-{VERSION}.tar.gz"
    if not sdist.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        subprocess.run([*pip, f"--dest={cache}", f"PyJWT=={VERSION}"], check=True)
    assert hashlib.sha256(sdist.read_bytes()).hexdigest() == SDIST_SHA256
    folder = cache / f"pyjwt-{VERSION}"
    if not folder.exists():
        shutil.unpack_archive(sdist, cache)
    return folder / "tests"


def test_every_test_passes_but_the_listed_ones(suite: Path, tmp_path: Path) -> None:
    outcomes = tmp_path / "outcomes.json"
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "jwt_is_pyplue", "-p", "no:cacheprovider"),
            *("-q", "--tb=short", "-W", "ignore::UserWarning"),
            *("--rootdir", str(suite), "-c", os.devnull),
            *(str(suite / name) for name in (*FILES, *SINGLE_TESTS)),
        ],
        env={**os.environ, "PYTHONPATH": f"{SUITE}:{ROOT}", "OUTCOMES": str(outcomes)},
        cwd=suite.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert outcomes.exists(), run.stdout + run.stderr
    found = json.loads(outcomes.read_text())
    lines = (SUITE / "not_supported.txt").read_text().splitlines()
    listed = {line for line in lines if line and not line.startswith("#")}
    assert {name for name, outcome in found.items() if outcome == "failed"} == listed, run.stdout

    counts: dict[str, Counter[str]] = {}
    for name, outcome in found.items():
        if outcome in ("passed", "skipped"):
            counts.setdefault(name.partition(".py")[0], Counter())[outcome] += 1
    assert counts == EXPECTED
