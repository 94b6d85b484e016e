"""A library that is not there, or holds no such function, is an error that says what to do."""

from __future__ import annotations

import pytest

from pyplue.errors import LibraryNotFoundError, PlueError
from pyplue.ffi import Library, Signature


def test_a_missing_library_is_named_with_the_cure():
    library = Library("plue_nothing", {"f": Signature()})
    with pytest.raises(LibraryNotFoundError, match=r"libplue_nothing.* is missing: install"):
        library.f()


def test_a_library_that_cannot_be_loaded_says_why(tmp_path):
    library = Library("plue_broken", {"f": Signature()})
    library.path = tmp_path / "libplue_broken.so"
    library.path.write_bytes(b"not a library")
    with pytest.raises(PlueError, match=r"libplue_broken.so cannot be loaded: "):
        library.f()


def test_a_function_outside_the_table_is_an_attribute_error():
    with pytest.raises(AttributeError, match="exports no 'system'"):
        Library("plue_jwt", {}).system()
