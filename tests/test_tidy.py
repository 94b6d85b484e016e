"""House rules that no linter for Zig checks: short lines, files that say what they are."""

from __future__ import annotations

import pytest
from source_tree import ROOT

SOURCES = sorted(
    path
    for pattern in ("build.zig", "zig/*/*.zig", "zig/*/src/**/*.zig", "tests/fuzz/*.zig")
    for path in ROOT.glob(pattern)
)
LINE_LIMIT = 100


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_zig_file_opens_with_what_it_is_and_keeps_its_lines_short(path):
    lines = path.read_text().splitlines()
    assert lines[0].startswith("//! ")
    # `zig fmt` lines the columns of a table up; text in quotes may make them wide.
    long = [
        number for number, line in enumerate(lines, 1) if len(line) > LINE_LIMIT and '"' not in line
    ]
    assert not long, f"lines over {LINE_LIMIT} columns: {long}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_swallowed_error_says_why_it_cannot_matter(path):
    """`catch unreachable` and `catch {}` need a comment on the same line or just above."""
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines):
        if "catch unreachable" in line or "catch {}" in line:
            above = lines[number - 1].strip().startswith("//")
            assert above or "//" in line, f"line {number + 1}"
