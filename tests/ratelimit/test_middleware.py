"""The ASGI and the WSGI middleware behind real servers, with a real HTTP client: the same tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from ratelimit_servers import serve_asgi, serve_wsgi

from pyplue.ratelimit import RateLimiter, asgi, wsgi
from pyplue.ratelimit.http import Guard, Limit, Passage, Request, by_user, plain

Serve = Callable[..., contextlib.AbstractContextManager[httpx.Client]]

# A request with ?status=401 is answered so, ?user=alice is authenticated as alice.
gate = threading.Event()


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/boom":
        raise RuntimeError("boom")
    if scope["path"] == "/wait":
        while not gate.is_set():
            await asyncio.sleep(0.01)
    status = int(httpx.QueryParams(scope["query_string"]).get("status", 200))
    await send({"type": "http.response.start", "status": status, "headers": [(b"x-app", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/boom":
        raise RuntimeError("boom")
    if environ["PATH_INFO"] == "/wait":
        gate.wait(10)
    status = httpx.QueryParams(environ["QUERY_STRING"]).get("status", "200")
    start_response(f"{status} As Wanted", [("X-App", "1")])
    return [b"hello"]


def asgi_authentication(app: Any) -> Any:
    async def authenticate(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            scope["user"] = httpx.QueryParams(scope["query_string"]).get("user")
        await app(scope, receive, send)

    return authenticate


def wsgi_authentication(app: Any) -> Any:
    def authenticate(environ: Any, start_response: Any) -> Any:
        environ["REMOTE_USER"] = httpx.QueryParams(environ["QUERY_STRING"]).get("user", "")
        return app(environ, start_response)

    return authenticate


@pytest.fixture(params=["asgi", "wsgi"])
def serve(request: pytest.FixtureRequest) -> Serve:
    """`serve(limits)`: a client of a server with them; `after=` come after authentication."""

    @contextlib.contextmanager
    def start(*limits: Limit, after: list[Limit] | None = None, **options: Any) -> Iterator[Any]:
        is_asgi = request.param == "asgi"
        module = asgi if is_asgi else wsgi
        app: Any = asgi_app if is_asgi else wsgi_app
        if after:
            app = module.RateLimitMiddleware(app, after)  # type: ignore[attr-defined]
            app = (asgi_authentication if is_asgi else wsgi_authentication)(app)
        if limits:
            app = module.RateLimitMiddleware(app, limits, **options)  # type: ignore[attr-defined]
        with (
            (serve_asgi if is_asgi else serve_wsgi)(app) as url,
            httpx.Client(base_url=url, verify=False) as http,
        ):
            yield http

    return start


def statuses(http: httpx.Client, count: int, path: str = "/", **headers: str) -> list[int]:
    return [http.get(path, headers=headers).status_code for _ in range(count)]


# ---- what a client sees --------------------------------------------------------------------------


def test_a_client_is_told_where_it_stands_and_is_refused(serve: Serve):
    with serve(Limit("address", RateLimiter(2, "1m", algorithm="fixed-window"))) as http:
        first = http.get("/")
        assert (first.status_code, first.text) == (200, "hello")
        assert first.headers["x-app"] == "1"
        assert first.headers["ratelimit-policy"] == '"address";q=2;w=60'
        assert first.headers["ratelimit"] == '"address";r=1;t=60'
        assert first.headers["x-ratelimit-limit"] == "2"
        assert first.headers["x-ratelimit-remaining"] == "1"
        assert int(first.headers["x-ratelimit-reset"]) == pytest.approx(time.time() + 60, abs=3)
        assert "retry-after" not in first.headers

        assert http.get("/").headers["ratelimit"].startswith('"address";r=0;t=')
        refused = http.get("/")
        assert refused.status_code == 429
        assert 57 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["ratelimit"] == f'"address";r=0;t={refused.headers["retry-after"]}'
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert refused.headers["cache-control"] == "no-store"
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json() == {
            "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
            "title": f"Too many requests: try again in {refused.headers['retry-after']} s",
            "status": 429,
            "violated-policies": ["address"],
        }


def test_whoever_waits_as_told_passes(serve: Serve):
    with serve(Limit("address", RateLimiter(1, "1s", algorithm="fixed-window"))) as http:
        assert statuses(http, 1) == [200]
        refused = http.get("/")
        assert refused.status_code == 429
        time.sleep(int(refused.headers["retry-after"]))
        assert statuses(http, 1) == [200]


def test_an_answer_can_be_plain_or_anything(serve: Serve):
    with serve(Limit("a", RateLimiter(0, 60)), answer=plain) as http:
        refused = http.get("/")
        assert refused.headers["content-type"].startswith("text/plain")
        assert refused.text == "Request cannot be satisfied as assigned quota has been exceeded\n"
        # No wait would help, so that none is named.
        assert "retry-after" not in refused.headers
        assert refused.headers["ratelimit"] == '"a";r=0'
    with serve(Limit("a", RateLimiter(0, 60)), answer=lambda _: ("image/x", b"\0\1")) as http:
        assert http.get("/").content == b"\0\1"
        assert http.head("/").status_code == 429
        assert http.head("/").headers["content-length"] == "2"


def test_fields_can_be_left_out(serve: Serve):
    with serve(Limit("a", RateLimiter(9, 60)), ietf_fields=False) as http:
        names = set(http.get("/").headers)
        assert "x-ratelimit-limit" in names and not names & {"ratelimit", "ratelimit-policy"}
    with serve(Limit("a", RateLimiter(9, 60)), x_ratelimit_fields=False) as http:
        assert not [name for name in http.get("/").headers if name.startswith("x-ratelimit")]


def test_a_window_of_part_of_a_second_is_not_named(serve: Serve):
    with serve(Limit("burst", RateLimiter(9, "500ms"))) as http:
        assert http.get("/").headers["ratelimit-policy"] == '"burst";q=9'


def test_several_limits_are_told_together_and_the_tightest_as_x_ratelimit(serve: Serve):
    limits = [Limit("day", RateLimiter(100, "1d")), Limit("minute", RateLimiter(2, "1m"))]
    with serve(*limits) as http:
        answer = http.get("/")
        assert answer.headers["ratelimit-policy"] == '"day";q=100;w=86400, "minute";q=2;w=60'
        assert re.fullmatch(r'"day";r=99;t=\d+, "minute";r=1;t=\d+', answer.headers["ratelimit"])
        assert answer.headers["x-ratelimit-limit"] == "2"
        assert statuses(http, 2) == [200, 429]
        assert http.get("/").json()["violated-policies"] == ["minute"]


# ---- who is limited ------------------------------------------------------------------------------


def test_a_client_cannot_give_itself_another_address(serve: Serve):
    with serve(Limit("address", RateLimiter(3, 60))) as http:
        for i in range(3):
            http.get("/", headers={"x-forwarded-for": f"192.0.2.{i}"})
        forged = {"x-forwarded-for": "192.0.2.77", "forwarded": "for=192.0.2.78"}
        assert http.get("/", headers={**forged, "x-real-ip": "192.0.2.79"}).status_code == 429


def test_behind_a_trusted_proxy_each_client_has_its_own_limit(serve: Serve):
    limit = Limit("address", RateLimiter(1, 60))
    with serve(limit, trusted_proxies=["127.0.0.0/8"]) as http:
        assert statuses(http, 2, **{"x-forwarded-for": "192.0.2.1"}) == [200, 429]
        assert statuses(http, 1, **{"x-forwarded-for": "192.0.2.2"}) == [200]
        # Mapped, with a port, and with an invention before it, it is the same client.
        for same in ("::ffff:192.0.2.1", "192.0.2.1:4711", "203.0.113.9, 192.0.2.1"):
            assert statuses(http, 1, **{"x-forwarded-for": same}) == [429]
        # All of a /64 is one client, the next /64 another.
        assert statuses(http, 1, **{"x-forwarded-for": "2001:db8::1"}) == [200]
        assert statuses(http, 1, **{"x-forwarded-for": "2001:db8::ffff"}) == [429]
        assert statuses(http, 1, **{"x-forwarded-for": "2001:db8:0:1::1"}) == [200]
        # Several fields are one list.
        several = [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "192.0.2.1")]
        assert http.get("/", headers=several).status_code == 429


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 answers on Linux only")
def test_next_to_a_trusted_proxy_a_peer_is_not_believed(serve: Serve):
    with serve(Limit("address", RateLimiter(1, 60)), trusted_proxies=["127.0.0.1"]) as http:
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        with httpx.Client(base_url=http.base_url, transport=transport) as other:
            assert statuses(other, 1, **{"x-forwarded-for": "192.0.2.1"}) == [200]
            assert statuses(other, 1, **{"x-forwarded-for": "192.0.2.2"}) == [429]
        assert statuses(http, 1, **{"x-forwarded-for": "192.0.2.1"}) == [200]


def test_garbage_and_huge_headers_neither_fail_nor_open(serve: Serve):
    with serve(Limit("address", RateLimiter(6, 60)), trusted_proxies=["127.0.0.0/8"]) as http:
        garbage = ["nonsense", ",,,,", "a" * 30_000, "1.2.3.4," * 3_000 + "x", "[::1", "%00"]
        for text in garbage:
            assert http.get("/", headers={"x-forwarded-for": text}).status_code == 200
        # All of it came from the proxy itself, as far as anybody can tell.
        assert http.get("/", headers={"x-forwarded-for": b"\xff"}).status_code == 429
        assert http.get("/").status_code == 429


def test_hops_are_counted_from_the_end(serve: Serve):
    with serve(Limit("address", RateLimiter(1, 60)), trusted_hops=2) as http:
        assert statuses(http, 1, **{"x-forwarded-for": "192.0.2.1, 10.0.0.2"}) == [200]
        assert statuses(http, 1, **{"x-forwarded-for": "8.8.8.8, 192.0.2.1, 10.0.0.3"}) == [429]


def test_users_are_limited_after_authentication_and_addresses_before(serve: Serve):
    address = Limit("address", RateLimiter(6, 60))
    user = Limit("user", RateLimiter(2, 60), key=by_user)
    with serve(address, after=[user]) as http:
        first = http.get("/?user=alice")
        assert first.headers["ratelimit-policy"].split(", ") == [
            '"user";q=2;w=60',
            '"address";q=6;w=60',
        ]
        assert first.headers["x-ratelimit-limit"] == "2"
        assert statuses(http, 2, "/?user=alice") == [200, 429]
        assert statuses(http, 1, "/?user=bob") == [200]
        # Whoever is nobody is limited by address only.
        anonymous = http.get("/")
        assert anonymous.status_code == 200
        assert anonymous.headers["ratelimit-policy"] == '"address";q=6;w=60'
        assert http.get("/?user=carol").status_code == 200
        last = http.get("/?user=dave")
        assert last.status_code == 429
        assert last.json()["violated-policies"] == ["address"]


def test_a_user_named_like_an_address_is_not_that_address(serve: Serve):
    shared = RateLimiter(1, 60)
    with serve(Limit("address", shared), after=[Limit("user", shared, key=by_user)]) as http:
        assert statuses(http, 1, "/?user=127.0.0.1") == [200]


def test_the_key_may_be_of_any_length_and_may_be_none(serve: Serve):
    def token(request: Request) -> str | None:
        return request.header("x-token")

    with serve(Limit("token", RateLimiter(1, 60), key=token)) as http:
        assert statuses(http, 2) == [200, 200]
        assert "ratelimit" not in http.get("/").headers
        assert statuses(http, 2, **{"x-token": "t" * 20_000}) == [200, 429]
        assert statuses(http, 1, **{"x-token": "t" * 19_999}) == [200]


def test_a_key_function_sees_method_path_and_headers(serve: Serve):
    seen: list[tuple[Any, ...]] = []

    def key(request: Request) -> str:
        seen.append((request.method, request.path, request.header("X-One"), request.header("none")))
        return request.address

    with serve(Limit("a", RateLimiter(9, 60), key=key)) as http:
        http.post("/caf%C3%A9?x=1", headers={"x-one": "1"})
    assert seen == [("POST", "/café", "1", None)]


# ---- what is counted -----------------------------------------------------------------------------


def test_only_failed_requests_are_counted(serve: Serve):
    with serve(Limit("login", RateLimiter(2, 60), count="failed")) as http:
        assert statuses(http, 5) == [200] * 5
        assert http.get("/").headers["ratelimit"].startswith('"login";r=2')
        assert statuses(http, 3, "/?status=401") == [401, 401, 429]
        assert statuses(http, 1) == [429]


def test_only_successful_requests_are_counted(serve: Serve):
    with serve(Limit("sign-up", RateLimiter(2, 60), count="successful")) as http:
        assert statuses(http, 4, "/?status=422") == [422] * 4
        assert statuses(http, 4) == [200, 200, 429, 429]


def test_what_has_failed_can_be_chosen(serve: Serve):
    limit = Limit("a", RateLimiter(1, 60), count="failed", failed=lambda status: status == 401)
    with serve(limit) as http:
        assert statuses(http, 3, "/?status=404") == [404] * 3
        assert statuses(http, 2, "/?status=401") == [401, 429]


@pytest.mark.parametrize(("count", "last"), [("failed", 429), ("successful", 500)])
def test_an_exception_is_a_failure(serve: Serve, count: Any, last: int):
    with serve(Limit("a", RateLimiter(1, 60), count=count)) as http:
        assert statuses(http, 2, "/boom") == [500, last]


def test_failed_logins_cannot_slip_through_at_once(serve: Serve):
    """A check before and a count after the response would let all of them pass."""
    gate.clear()
    with serve(Limit("login", RateLimiter(3, 60), count="failed")) as http:
        with ThreadPoolExecutor(10) as pool:
            tries = [pool.submit(http.get, "/wait?status=401") for _ in range(10)]
            while sum(attempt.done() for attempt in tries) < 7:
                time.sleep(0.01)
            gate.set()
        assert sorted(attempt.result().status_code for attempt in tries) == [401] * 3 + [429] * 7


@pytest.mark.parametrize(
    ("algorithm", "later"), [("fixed-window", 0), ("sliding-window", 10.5), ("gcra", 0)]
)
def test_an_answer_that_comes_late_gives_nothing_of_a_later_window_back(
    monkeypatch: pytest.MonkeyPatch, algorithm: Any, later: float
):
    now = 1000.0005
    times = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("pyplue.ratelimit.http.time", times)
    limiter = RateLimiter(2, 10, algorithm=algorithm, clock=times.monotonic)
    guard = Guard([Limit("login", limiter, count="failed")])

    def admit() -> Passage:
        environ = {"REQUEST_METHOD": "GET", "REMOTE_ADDR": "192.0.2.1"}
        passage = guard.admit(wsgi.WsgiRequest(environ, guard.client))
        assert isinstance(passage, Passage)
        return passage

    slow = admit()
    now += 10
    failed = admit()
    slow.settle(200)
    failed.settle(401)
    now += later
    assert limiter.remaining("login:192.0.2.1") == 1
    # In time, and without another's request between, all of it is given back.
    now += 100
    good = admit()
    now += 4
    good.settle(200)
    assert limiter.remaining("login:192.0.2.1") == 2


def test_what_is_counted_nowhere_is_not_given_back():
    limiter = RateLimiter(1, 60, max_keys=1, when_full="allow")
    assert limiter.check("other")
    guard = Guard([Limit("a", limiter, count="failed")])
    environ = {"REQUEST_METHOD": "GET", "REMOTE_ADDR": "192.0.2.1"}
    uncounted = guard.admit(wsgi.WsgiRequest(environ, guard.client))
    limiter.clear()
    assert limiter.check("a:192.0.2.1")
    assert isinstance(uncounted, Passage)
    uncounted.settle(200)
    assert limiter.remaining("a:192.0.2.1") == 0


def test_a_refusal_is_a_failed_response_to_the_limits_before_it(serve: Serve):
    successful = RateLimiter(2, 60)
    failed = RateLimiter(9, 60)
    limits = [
        Limit("sign-up", successful, count="successful"),
        Limit("errors", failed, count="failed"),
        Limit("all", RateLimiter(1, 60)),
    ]
    with serve(*limits) as http:
        assert statuses(http, 4) == [200, 429, 429, 429]
    assert successful.remaining("sign-up:127.0.0.1") == 1
    assert failed.remaining("errors:127.0.0.1") == 6


def test_a_request_can_cost_more(serve: Serve):
    with serve(Limit("a", RateLimiter(10, 60), cost=4)) as http:
        assert statuses(http, 3) == [200, 200, 429]


# ---- when the limiter fails ----------------------------------------------------------------------


def test_a_limiter_that_fails_lets_nobody_in(serve: Serve, caplog: pytest.LogCaptureFixture):
    limiter = RateLimiter(10, 60)
    limiter.close()
    with serve(Limit("a", limiter)) as http, caplog.at_level(logging.ERROR):
        refused = http.get("/")
    assert refused.status_code == 503
    assert json.loads(refused.content)["title"] == "Requests cannot be counted at the moment"
    assert "the limiter is closed" in caplog.text


def test_a_limiter_that_fails_lets_all_in_where_the_caller_chose_so(serve: Serve):
    limiter = RateLimiter(10, 60)
    limiter.close()
    with serve(Limit("a", limiter), on_error="allow") as http:
        assert statuses(http, 1) == [200]


def test_a_full_table_refuses_newcomers_and_keeps_who_is_at_the_limit(serve: Serve):
    limit = Limit("address", RateLimiter(1, 60, max_keys=64))
    with serve(limit, trusted_proxies=["127.0.0.0/8"]) as http:
        assert statuses(http, 2, **{"x-forwarded-for": "192.0.2.1"}) == [200, 429]
        flood = [
            http.get("/", headers={"x-forwarded-for": f"10.0.{i >> 8}.{i & 255}"})
            for i in range(600)
        ]
        assert {answer.status_code for answer in flood} == {200, 429}
        assert 1 <= int(flood[-1].headers["retry-after"]) <= 120
        assert statuses(http, 1, **{"x-forwarded-for": "192.0.2.1"}) == [429]


# ---- bad options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limit('na"me', RateLimiter(1, 1)), "name"),
        (lambda: Limit("", RateLimiter(1, 1)), "name"),
        (lambda: Limit("a", RateLimiter(1, 1), count="some"), "count"),  # type: ignore[arg-type]
        (lambda: Limit("a", RateLimiter(1, 1), cost=0), "cost"),
        (lambda: asgi.RateLimitMiddleware(asgi_app, []), "limits"),
        (
            lambda: wsgi.RateLimitMiddleware(wsgi_app, [Limit("a", RateLimiter(1, 1))] * 2),
            "name of its own",
        ),
        (
            lambda: wsgi.RateLimitMiddleware(
                wsgi_app, [Limit("a", RateLimiter(1, 1))], on_error="maybe"
            ),
            "on_error",
        ),
        (
            lambda: wsgi.RateLimitMiddleware(
                wsgi_app, [Limit("a", RateLimiter(1, 1))], trusted_hops=99
            ),
            "trusted_hops",
        ),
    ],
)
def test_bad_options_are_refused(make: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        make()
