"""How fast HS256 tokens are in Python, Bun and Zig, beside the alternatives, in one run.

    ./dev bench jwt

Each library gets its secret as it likes it best: prepared where it can, and pyplue.jwt both ways.
The figures are the best of many rounds, so that what else the machine does counts little.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

BUN_BENCH = ROOT / "bun" / "bench_jwt.ts"

SECRET = "a secret of at least thirty-two bytes"
CLAIMS = {"sub": "1234567890", "iat": 1516239022, "exp": int(time.time()) + 86400}


class Library(NamedTuple):
    """Signs CLAIMS to a str, and verifies a str to a dict, checking its times."""

    name: str
    sign: Callable[[], Any]
    verify: Callable[[str], Any]


def libraries() -> list[Library]:
    """All libraries of the table, set up; pyplue.jwt first, PyJWT next."""
    import jwt as pyjwt
    import superjwt
    from jose import jwt as python_jose
    from joserfc import jwt as joserfc
    from joserfc.jwk import OctKey

    from pyplue import jwt

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from authlib.jose import jwt as authlib

    allowed = ["HS256"]
    header = {"alg": "HS256", "typ": "JWT"}
    prepared = jwt.Key(SECRET)
    oct_key = OctKey.import_key(SECRET)
    super_key = superjwt.OctKey.import_key(SECRET)
    registry = joserfc.JWTClaimsRegistry()

    def joserfc_verify(token: str) -> Any:
        decoded = joserfc.decode(token, oct_key, algorithms=allowed)
        registry.validate(decoded.claims)
        return decoded.claims

    def authlib_verify(token: str) -> Any:
        claims = authlib.decode(token, SECRET)
        claims.validate()
        return claims

    return [
        Library(
            "pyplue.jwt, secret as str",
            lambda: jwt.encode(CLAIMS, SECRET, algorithm="HS256"),
            lambda token: jwt.decode(token, SECRET, algorithms=allowed),
        ),
        Library(
            "pyplue.jwt, prepared Key",
            lambda: jwt.encode(CLAIMS, prepared),
            lambda token: jwt.decode(token, prepared),
        ),
        Library(
            "PyJWT",
            lambda: pyjwt.encode(CLAIMS, SECRET, algorithm="HS256"),
            lambda token: pyjwt.decode(token, SECRET, algorithms=allowed),
        ),
        Library("joserfc", lambda: joserfc.encode(header, CLAIMS, oct_key), joserfc_verify),
        Library("Authlib", lambda: authlib.encode(header, CLAIMS, SECRET).decode(), authlib_verify),
        Library(
            "superjwt",
            lambda: superjwt.encode(CLAIMS, super_key, "HS256").decode(),
            lambda token: superjwt.decode(token, super_key, "HS256").to_dict(),
        ),
        Library(
            "python-jose",
            lambda: python_jose.encode(CLAIMS, SECRET, algorithm="HS256"),
            lambda token: python_jose.decode(token, SECRET, algorithms=allowed),
        ),
    ]


@pytest.fixture(scope="module")
def token() -> str:
    from pyplue import jwt

    return jwt.encode(CLAIMS, SECRET)


LIBRARIES = libraries()


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_sign(benchmark: Any, library: Library, token: str) -> None:
    signed = benchmark(library.sign)
    assert isinstance(signed, str)
    assert LIBRARIES[0].verify(signed) == CLAIMS


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.name)
def test_verify(benchmark: Any, library: Library, token: str) -> None:
    assert dict(benchmark(library.verify, token)) == CLAIMS


def measure() -> dict[str, dict[str, float]]:
    """The best time in nanoseconds, by what is done and by library."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"),
                *(f"--benchmark-json={report}", "--benchmark-disable-gc", "--benchmark-warmup=on"),
                *("--benchmark-columns=min,median,rounds", "--benchmark-sort=min"),
                __file__,
            ],
            cwd=ROOT,
            check=True,
        )
        times: dict[str, dict[str, float]] = {"sign": {}, "verify": {}}
        for result in json.loads(report.read_text())["benchmarks"]:
            name, _, library = result["name"].removeprefix("test_").rstrip("]").partition("[")
            times[name][library] = result["stats"]["min"] * 1e9
        return times


def print_table(times: dict[str, dict[str, float]]) -> None:
    packages = {"pyplue.jwt": "pyplue"}
    print(f"\n{'':34}{'sign':>9}{'verify':>9}   pyplue.jwt (secret as str) is faster by")
    ours = LIBRARIES[0].name
    for name in times["sign"]:
        package = name.partition(",")[0]
        sign, verify = times["sign"][name], times["verify"][name]
        label = f"{name} {version(packages.get(package, package))}"
        print(
            f"{label:34}{sign:6.0f} ns{verify:6.0f} ns"
            f"   {sign / times['sign'][ours]:5.1f} x sign"
            f" {verify / times['verify'][ours]:5.1f} x verify"
        )


def main() -> None:
    size = len(json.dumps(CLAIMS, separators=(",", ":")))
    print(f"== Python {sys.version.split()[0]}, dict to str and str to dict, payload {size} bytes")
    sys.stdout.flush()
    print_table(measure())
    print("\n== Zig, the library as it is shipped, one thread, through its C ABI", flush=True)
    zig = [sys.executable, "-m", "ziglang", "build", "bench", "-Doptimize=ReleaseSafe"]
    subprocess.run(zig, cwd=ROOT / "zig" / "jwt", check=True)
    if BUN_BENCH.exists():
        print("\n== Bun", flush=True)
        subprocess.run(["bun", "run", BUN_BENCH.name], cwd=BUN_BENCH.parent, check=True)


if __name__ == "__main__":
    main()
