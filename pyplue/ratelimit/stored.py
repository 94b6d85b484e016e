"""The calls of `RateLimiter` on a storage of the library limits: Redis, Valkey and others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.storage import storage_from_string
from limits.strategies import STRATEGIES

from pyplue.ratelimit.decision import Decision
from pyplue.ratelimit.errors import InvalidLimitError
from pyplue.ratelimit.window import window_ms

_STRATEGY_OF = {
    "sliding-window": "sliding-window-counter",
    "fixed-window": "fixed-window",
    "moving-window": "moving-window",
}


class StoredRateLimiter:
    """Made by `RateLimiter.from_url`. Each call is one or two round trips to the server.

    Where the server cannot be reached, calls raise `limits.errors.StorageError`: nobody is let
    through by an error.
    """

    def __init__(
        self,
        url: str,
        max_requests: int,
        window: float | str | timedelta,
        *,
        algorithm: str = "sliding-window",
        **options: Any,
    ) -> None:
        if algorithm not in _STRATEGY_OF:
            known = ", ".join(_STRATEGY_OF)
            raise InvalidLimitError(f"limits knows the algorithms {known}; not {algorithm!r}")
        milliseconds = window_ms(window)
        if milliseconds % 1000:
            raise InvalidLimitError(f"limits counts in whole seconds, not {window!r}")
        self.max_requests = max_requests
        self.window = milliseconds / 1000
        self.storage = storage_from_string(url, wrap_exceptions=True, **options)
        self._strategy = STRATEGIES[_STRATEGY_OF[algorithm]](self.storage)
        self._item: RateLimitItem = RateLimitItemPerSecond(
            max_requests, milliseconds // 1000, namespace="PLUE"
        )

    def check(self, key: str | bytes, cost: int = 1) -> bool:
        return self._strategy.hit(self._item, _text(key), cost=_positive(cost))

    def hit(self, key: str | bytes, cost: int = 1) -> Decision:
        return self._describe(key, cost, self.check(key, cost))

    def peek(self, key: str | bytes, cost: int = 1) -> Decision:
        allowed = self._strategy.test(self._item, _text(key), cost=_positive(cost))
        return self._describe(key, cost, allowed)

    def _describe(self, key: str | bytes, cost: int, allowed: bool) -> Decision:
        stats = self._strategy.get_window_stats(self._item, _text(key))
        left = max(0.0, stats.reset_time - time.time())
        retry = 0.0 if allowed else (float("inf") if cost > self.max_requests else left)
        remaining = max(0, stats.remaining)
        return Decision(allowed, self.max_requests, remaining, retry, left)

    def refund(self, key: str | bytes, cost: int = 1) -> None:
        """Not possible on all storages of limits, hence on none: what was counted stays."""

    def check_many(self, keys: Sequence[str | bytes], cost: int = 1) -> list[bool]:
        return [self.check(key, cost) for key in keys]

    def remaining(self, key: str | bytes) -> int:
        return max(0, self._strategy.get_window_stats(self._item, _text(key)).remaining)

    def reset(self, key: str | bytes) -> None:
        self._strategy.clear(self._item, _text(key))

    def cleanup(self) -> int:
        """0: the server removes what has expired."""
        return 0

    def close(self) -> None:
        """The client library closes its connections by itself."""


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode("latin-1")


def _positive(cost: int) -> int:
    if isinstance(cost, bool) or not isinstance(cost, int) or cost < 1:
        raise InvalidLimitError(f"cost must be 1 or more, not {cost!r}")
    return cost
