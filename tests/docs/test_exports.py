"""The tables of exports in zig/*/README.md name every function of the library, and no other."""

from __future__ import annotations

import re

import pytest
from source_tree import ROOT

from pyplue import ffi

MODULES = {"jwt": "jwt", "ratelimit": "ratelimit", "ssh": "ssh", "vt": "vt-fwd"}


@pytest.mark.parametrize("name", ffi.LIBRARIES)
def test_the_table_has_every_export(name: str):
    """What is exported at all, and that headers agree, is for tests/ffi."""
    library = ffi.LIBRARIES[name]
    prefixes = {symbol.split("_")[0] + "_" for symbol in library.symbols}
    rows = [
        line
        for line in (ROOT / "zig" / MODULES[name] / "README.md").read_text().splitlines()
        if line.startswith("| `") and line.count("|") == 4
    ]
    code = [word for row in rows for word in re.findall(r"`(\w+)(?:\([^`]*)?`", row.split("|")[1])]
    named = [word for word in code if word.startswith(tuple(prefixes))]
    assert sorted(named) == sorted(library.symbols)
