"""What pyplue.vt raises. Every message says what to do."""

from __future__ import annotations

from pyplue.errors import PlueError


class VtError(PlueError):
    """The base of all errors of this package."""


class InvalidSessionIdError(VtError, ValueError):
    """A session id has 1 to 64 letters, digits, `_` or `-`."""


class SessionNotFoundError(VtError, LookupError):
    """There is no such session in the control directory."""


class SessionDataError(VtError, ValueError):
    """A session's directory or its session.json is not what a session leaves there."""


class SessionExistsError(VtError, ValueError):
    """A session with this id is running."""


class SpawnError(VtError, OSError):
    """A session could not be started."""


class SessionUnreachableError(VtError, ConnectionError):
    """Nobody listens at the session's socket."""


class SessionExitedError(SessionUnreachableError):
    """The session has ended: it takes no input, and its screen does not change any more."""


class SessionLostError(VtError, ChildProcessError):
    """The session's forwarder was killed: nobody knows the exit code."""


class WaitTimeoutError(VtError, TimeoutError):
    """What was waited for did not happen in time; the message shows the screen."""


class FrameTooLongError(VtError, ValueError):
    """A message is longer than a session's socket accepts."""


class CastError(VtError, ValueError):
    """A recording is not an asciicast."""


class MissingExtraError(VtError, ImportError):
    """An optional package is needed: `pip install 'pyplue[vt]'`."""
