"""What pyplue.ratelimit raises, and how the library's error codes become exceptions."""

from __future__ import annotations

import os

from pyplue import ffi
from pyplue.errors import PlueError


class RateLimitError(PlueError):
    """The base of all errors of this package. A request that is over a limit is none."""


class InvalidLimitError(RateLimitError, ValueError):
    """A limiter cannot be made from these numbers, or a request has no such cost."""


class KeyTooLongError(RateLimitError, ValueError):
    """A key has more than 1024 bytes: pass a hash of it."""


class LimiterClosedError(RateLimitError, ValueError):
    """The limiter was closed."""


class LimiterUnavailableError(RateLimitError, ConnectionError):
    """The server that counts for a limiter of `RateLimiter.from_url` does not answer."""


class SharedFileError(RateLimitError, OSError):
    """The file of a shared limiter cannot be used."""


_OPTIONS = "max_keys must be from 1 to 67108864"

_CAUSES: dict[str, tuple[type[RateLimitError], str]] = {
    "no_limiter": (LimiterClosedError, "the limiter is closed"),
    "zero_window": (InvalidLimitError, "the window must be longer than 0 ms"),
    "zero_cost": (InvalidLimitError, "the cost must be 1 or more"),
    "key_too_long": (KeyTooLongError, "a key has at most 1024 bytes: pass a hash of longer ones"),
    "options": (InvalidLimitError, _OPTIONS),
    "too_many_limiters": (RateLimitError, "4096 limiters are open in this process: close some"),
    "not_a_file": (SharedFileError, "not a regular file: name a file of its own"),
    "not_owner": (SharedFileError, "belongs to another user: use a file of your own"),
    "mode": (SharedFileError, "others may read or write it: chmod 600"),
    "format": (SharedFileError, "damaged, or of another version of pyplue: stop all, remove it"),
    "size": (SharedFileError, "made for another max_keys: use that, or stop all and remove it"),
    "too_many_processes": (SharedFileError, "4096 processes use it already"),
    "no_boot_id": (SharedFileError, "the system does not say when it was started: mount /proc"),
    "in_use": (
        SharedFileError,
        "processes that see another boot id count in it, as in a container with one of its own: "
        "give all the same /proc/sys/kernel/random/boot_id, or each its own file",
    ),
}


def last_error(path: str | None = None) -> RateLimitError:
    """The exception for this thread's last error in the library; `path` is the shared file's."""
    code = ffi.ratelimit.ratelimit_last_error()
    name = str(ffi.ratelimit.ratelimit_error_name(code), "ascii")
    if name == "system":
        number = ffi.ratelimit.ratelimit_last_errno()
        return SharedFileError(number, os.strerror(number), path)
    kind, text = _CAUSES.get(name, (RateLimitError, name))
    return kind(f"{path}: {text}" if path and kind is SharedFileError else text)
