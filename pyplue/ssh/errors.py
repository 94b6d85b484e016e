"""What can go wrong when a server is set up. Its clients' errors are events, see `GitServer`."""

from __future__ import annotations

from pyplue.errors import PlueError


class SshError(PlueError, OSError):
    """The server cannot start or continue: port in use, host key unreadable, git not found."""


class SshConfigError(PlueError, ValueError):
    """A setting, a key line or a rule that the server does not accept."""


class SshNameError(SshConfigError):
    """A text that cannot be the name of a user, a repository or a branch."""


class SshRefusedError(PlueError, ValueError):
    """The store does not do that: a name is taken, a user unknown, a key too weak."""


class SshDatabaseError(SshError):
    """The database cannot be reached, or holds tables that do not fit."""
