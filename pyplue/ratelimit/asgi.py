"""ASGI middleware, for Starlette, FastAPI and whatever else speaks ASGI 3.

    from pyplue.ratelimit import RateLimiter
    from pyplue.ratelimit.asgi import RateLimitMiddleware, by_address, by_subject

    app = RateLimitMiddleware(app, RateLimiter(100, "1m"), key=by_address())

Put the limit by address outside authentication and a limit by subject inside it. Before anybody
is known, addresses are all there is; afterwards a user should not be limited by who else is
behind the same address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from pyplue.ratelimit.clients import Clients
from pyplue.ratelimit.decision import Decision, Limiter
from pyplue.ratelimit.http import Header, Policy

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Key = Callable[[Scope], "str | None"]


def by_address(
    *, trusted_proxies: Iterable[str] = (), trusted_hops: int = 0, ipv6_prefix: int = 64
) -> Key:
    """A key function: the client's address; the arguments are those of `Clients`.

    The server must not do the same already: with uvicorn, `--no-proxy-headers`.
    """
    clients = Clients(
        trusted_proxies=trusted_proxies, trusted_hops=trusted_hops, ipv6_prefix=ipv6_prefix
    )

    def key(scope: Scope) -> str:
        client = scope.get("client")
        forwarded = [
            value.decode("latin-1")
            for name, value in scope["headers"]
            if name == b"x-forwarded-for"
        ]
        return clients.key(client[0] if client else None, forwarded)

    return key


def by_subject(subject: Callable[[Scope], str | None] | None = None) -> Key:
    """A key function: who was authenticated; requests of nobody are not held to the limit.

    Args:
        subject: Finds it in the scope. By default `scope["user"].identity` or
            `scope["user"].username` if `scope["user"].is_authenticated`, as Starlette's
            authentication leaves it, else `scope["state"]["subject"]`.
    """
    return subject or _starlette_subject


def _starlette_subject(scope: Scope) -> str | None:
    user = scope.get("user")
    if user is not None and getattr(user, "is_authenticated", False):
        try:
            return str(user.identity)
        except NotImplementedError:
            # Starlette's SimpleUser has a name and no identity.
            return str(user.username)
    subject = scope.get("state", {}).get("subject")
    return None if subject is None else str(subject)


class RateLimitMiddleware:
    """Holds requests to one limit and answers 429 to those over it.

    Args:
        app: The application inside.
        limiter: A `RateLimiter`, or what `RateLimiter.from_url` returns.
        key: Says for each request's scope whom to count it for; None: for nobody. By address
            without proxies where left out.
        policy: `name`, `count`, `failed` and `on_error` of `Policy`.
    """

    def __init__(
        self, app: App, limiter: Limiter, *, key: Key | None = None, **policy: Any
    ) -> None:
        self.app = app
        self.policy = Policy(limiter, **policy)
        self._key = key or by_address()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        key = self._key(scope)
        if key is None:
            return await self.app(scope, receive, send)
        decision = self.policy.decide(key)
        if decision is None and self.policy.on_error == "allow":
            return await self.app(scope, receive, send)
        if decision is None or not decision.allowed:
            return await self._refuse(scope, receive, send, decision)
        await self._pass(scope, receive, send, key, decision)

    async def _pass(
        self, scope: Scope, receive: Receive, send: Send, key: str, decision: Decision
    ) -> None:
        fields = _encoded(self.policy.headers(decision))
        # An application that fails before it answers has failed.
        status = 500

        async def send_with_fields(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _added(message.get("headers", ()), fields)}
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self.app(scope, receive, send_with_fields)
        finally:
            self.policy.settle(key, status)

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, decision: Decision | None
    ) -> None:
        kind = "http"
        if scope["type"] == "websocket":
            await receive()
            if "websocket.http.response" not in scope.get("extensions", {}):
                # Before it is accepted: the server answers 403.
                return await send({"type": "websocket.close", "code": 1013})
            kind = "websocket.http"
        status, fields, body = self.policy.refusal(decision)
        headers = _encoded(fields)
        await send({"type": f"{kind}.response.start", "status": status, "headers": headers})
        await send({"type": f"{kind}.response.body", "body": body})


def _encoded(fields: list[Header]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in fields]


def _added(
    headers: Iterable[tuple[bytes, bytes]], fields: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    """The response's own fields, and ours: where an inner limit has set the X-RateLimit fields
    they stay, while the RateLimit fields are lists."""
    own = list(headers)
    present = {name.lower() for name, _ in own if name.lower().startswith(b"x-")}
    return own + [field for field in fields if field[0] not in present]
