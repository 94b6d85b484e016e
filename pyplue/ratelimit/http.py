"""What the ASGI and the WSGI middleware share: one limit, its verdict, and the HTTP fields."""

from __future__ import annotations

import functools
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pyplue.errors import PlueError
from pyplue.ratelimit.decision import Decision, Limiter

Counts = Literal["all", "failed", "successful"]
Header = tuple[str, str]


@dataclass(frozen=True)
class Policy:
    """One limit that requests are held to.

    Args:
        limiter: A `RateLimiter`, or what `RateLimiter.from_url` returns.
        name: Of the policy, in the RateLimit fields.
        count: "all" requests, only "failed" ones (for logins), or only "successful" ones. Each
            request counts while it runs and is taken back at its end if it should not.
        failed: Whether a response of that status is a failed one; 400 and above by default.
        on_error: What happens when the limiter fails, as when Redis is down: "deny" answers 503,
            "allow" lets the request pass.
    """

    limiter: Limiter
    name: str = "default"
    count: Counts = "all"
    failed: Callable[[int], bool] = lambda status: status >= 400
    on_error: Literal["deny", "allow"] = "deny"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[ !#-\[\]-~]+", self.name):
            raise ValueError(f"a policy's name is of printable ASCII without quotes: {self.name!r}")
        if self.count not in ("all", "failed", "successful"):
            raise ValueError(f'count is "all", "failed" or "successful", not {self.count!r}')

    def decide(self, key: str | bytes) -> Decision | None:
        """The verdict on a request, which is counted; None when the limiter failed."""
        try:
            return self.limiter.hit(key)
        except _failures():
            return None

    def settle(self, key: str | bytes, status: int) -> None:
        """At the end of a request that passed: takes it back if such ones do not count."""
        if self.count == "all" or (self.count == "failed") == self.failed(status):
            return
        try:
            self.limiter.refund(key)
        except _failures():
            # It stays counted: the stricter of the two.
            return

    def headers(self, decision: Decision) -> list[Header]:
        """The fields for a response.

        `RateLimit-Policy` and `RateLimit` are those of draft-ietf-httpapi-ratelimit-headers-11
        (sections 3 and 4), `Retry-After` is RFC 9110's (10.2.3, seconds); the X-RateLimit fields,
        with the time of reset in Unix seconds, are what clients of older APIs read.
        """
        wait = decision.reset_after if decision.allowed else decision.retry_after
        seconds = 0 if math.isinf(wait) else math.ceil(wait)
        window = math.ceil(self.limiter.window)
        reset = math.ceil(time.time() + decision.reset_after)
        fields = [
            ("RateLimit-Policy", f'"{self.name}";q={decision.limit};w={window}'),
            ("RateLimit", f'"{self.name}";r={decision.remaining};t={seconds}'),
            ("X-RateLimit-Limit", str(decision.limit)),
            ("X-RateLimit-Remaining", str(decision.remaining)),
            ("X-RateLimit-Reset", str(reset)),
        ]
        if not decision.allowed and not math.isinf(wait):
            fields.append(("Retry-After", str(max(1, seconds))))
        return fields

    def refusal(self, decision: Decision | None) -> tuple[int, list[Header], bytes]:
        """Status, fields and body of the answer to a request that does not pass."""
        if decision is None:
            body: dict[str, Any] = {
                "title": "The rate limiter is not available",
                "status": 503,
            }
            fields: list[Header] = []
        else:
            body = {
                "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
                "title": "Too many requests",
                "status": 429,
                "violated-policies": [self.name],
            }
            fields = self.headers(decision)
        data = json.dumps(body).encode()
        fields.append(("Content-Type", "application/problem+json"))
        fields.append(("Content-Length", str(len(data))))
        return int(body["status"]), fields, data


@functools.cache
def _failures() -> tuple[type[Exception], ...]:
    """What a limiter raises that cannot do its work; limits is not always installed."""
    try:
        from limits.errors import StorageError
    except ImportError:
        return (PlueError, OSError)
    return (PlueError, OSError, StorageError)
