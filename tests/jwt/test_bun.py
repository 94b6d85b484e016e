"""The tests of bun/plue_jwt.ts, run by a real Bun against the installed library."""

from __future__ import annotations

from collections.abc import Callable

import bun_tests

from pyplue import ffi


def test_the_bun_tests_pass(need: Callable[[str], str]):
    bun_tests.run(need("bun"), "plue_jwt.test.ts", PLUE_JWT_LIBRARY=str(ffi.jwt.path))
