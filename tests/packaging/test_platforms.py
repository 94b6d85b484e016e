"""A wheel's tag promises the oldest system it runs on, so each triple must name that system."""

from __future__ import annotations

import pytest

from build_hooks.platforms import library_suffix, wheel_tag


@pytest.mark.parametrize(
    ("triple", "tag"),
    [
        ("x86_64-linux-gnu.2.17", "manylinux_2_17_x86_64"),
        ("x86_64-linux-gnu.2.28", "manylinux_2_28_x86_64"),
        ("aarch64-linux-gnu.2.17", "manylinux_2_17_aarch64"),
        ("x86_64-linux-musl", "musllinux_1_2_x86_64"),
        ("aarch64-linux-musl", "musllinux_1_2_aarch64"),
        ("aarch64-macos.13.0", "macosx_13_0_arm64"),
        ("x86_64-macos.13.0", "macosx_13_0_x86_64"),
    ],
)
def test_a_triple_becomes_its_tag(triple: str, tag: str):
    assert wheel_tag(triple) == tag


@pytest.mark.parametrize(
    "triple",
    ["x86_64-linux-gnu", "aarch64-macos", "x86_64-windows-gnu", "riscv64-linux-musl", "native", ""],
)
def test_a_triple_that_names_no_oldest_system_is_refused(triple: str):
    with pytest.raises(ValueError, match=r"use x86_64 or aarch64 with"):
        wheel_tag(triple)


def test_the_suffix_follows_the_target_before_the_host():
    assert library_suffix("aarch64-macos.13.0", "linux") == ".dylib"
    assert library_suffix("x86_64-linux-musl", "darwin") == ".so"
    assert library_suffix(None, "darwin") == ".dylib"
    assert library_suffix(None, "linux") == ".so"
