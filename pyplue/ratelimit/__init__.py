"""Rate limits in memory, in the native library plue_ratelimit.

    >>> from pyplue.ratelimit import RateLimiter
    >>> limiter = RateLimiter(2, "1m")  # 2 requests a minute for each key
    >>> [limiter.check("192.0.2.1") for _ in range(3)]
    [True, True, False]

`RateLimiter(..., shared="/run/app/limits")` counts for all processes of a host together, and
`RateLimiter.from_url("redis://...")` keeps the same calls on Redis or Valkey. Middleware is in
`pyplue.ratelimit.asgi` and `pyplue.ratelimit.wsgi`; importing `pyplue.ratelimit.storage` makes the
scheme `plue://` known to the library limits, and with it to Flask-Limiter and SlowAPI.
"""

from __future__ import annotations

from pyplue.ratelimit.decision import Decision, Limiter
from pyplue.ratelimit.errors import (
    KeyTooLongError,
    LimiterClosedError,
    LimiterUnavailableError,
    RateLimitError,
    SharedFileError,
)
from pyplue.ratelimit.limiter import RateLimiter

__all__ = [
    "Decision",
    "KeyTooLongError",
    "Limiter",
    "LimiterClosedError",
    "LimiterUnavailableError",
    "RateLimitError",
    "RateLimiter",
    "SharedFileError",
]
