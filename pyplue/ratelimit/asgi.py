"""Rate limits for ASGI applications: Starlette, FastAPI, Litestar, Quart and others.

    app.add_middleware(
        RateLimitMiddleware,
        limits=[Limit("address", RateLimiter(100, "1m"))],
        trusted_proxies=["10.0.0.0/8"],
    )

Pure ASGI: responses are streamed as they are, nothing is buffered. Two of them in one stack limit
by address before authentication and by user after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias, TypeVar

from pyplue.ratelimit.http import Answer, Guard, Headers, Limit, Passage, Request

Scope: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[MutableMapping[str, Any]]]"
Send: TypeAlias = "Callable[[MutableMapping[str, Any]], Awaitable[None]]"
App: TypeAlias = "Callable[[Scope, Receive, Send], Awaitable[None]]"
Result = TypeVar("Result")

# RFC 6455 section 7.4.1: the message violates a policy.
POLICY_VIOLATION = 1008


class AsgiRequest(Request):
    """A request as the scope describes it."""

    @property
    def method(self) -> str:
        return str(self.scope.get("method", "GET"))

    @property
    def path(self) -> str:
        return str(self.scope["path"])

    @property
    def peer(self) -> str | None:
        client = self.scope.get("client")
        return client[0] if client else None

    @property
    def user(self) -> str | None:
        user = self.scope.get("user")
        if user is None or isinstance(user, str):
            return user
        if not user.is_authenticated:
            return None
        # Two users may show one name, and a user may change it. Starlette's BaseUser has no
        # identity of its own, other classes may lack even the attribute.
        try:
            identity = getattr(user, "identity", None)
        except NotImplementedError:
            identity = None
        return str(user.display_name if identity is None else identity)

    def header(self, name: str) -> str | None:
        wanted = name.lower().encode("latin-1")
        values = [value for key, value in self.scope["headers"] if key.lower() == wanted]
        return b",".join(values).decode("latin-1") if values else None


class RateLimitMiddleware:
    """Refuses requests over a limit and tells all clients where they stand.

    Args:
        app: The application behind it.
        limits: Checked in their order; the first one that is exceeded answers.
        options: See `Guard` in pyplue.ratelimit.http: trusted_proxies, trusted_hops, ipv6_prefix,
            forwarded_header, answer, ietf_fields, x_ratelimit_fields, on_error.

    A WebSocket counts as one request when it is opened.
    """

    def __init__(self, app: App, limits: Sequence[Limit], **options: Any) -> None:
        self.app = app
        self.guard = Guard(limits, **options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        passage = await self._run(self.guard.admit, AsgiRequest(scope, self.guard.client))
        if isinstance(passage, Answer):
            await _refuse(passage, scope, receive, send)
            return

        async def send_with_fields(message: MutableMapping[str, Any]) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                await self._settle(passage, message["status"])
                _add_fields(message, passage)
            elif message["type"] == "websocket.accept":
                await self._settle(passage, 101)
                _add_fields(message, passage)
            await send(message)

        try:
            await self.app(scope, receive, send_with_fields)
        except Exception:
            await self._settle(passage, 500)
            raise

    async def _settle(self, passage: Passage, status: int) -> None:
        if passage.reports_after_response:
            await self._run(passage.settle, status)

    async def _run(self, function: Callable[..., Result], argument: Any) -> Result:
        if self.guard.waits:
            return await asyncio.to_thread(function, argument)
        return function(argument)


def _add_fields(message: MutableMapping[str, Any], passage: Passage) -> None:
    present = [(name, value) for name, value in message.get("headers", ())]
    added = passage.headers((n.decode("latin-1"), v.decode("latin-1")) for n, v in present)
    replaced = {name.encode() for name, _ in added if name.startswith("x-ratelimit-")}
    kept = [(name, value) for name, value in present if name.lower() not in replaced]
    message["headers"] = kept + _encoded(added)


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


async def _refuse(answer: Answer, scope: Scope, receive: Receive, send: Send) -> None:
    prefix = ""
    if scope["type"] == "websocket":
        await receive()
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return
        prefix = "websocket."
    start = {"status": answer.status, "headers": _encoded(answer.headers)}
    await send({"type": f"{prefix}http.response.start", **start})
    await send({"type": f"{prefix}http.response.body", "body": answer.body})
