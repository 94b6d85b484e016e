"""The Bun module's own tests, with the real Bun."""

from __future__ import annotations

from collections.abc import Callable

import bun_tests


def test_the_bun_tests_pass(need: Callable[[str], str]):
    need("vibetunnel-fwd")  # for detached sessions
    bun_tests.run(need("bun"), "plue_vt.test.ts")
