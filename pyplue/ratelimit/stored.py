"""The calls of `RateLimiter` on a storage of the library limits: Redis, Valkey and others.

What a request does to the counters is limits' own code, on Redis and Valkey a script that the
server runs as one step. Read here is what is left, and when to come again.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

from limits.errors import ConfigurationError, StorageError
from limits.storage import SlidingWindowCounterSupport, Storage, storage_from_string

from pyplue.ratelimit.decision import Decision
from pyplue.ratelimit.errors import InvalidLimitError, LimiterUnavailableError
from pyplue.ratelimit.window import window_ms

# Longer keys are replaced by a hash; in bytes.
MAX_KEY_BYTES = 1024
HASHED = "sha256:"
# memcached takes 250 bytes without blanks, of which limits needs some for what it appends; its
# client takes ASCII. Of any other name it would say that it cannot be counted.
MEMCACHED_NAME = re.compile("[!-~]{1,220}")
# A server that does not answer must not hold up those that wait for it.
TIMEOUTS_S = {"socket_timeout": 2.0, "socket_connect_timeout": 2.0}
# Redis tells how long a key lives rounded to seconds, up to half a second too short.
ROUNDING_S = 0.5
# The counters are weighed in milliseconds: a moment later than equal is less.
MILLISECOND_S = 0.001


class StoredRateLimiter:
    """Made by `RateLimiter.from_url`. Each call is one to three round trips to the server.

    Args:
        url: One that limits knows: "redis://host:6379/0", "rediss://", "valkey://",
            "redis+cluster://", "memcached://" and others.
        max_requests: As for `RateLimiter`.
        window: As for `RateLimiter`, in whole seconds.
        algorithm: "sliding-window" or "fixed-window".
        options: For the client library; with Redis and Valkey `socket_timeout` and
            `socket_connect_timeout` are 2 seconds when left out.

    Raises:
        InvalidLimitError: (a ValueError) The URL or a number is not one that limits can take.
        LimiterUnavailableError: (a ConnectionError) by every call that does not reach the server.
            Nobody is let through by an error.
    """

    waits = True

    def __init__(
        self,
        url: str,
        max_requests: int,
        window: float | str | timedelta,
        *,
        algorithm: str = "sliding-window",
        **options: Any,
    ) -> None:
        if algorithm not in ("sliding-window", "fixed-window"):
            raise InvalidLimitError(
                f"limits knows sliding-window and fixed-window, not {algorithm!r}"
            )
        milliseconds = window_ms(window)
        if milliseconds % 1000:
            raise InvalidLimitError(f"limits counts in whole seconds, not {window!r}")
        if isinstance(max_requests, bool) or not isinstance(max_requests, int) or max_requests < 0:
            raise InvalidLimitError(f"max_requests must be 0 or more, not {max_requests!r}")
        self.max_requests = max_requests
        self.window = milliseconds / 1000
        self.algorithm = algorithm
        self._window_s = milliseconds // 1000
        self._prefix = f"plue/{algorithm}/{max_requests}/{self._window_s}/"
        scheme = urlsplit(url).scheme
        self._names = MEMCACHED_NAME if scheme.startswith("memcached") else None
        if scheme.startswith(("redis", "valkey")):
            options = {**TIMEOUTS_S, **options}
        try:
            storage = storage_from_string(url, wrap_exceptions=True, **options)
        except ConfigurationError as error:
            raise InvalidLimitError(f"{scheme}: {error}") from error
        if not isinstance(storage, Storage) or not isinstance(storage, SlidingWindowCounterSupport):
            raise InvalidLimitError(f"{scheme}: not a storage that can be used without async")
        self._storage: Storage = storage
        self._counters: SlidingWindowCounterSupport = storage

    def check(self, key: str | bytes, cost: int = 1) -> bool:
        """As `RateLimiter.check`."""
        _check_cost(cost)
        if cost > self.max_requests:
            return False
        name, rule = self._name(key), (self.max_requests, self._window_s)
        with _reached():
            if self.algorithm == "sliding-window":
                return self._counters.acquire_sliding_window_entry(name, *rule, cost)
            count = self._storage.incr(name, self._window_s, cost)
            if count <= self.max_requests:
                return True
            if count - cost < self.max_requests:
                # What is left is for requests that cost less.
                self._storage.incr(name, self._window_s, -cost)
            return False

    def hit(self, key: str | bytes, cost: int = 1) -> Decision:
        """As `RateLimiter.hit`."""
        allowed = self.check(key, cost)
        state = self._describe(key, cost)
        if allowed:
            return state._replace(allowed=True, retry_after=0.0)
        # What has expired between the two calls makes no difference to this request.
        return state._replace(allowed=False, retry_after=max(state.retry_after, MILLISECOND_S))

    def peek(self, key: str | bytes, cost: int = 1) -> Decision:
        """As `RateLimiter.peek`."""
        _check_cost(cost)
        return self._describe(key, cost)

    def refund(self, key: str | bytes, cost: int = 1, left: float | None = None) -> None:
        """As `RateLimiter.refund`. What the window before this one holds stays counted."""
        _check_cost(cost)
        name = self._name(key)
        # What may be left when the request's own window is over: a sliding window goes on to weigh
        # it, a fixed one's end is rounded, and then told half a second later.
        past = self.window if self.algorithm == "sliding-window" else 2 * ROUNDING_S
        if left is not None and left <= past:
            return
        with _reached():
            if self.algorithm == "fixed-window":
                if self._storage.get(name) >= cost:
                    self._storage.incr(name, self._window_s, -cost)
            elif self._counters.get_sliding_window(name, self._window_s)[2] >= cost:
                rule = (self.max_requests, self._window_s)
                self._counters.acquire_sliding_window_entry(name, *rule, -cost)

    def check_many(self, keys: Sequence[str | bytes], cost: int = 1) -> list[bool]:
        """As `RateLimiter.check_many`, one key after the other."""
        return [self.check(key, cost) for key in keys]

    def remaining(self, key: str | bytes) -> int:
        """As `RateLimiter.remaining`."""
        return self._describe(key, 1).remaining

    def reset(self, key: str | bytes) -> None:
        """As `RateLimiter.reset`."""
        with _reached():
            if self.algorithm == "fixed-window":
                self._storage.clear(self._name(key))
            else:
                self._counters.clear_sliding_window(self._name(key), self._window_s)

    def cleanup(self) -> int:
        """0: the server removes what has expired."""
        return 0

    def close(self) -> None:
        """Closes the connections, where the client library can."""
        client = getattr(self._storage, "storage", None)
        close = getattr(client, "close", None)
        if close is not None:
            close()

    def __enter__(self) -> StoredRateLimiter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        scheme = type(self._storage).__name__
        return f"RateLimiter({self.max_requests}, {self.window}, {self.algorithm!r}, {scheme})"

    def _name(self, key: str | bytes) -> str:
        if not isinstance(key, (str, bytes)):
            raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
        data = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
        if len(data) <= MAX_KEY_BYTES:
            try:
                text = data.decode()
            except UnicodeDecodeError:
                text = HASHED
            name = self._prefix + text
            # What looks like a hash is hashed too: nobody counts under another's.
            if not text.startswith(HASHED) and (not self._names or self._names.fullmatch(name)):
                return name
        return f"{self._prefix}{HASHED}{hashlib.sha256(data).hexdigest()}"

    def _describe(self, key: str | bytes, cost: int) -> Decision:
        name = self._name(key)
        limit = self.max_requests
        with _reached():
            if self.algorithm == "sliding-window":
                counters = self._counters.get_sliding_window(name, self._window_s)
                state = sliding_window(limit, self._window_s, cost, *counters)
            else:
                count = self._storage.get(name)
                left_s = max(0.0, self._storage.get_expiry(name) - time.time())
                reset_s = left_s + ROUNDING_S if count else 0.0
                remaining = max(0, limit - count)
                wait_s = 0.0 if cost <= remaining else reset_s
                state = Decision(not wait_s, limit, remaining, wait_s, reset_s)
        if cost > limit:
            state = state._replace(allowed=False, retry_after=math.inf)
        return state


def sliding_window(
    limit: int,
    window_s: int,
    cost: int,
    previous: int,
    previous_left_s: float,
    current: int,
    current_left_s: float,
) -> Decision:
    """What limits' two counters mean for a request of `cost`: it passes while
    floor(previous * previous_left / window) + current + cost <= limit."""
    used = math.floor(previous * previous_left_s / window_s) + current
    if not previous and not current:
        return Decision(cost <= limit, limit, limit, 0.0, 0.0)
    reset_s = current_left_s if current else previous_left_s
    if used + cost <= limit:
        return Decision(True, limit, limit - used, 0.0, reset_s)
    # The weighed count must fall below this, that it may be rounded down to what fits.
    below = limit - cost + 1
    if current < below:
        wait_s = previous_left_s - (below - current) * window_s / previous
    else:
        shift_s = max(0.0, current_left_s - window_s)
        wait_s = shift_s + max(0.0, window_s - below * window_s / current)
    return Decision(False, limit, max(0, limit - used), wait_s + MILLISECOND_S, reset_s)


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise LimiterUnavailableError(f"the limiter's storage: {error.storage_error}") from error


def _check_cost(cost: int) -> None:
    if isinstance(cost, bool) or not isinstance(cost, int):
        raise TypeError(f"cost must be an int, not {type(cost).__name__}")
    if cost < 1:
        raise InvalidLimitError(f"cost must be 1 or more, not {cost}")
