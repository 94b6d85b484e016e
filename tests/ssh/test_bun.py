"""The Bun module's own tests, with the real Bun."""

from __future__ import annotations

from collections.abc import Callable

import bun_tests


def test_the_bun_tests_pass(need: Callable[[str], str]):
    bun_tests.run(need("bun"), "plue_ssh.test.ts")
