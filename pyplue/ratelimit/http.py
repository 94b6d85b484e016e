"""What the ASGI and the WSGI middleware share: limits, requests, and what clients are told.

The fields `RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-11, the
problem type of a refusal its section 5.1, `Retry-After` RFC 9110 section 10.2.3.
`X-RateLimit-Limit`, `-Remaining` and `-Reset` (seconds since 1970) are what clients read today.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from pyplue.ratelimit.client import ClientAddress
from pyplue.ratelimit.decision import Decision, Limiter
from pyplue.ratelimit.errors import RateLimitError

logger = logging.getLogger("pyplue.ratelimit")

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
TOO_MANY_REQUESTS = 429
SERVICE_UNAVAILABLE = 503
# In characters; a key has 1024 bytes at most.
MAX_NAME_LENGTH = 200
# The largest Integer of a structured field, RFC 9651 section 3.3.1.
MAX_INTEGER = 999_999_999_999_999

Headers: TypeAlias = "list[tuple[str, str]]"


class Request(ABC):
    """What a key function may look at."""

    #: The ASGI scope or the WSGI environ, in which authentication leaves who the user is.
    scope: MutableMapping[str, Any]

    def __init__(self, scope: MutableMapping[str, Any], client: ClientAddress) -> None:
        self.scope = scope
        self._client = client

    @cached_property
    def address(self) -> str:
        """The client's address: "192.0.2.7", or "2001:db8::/64" for IPv6. See `ClientAddress`."""
        forwarded = self.header(self._client.header) if self._client.reads_header else None
        return self._client(self.peer, forwarded or "")

    @property
    @abstractmethod
    def method(self) -> str:
        """ASGI gives a WebSocket none: it is "GET"."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Decoded, without the query."""

    @property
    @abstractmethod
    def peer(self) -> str | None:
        """Where the connection comes from; None through a Unix socket."""

    @property
    @abstractmethod
    def user(self) -> str | None:
        """The user whom an authentication middleware before this one has found, or None."""

    @abstractmethod
    def header(self, name: str) -> str | None:
        """The value of a field, several joined with commas; None without one."""


Key: TypeAlias = "Callable[[Request], str | None]"


def by_address(request: Request) -> str | None:
    """Limits by the client's address: for what comes before authentication."""
    return request.address


def by_user(request: Request) -> str | None:
    """Limits by the authenticated user, and nobody else: for what comes after authentication."""
    return request.user


@dataclass(frozen=True)
class Limit:
    """One limit of a middleware.

    Attributes:
        name: What the client sees in its fields, and what keeps this limit's keys apart from
            others'.
        limiter: How many requests in which time.
        key: Whose request it is; None for a request that this limit does not concern.
        count: "all" requests, or only "failed" or "successful" ones. A request is counted when it
            comes and given back when its response shows that it should not have been, so that
            many at once cannot slip through together. With the default key "failed" counts every
            failed request of a client, a page that is not there too.
        failed: What a failed response is, by its status. An exception is a status of 500; a client
            that leaves before it has an answer stays counted.
        cost: How much of the limit a request takes.
    """

    name: str
    limiter: Limiter
    key: Key = by_address
    count: Literal["all", "failed", "successful"] = "all"
    failed: Callable[[int], bool] = lambda status: status >= 400
    cost: int = 1

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", self.name):
            raise ValueError(f"a limit's name is 1 to 64 letters, digits, '_.-', not {self.name!r}")
        if self.count not in ("all", "failed", "successful"):
            raise ValueError(f'count is "all", "failed" or "successful", not {self.count!r}')
        if self.cost < 1:
            raise ValueError(f"cost is 1 or more, not {self.cost}")

    def counts(self, status: int) -> bool:
        """Whether a request with this response is one to count."""
        return self.count == "all" or self.failed(status) == (self.count == "failed")


class Refusal(NamedTuple):
    """Why a request gets no further; `limit` is None when the limiter itself failed."""

    status: int
    limit: Limit | None = None
    decision: Decision | None = None


class Answer(NamedTuple):
    """A whole response."""

    status: int
    headers: Headers
    body: bytes


def problem(refusal: Refusal) -> tuple[str, bytes]:
    """A refusal as problem+json, RFC 9457."""
    content: dict[str, object] = {"title": _sentence(refusal), "status": refusal.status}
    if refusal.limit is not None:
        content = {"type": QUOTA_EXCEEDED, **content, "violated-policies": [refusal.limit.name]}
    return "application/problem+json", json.dumps(content).encode()


def plain(refusal: Refusal) -> tuple[str, bytes]:
    """A refusal as a line of text."""
    return "text/plain; charset=utf-8", f"{_sentence(refusal)}\n".encode()


def _sentence(refusal: Refusal) -> str:
    if refusal.decision is None:
        return "Requests cannot be counted at the moment"
    wait_s = refusal.decision.retry_after
    if math.isinf(wait_s):
        return "Request cannot be satisfied as assigned quota has been exceeded"
    return f"Too many requests: try again in {seconds(wait_s)} s"


def seconds(duration: float) -> int:
    """Whole seconds, rounded up: whoever waits for them never comes too early."""
    return min(math.ceil(duration), MAX_INTEGER)


def fields(
    limit: Limit, decision: Decision, *, ietf: bool = True, legacy: bool = True, now: float = 0
) -> Headers:
    """The fields that tell a client where it stands under one limit."""
    window_s = limit.limiter.window
    left_s = decision.retry_after or min(decision.reset_after, window_s)
    found: Headers = []
    if not decision.allowed and not math.isinf(decision.retry_after):
        found.append(("retry-after", str(seconds(decision.retry_after))))
    if ietf:
        window = f";w={seconds(window_s)}" if window_s == int(window_s) else ""
        left = "" if math.isinf(left_s) else f";t={seconds(left_s)}"
        found.append(("ratelimit-policy", f'"{limit.name}";q={decision.limit}{window}'))
        found.append(("ratelimit", f'"{limit.name}";r={decision.remaining}{left}'))
    if legacy:
        reset_s = (now or time.time()) + (window_s if math.isinf(left_s) else left_s)
        found.append(("x-ratelimit-limit", str(decision.limit)))
        found.append(("x-ratelimit-remaining", str(decision.remaining)))
        found.append(("x-ratelimit-reset", str(seconds(reset_s))))
    return found


def _key(limit: str, name: str) -> str:
    """Limits that share a table keep apart; a client may be named at any length."""
    if len(name) > MAX_NAME_LENGTH:
        name = f"sha256:{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"
    return f"{limit}:{name}"


class Passage:
    """A request that was let in: gives back what its response shows not to count, as far as it
    still counts when the response comes. `begun` is when `time.monotonic` said it was counted, or
    before."""

    def __init__(
        self, guard: Guard, counted: list[tuple[Limit, str, Decision]], begun: float
    ) -> None:
        self._guard = guard
        self._counted = counted
        self._begun = begun
        self._settled = False

    def settle(self, status: int) -> None:
        """Takes the status of the response, once."""
        if self._settled:
            return
        self._settled = True
        passed_s = time.monotonic() - self._begun
        for i, (limit, key, decision) in enumerate(self._counted):
            left_s = decision.reset_after - passed_s
            # Where the table was full nothing stands under this key, or what others counted.
            if limit.counts(status) or left_s <= 0 or decision.table_full:
                continue
            try:
                limit.limiter.refund(key, limit.cost, left_s)
            except RateLimitError as error:
                logger.error("%s: a request stays counted: %s", limit.name, error)
                continue
            remaining = min(decision.limit, decision.remaining + limit.cost)
            self._counted[i] = (limit, key, decision._replace(remaining=remaining))

    @property
    def reports_after_response(self) -> bool:
        """Whether the response decides anything."""
        return any(limit.count != "all" for limit, _, _ in self._counted)

    def headers(self, present: Iterable[tuple[str, str]] = ()) -> Headers:
        """The fields to add; `present` are those that an inner middleware has set."""
        return self._guard.headers([(limit, found) for limit, _, found in self._counted], present)


class Guard:
    """What both middlewares do with one request, free of their protocols.

    Args:
        limits: One or more, each with a name of its own.
        trusted_proxies: See `ClientAddress`, as for the next two.
        trusted_hops: How many proxies stand before this server.
        ipv6_prefix: The length of the network that counts as one IPv6 client.
        forwarded_header: Where the proxies write the client's address.
        answer: Makes the content type and the body of a refusal; a problem+json when left out.
        ietf_fields: Whether answers have `RateLimit` and `RateLimit-Policy`.
        x_ratelimit_fields: Whether answers have `X-RateLimit-*`.
        on_error: What a request gets whose limiter fails: "deny" is 503, "allow" lets it pass.
    """

    def __init__(
        self,
        limits: Sequence[Limit],
        *,
        trusted_proxies: Iterable[str] = (),
        trusted_hops: int = 0,
        ipv6_prefix: int = 64,
        forwarded_header: str = "x-forwarded-for",
        answer: Callable[[Refusal], tuple[str, bytes]] = problem,
        ietf_fields: bool = True,
        x_ratelimit_fields: bool = True,
        on_error: Literal["deny", "allow"] = "deny",
    ) -> None:
        if on_error not in ("deny", "allow"):
            raise ValueError(f'on_error is "deny" or "allow", not {on_error!r}')
        self.limits = list(limits)
        names = [limit.name for limit in self.limits]
        if not names or len(set(names)) < len(names):
            raise ValueError("limits: one or more, each with a name of its own")
        self.client = ClientAddress(
            trusted_proxies=trusted_proxies,
            trusted_hops=trusted_hops,
            ipv6_prefix=ipv6_prefix,
            header=forwarded_header,
        )
        self._answer = answer
        self._ietf = ietf_fields
        self._legacy = x_ratelimit_fields
        self._on_error = on_error

    @property
    def waits(self) -> bool:
        """Whether a limiter asks another host, which takes its time."""
        return any(limit.limiter.waits for limit in self.limits)

    def admit(self, request: Request) -> Passage | Answer:
        """Counts the request; an Answer when it is refused."""
        counted: list[tuple[Limit, str, Decision]] = []
        passage = Passage(self, counted, time.monotonic())
        for limit in self.limits:
            name = limit.key(request)
            if name is None:
                continue
            key = _key(limit.name, name)
            try:
                decision = limit.limiter.hit(key, limit.cost)
            except RateLimitError as error:
                logger.error("%s: a request cannot be counted: %s", limit.name, error)
                if self._on_error == "allow":
                    continue
                return self._refuse(request, passage, Refusal(SERVICE_UNAVAILABLE))
            if not decision.allowed:
                refusal = Refusal(TOO_MANY_REQUESTS, limit, decision)
                return self._refuse(request, passage, refusal)
            counted.append((limit, key, decision))
        return passage

    def headers(
        self, states: Sequence[tuple[Limit, Decision]], present: Iterable[tuple[str, str]] = ()
    ) -> Headers:
        """The fields of all these limits. Where a field can stand once only, it is of the limit
        with the least left, the inner middleware's included."""
        found: Headers = []
        tightest = min((state.remaining for _, state in states), default=0)
        inner = [value for name, value in present if name.lower() == "x-ratelimit-remaining"]
        legacy_done = not self._legacy or any(v.isdigit() and int(v) <= tightest for v in inner)
        for limit, decision in states:
            legacy = not legacy_done and decision.remaining == tightest
            legacy_done = legacy_done or legacy
            found += fields(limit, decision, ietf=self._ietf, legacy=legacy)
        return found

    def _refuse(self, request: Request, passage: Passage, refusal: Refusal) -> Answer:
        # The limits before the one that refuses have counted the request: this is its response.
        passage.settle(refusal.status)
        content_type, body = self._answer(refusal)
        headers = [
            ("content-type", content_type),
            ("content-length", str(len(body))),
            ("cache-control", "no-store"),
        ]
        if refusal.limit is not None and refusal.decision is not None:
            headers += self.headers([(refusal.limit, refusal.decision)])
        return Answer(refusal.status, headers, b"" if request.method == "HEAD" else body)
