"""What a limiter answers, and the calls that every limiter has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Decision(NamedTuple):
    """The answer to one request. Times are in seconds; as a condition it is `allowed`."""

    allowed: bool
    limit: int
    """Requests per window."""
    remaining: int
    """Requests of cost 1 that would pass now."""
    retry_after: float
    """0 when allowed. Else the same request passes after that time and not a millisecond earlier,
    unless others are counted meanwhile; infinite when its cost exceeds the limit."""
    reset_after: float
    """Until the whole limit is available again."""
    table_full: bool = False
    """The table is full, the key is not in it, and the policy `when_full` has answered."""

    def __bool__(self) -> bool:
        return self.allowed


class Limiter(Protocol):
    """The calls that `RateLimiter` and what `RateLimiter.from_url` returns have in common."""

    max_requests: int
    window: float
    """In seconds."""
    waits: bool
    """Whether its calls ask another host and wait for the answer."""

    def check(self, key: str | bytes, cost: int = 1) -> bool: ...
    def hit(self, key: str | bytes, cost: int = 1) -> Decision: ...
    def peek(self, key: str | bytes, cost: int = 1) -> Decision: ...
    def refund(self, key: str | bytes, cost: int = 1, left: float | None = None) -> None: ...
    def check_many(self, keys: Sequence[str | bytes], cost: int = 1) -> list[bool]: ...
    def remaining(self, key: str | bytes) -> int: ...
    def reset(self, key: str | bytes) -> None: ...
    def cleanup(self) -> int: ...
    def close(self) -> None: ...
