"""The Bun module's own tests, the Hono middleware among them, with the real Bun."""

from __future__ import annotations

from collections.abc import Callable

import bun_tests


def test_the_bun_tests_pass(need: Callable[[str], str]):
    bun_tests.run(need("bun"), "plue_ratelimit.test.ts")
