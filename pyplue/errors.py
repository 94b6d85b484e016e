"""The exceptions that all of pyplue's modules share.

Each module derives its own from `PlueError` and from the built-in that fits (ValueError, OSError).
"""

from __future__ import annotations


class PlueError(Exception):
    """Base of every exception that pyplue raises on its own account."""


class LibraryNotFoundError(PlueError, OSError):
    """A native library is missing from the installation or cannot be loaded."""
