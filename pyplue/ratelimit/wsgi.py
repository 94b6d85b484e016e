"""WSGI middleware, for Flask, Django and whatever else speaks WSGI (PEP 3333).

    from pyplue.ratelimit import RateLimiter
    from pyplue.ratelimit.wsgi import RateLimitMiddleware

    app.wsgi_app = RateLimitMiddleware(app.wsgi_app, RateLimiter(100, "1m"))

With several worker processes give the limiter a file to share:
`RateLimiter(100, "1m", shared="/run/app/limits")`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from types import TracebackType
from typing import Any

from pyplue.ratelimit.clients import Clients
from pyplue.ratelimit.decision import Limiter
from pyplue.ratelimit.http import Policy

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Key = Callable[[Environ], "str | None"]
_Failure = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None


def by_address(
    *, trusted_proxies: Iterable[str] = (), trusted_hops: int = 0, ipv6_prefix: int = 64
) -> Key:
    """A key function: the client's address; the arguments are those of `Clients`."""
    clients = Clients(
        trusted_proxies=trusted_proxies, trusted_hops=trusted_hops, ipv6_prefix=ipv6_prefix
    )

    def key(environ: Environ) -> str:
        forwarded = environ.get("HTTP_X_FORWARDED_FOR")
        return clients.key(environ.get("REMOTE_ADDR"), [forwarded] if forwarded else [])

    return key


def by_subject(variable: str = "REMOTE_USER") -> Key:
    """A key function: who was authenticated, as a server or middleware outside this one leaves it
    in `environ[variable]`; requests of nobody are not held to the limit."""

    def key(environ: Environ) -> str | None:
        subject = environ.get(variable)
        return str(subject) if subject else None

    return key


class RateLimitMiddleware:
    """Holds requests to one limit and answers 429 to those over it.

    Args:
        app: The application inside.
        limiter: A `RateLimiter`, or what `RateLimiter.from_url` returns.
        key: Says for each request's environ whom to count it for; None: for nobody. By address
            without proxies where left out.
        policy: `name`, `count`, `failed` and `on_error` of `Policy`.
    """

    def __init__(
        self, app: App, limiter: Limiter, *, key: Key | None = None, **policy: Any
    ) -> None:
        self.app = app
        self.policy = Policy(limiter, **policy)
        self._key = key or by_address()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        key = self._key(environ)
        if key is None:
            return self.app(environ, start_response)
        decision = self.policy.decide(key)
        if decision is None and self.policy.on_error == "allow":
            return self.app(environ, start_response)
        if decision is None or not decision.allowed:
            status, headers, body = self.policy.refusal(decision)
            start_response(f"{status} {HTTPStatus(status).phrase}", headers)
            return [body]
        fields = self.policy.headers(decision)
        response = _Response(self.policy, key)

        def start_with_fields(
            status: str, headers: list[tuple[str, str]], failure: _Failure = None
        ) -> Callable[[bytes], object]:
            response.status = int(status.split(" ", 1)[0])
            present = {name.lower() for name, _ in headers if name.lower().startswith("x-")}
            added = [field for field in fields if field[0].lower() not in present]
            if failure is None:
                return start_response(status, [*headers, *added])
            return start_response(status, [*headers, *added], failure)

        try:
            response.body = self.app(environ, start_with_fields)
        except BaseException:
            response.settle()
            raise
        return response


class _Response:
    """The body of the application inside, which settles the count when it is closed."""

    def __init__(self, policy: Policy, key: str) -> None:
        # An application that fails before it answers has failed.
        self.status = 500
        self.body: Iterable[bytes] = ()
        self._policy = policy
        self._key = key
        self._settled = False

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def close(self) -> None:
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        finally:
            self.settle()

    def settle(self) -> None:
        if not self._settled:
            self._settled = True
            self._policy.settle(self._key, self.status)
