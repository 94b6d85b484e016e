"""How fast HS256 tokens are in Python, Bun and Zig, beside the alternatives, in one run.

    ./dev bench jwt

Each library gets its secret as it likes it best: prepared where it can, and pyplue.jwt both ways.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from report import ROOT, Comparison, Goal, bun, main, pytest_benchmark

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


SIGN, VERIFY = "sign a dict in Python", "verify to a dict in Python"
ZIG_SIGN, ZIG_VERIFY = "sign in Zig, one thread", "verify in Zig, one thread"
BUN_SIGN, BUN_VERIFY = "sign an object in Bun", "verify to an object in Bun"

GOALS = [
    Goal(SIGN, at_least=12, than=("PyJWT",)),
    Goal(VERIFY, at_least=18, than=("PyJWT",)),
    Goal(VERIFY, at_least=8, than=("joserfc", "Authlib", "superjwt")),
    Goal(BUN_SIGN, at_least=4, than=("fast-jwt",)),
    Goal(BUN_SIGN, at_least=12, than=("jose, 64 in flight",)),
    Goal(BUN_VERIFY, at_least=4, than=("fast-jwt",)),
    Goal(BUN_VERIFY, at_least=12, than=("jose, 64 in flight",)),
    Goal(ZIG_SIGN, at_least=3e6, name="jwt_sign_into, SHA instructions"),
    Goal(ZIG_SIGN, at_least=5e5, name="jwt_sign_into, scalar"),
    Goal(ZIG_VERIFY, at_least=2.5e6, name="jwt_verify_into, SHA instructions"),
    Goal(ZIG_VERIFY, at_least=5e5, name="jwt_verify_into, scalar"),
]


def python(rounds: int, max_time_s: float) -> list[Comparison]:
    found = pytest_benchmark(__file__, rounds, max_time_s)
    return [
        Comparison(
            what,
            "s",
            "lower",
            {library.name: found[f"{test}[{library.name}]"] for library in LIBRARIES},
            ours=2,
            summary=True,
        )
        for what, test in ((SIGN, "test_sign"), (VERIFY, "test_verify"))
    ]


def zig(rounds: int) -> list[Comparison]:
    """The library as it is shipped, through its C ABI."""
    samples: dict[str, dict[str, list[float]]] = {ZIG_SIGN: {}, ZIG_VERIFY: {}}
    command = [sys.executable, "-m", "ziglang", "build", "bench", "-Doptimize=ReleaseSafe"]
    for _ in range(rounds):
        answer = subprocess.run(
            command, cwd=ROOT / "zig" / "jwt", check=True, stdout=subprocess.PIPE, text=True
        )
        for line in answer.stdout.splitlines():
            if row := re.fullmatch(
                r"(sha-ni|sha2|scalar) +(jwt_(?:sign|verify).*?) +\d+ +(\d+)", line
            ):
                path, call, rate = row.groups()
                what = ZIG_SIGN if call.startswith("jwt_sign") else ZIG_VERIFY
                name = f"{call}, {'scalar' if path == 'scalar' else 'SHA instructions'}"
                samples[what].setdefault(name, []).append(float(rate))
    return [
        Comparison(what, "/s", "higher", found, ours=len(found)) for what, found in samples.items()
    ]


def javascript(rounds: int) -> list[Comparison]:
    samples: dict[str, dict[str, list[float]]] = {BUN_SIGN: {}, BUN_VERIFY: {}}
    for rows in bun("bench_jwt.ts", rounds):
        for row in rows:
            samples[BUN_SIGN].setdefault(row["name"], []).append(row["sign"] / 1e9)
            samples[BUN_VERIFY].setdefault(row["name"], []).append(row["verify"] / 1e9)
    return [Comparison(what, "s", "lower", found, summary=True) for what, found in samples.items()]


def measure(quick: bool) -> list[Comparison]:
    rounds = 2 if quick else 7
    return [*python(rounds, 0.05 if quick else 0.3), *javascript(rounds), *zig(2 if quick else 5)]


if __name__ == "__main__":
    main(measure, GOALS)
