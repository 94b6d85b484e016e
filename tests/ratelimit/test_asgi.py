"""What only ASGI has: WebSockets, lifespan, and responses that are streamed."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import websockets
from ratelimit_servers import serve_asgi
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
    UnauthenticatedUser,
)
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from pyplue.ratelimit import RateLimiter
from pyplue.ratelimit.asgi import AsgiRequest, RateLimitMiddleware
from pyplue.ratelimit.client import ClientAddress
from pyplue.ratelimit.http import Limit, by_user


async def echo(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


def test_a_websocket_counts_once_when_it_opens_and_is_refused_with_429():
    app = Starlette(routes=[WebSocketRoute("/", echo)])
    app.add_middleware(RateLimitMiddleware, limits=[Limit("open", RateLimiter(2, 60))])
    with serve_asgi(app) as url:
        address = url.replace("http", "ws")
        for _ in range(2):
            with connect(address) as socket:
                socket.send("hello")
                assert socket.recv() == "hello"
                assert socket.response is not None
                assert socket.response.headers["ratelimit-policy"] == '"open";q=2;w=60'
        with pytest.raises(websockets.exceptions.InvalidStatus) as refused:
            connect(address)
    assert refused.value.response.status_code == 429
    assert int(refused.value.response.headers["retry-after"]) > 0
    assert b"quota-exceeded" in bytes(refused.value.response.body or b"")


def test_without_the_extension_a_websocket_is_closed_before_it_opens():
    sent: list[Any] = []

    async def run() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError("must not be reached")

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message)

        middleware = RateLimitMiddleware(app, [Limit("open", RateLimiter(0, 60))])
        scope = {"type": "websocket", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
        await middleware(scope, receive, send)

    asyncio.run(run())
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_what_is_neither_http_nor_websocket_passes_uncounted():
    events: list[str] = []

    async def run() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            events.append(scope["type"])

        await RateLimitMiddleware(app, [Limit("a", RateLimiter(0, 60))])(
            {"type": "lifespan"},
            None,
            None,  # type: ignore[arg-type]
        )

    asyncio.run(run())
    assert events == ["lifespan"]


def test_a_response_is_streamed_as_it_comes():
    more = asyncio.Event()

    async def stream(_: Request) -> StreamingResponse:
        async def parts() -> Any:
            yield b"first"
            await more.wait()
            yield b"second"

        return StreamingResponse(parts())

    async def go_on(_: Request) -> StreamingResponse:
        more.set()
        return StreamingResponse(iter(()))

    app = Starlette(routes=[Route("/", stream), Route("/more", go_on)])
    app.add_middleware(RateLimitMiddleware, limits=[Limit("a", RateLimiter(9, 60))])
    with serve_asgi(app) as url, httpx.stream("GET", url) as response:
        parts = response.iter_raw()
        assert next(parts) == b"first"
        httpx.get(f"{url}/more")
        assert next(parts) == b"second"


def test_a_client_that_leaves_stays_counted():
    """Whoever hangs up before the answer has had its try."""
    limiter = RateLimiter(1, 60)

    async def run() -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(60)

        limit = Limit("login", limiter, count="failed")
        scope = {"type": "http", "path": "/", "headers": [], "client": ("192.0.2.1", 1)}
        task = asyncio.ensure_future(
            RateLimitMiddleware(app, [limit])(scope, None, None)  # type: ignore[arg-type]
        )
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert limiter.remaining("login:192.0.2.1") == 0


class NamedUser(BaseUser):
    """As Starlette's documentation shows: without an identity."""

    is_authenticated = True
    display_name = "Carol"


class Account(NamedUser):
    identity = 17  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("user", "name"),
    [
        (SimpleUser("alice"), "alice"),
        (UnauthenticatedUser(), None),
        ("bob", "bob"),
        (None, None),
        (NamedUser(), "Carol"),
        (Account(), "17"),
        (SimpleNamespace(is_authenticated=True, display_name="Dave"), "Dave"),
        (SimpleNamespace(is_authenticated=False, display_name="", identity="x"), None),
    ],
)
def test_the_user_is_whom_authentication_found(user: Any, name: str | None):
    request = AsgiRequest({"type": "http", "user": user}, ClientAddress())
    assert by_user(request) == name


def test_two_users_of_one_name_behind_starlettes_authentication_are_two():
    class ByHeader(AuthenticationBackend):
        async def authenticate(self, conn: HTTPConnection) -> Any:
            account = Account()
            account.identity = conn.headers["x-account"]  # type: ignore[misc]
            return AuthCredentials(), account

    async def hello(_: Request) -> PlainTextResponse:
        return PlainTextResponse("hello")

    app = Starlette(routes=[Route("/", hello)])
    app.add_middleware(RateLimitMiddleware, limits=[Limit("u", RateLimiter(1, 60), key=by_user)])
    app.add_middleware(AuthenticationMiddleware, backend=ByHeader())
    with serve_asgi(app) as url:
        answers = [httpx.get(url, headers={"x-account": name}) for name in ("1", "2", "1")]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
