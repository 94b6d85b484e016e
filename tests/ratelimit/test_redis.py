"""`RateLimiter.from_url`: the same calls on a real Redis, through limits."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import random
import socket
import time
from typing import Any

import httpx
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from ratelimit_servers import serve_asgi, serve_wsgi

from pyplue.errors import PlueError
from pyplue.ratelimit import LimiterUnavailableError, RateLimiter, asgi, wsgi
from pyplue.ratelimit.http import Limit
from pyplue.ratelimit.stored import sliding_window

ALGORITHMS = ["fixed-window", "sliding-window"]


@pytest.fixture(params=["redis", "valkey"])
def url(request: pytest.FixtureRequest, redis_server: str) -> str:
    """An empty database, through the client library of either name."""
    redis.Redis.from_url(redis_server).flushall()
    return redis_server.replace("redis", request.param, 1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_calls_are_those_of_a_limiter_in_memory(url: str, algorithm: str):
    with RateLimiter.from_url(url, 3, "1m", algorithm=algorithm) as limiter:  # type: ignore[attr-defined]
        assert (limiter.max_requests, limiter.window) == (3, 60)
        assert limiter.peek("k").remaining == limiter.remaining("k") == 3
        assert limiter.peek("k").reset_after == 0
        first = limiter.hit("k")
        assert (first.allowed, first.limit, first.remaining, first.retry_after) == (True, 3, 2, 0)
        assert 50 < first.reset_after <= 120
        assert limiter.check("k") and limiter.check(b"k") and not limiter.check("k")
        refused = limiter.hit("k")
        assert not refused and refused.remaining == 0
        assert 50 < refused.retry_after <= refused.reset_after <= 120
        assert limiter.check_many(["k", "other", "other"]) == [False, True, True]
        limiter.reset("k")
        assert limiter.remaining("k") == 3
        assert limiter.cleanup() == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cost_and_refund(url: str, algorithm: str):
    limiter = RateLimiter.from_url(url, 10, 60, algorithm=algorithm)
    assert limiter.check("k", cost=7)
    assert not limiter.check("k", cost=4)
    # A refused request is not counted.
    assert limiter.remaining("k") == 3
    assert limiter.check("k", cost=3)
    limiter.refund("k", cost=3)
    assert limiter.remaining("k") == 3
    assert limiter.hit("k", cost=11).retry_after == math.inf
    limiter.refund("nobody")
    assert limiter.remaining("nobody") == 10


@pytest.mark.parametrize(("algorithm", "past"), [("fixed-window", 1), ("sliding-window", 60)])
def test_a_refund_comes_from_the_requests_own_window(url: str, algorithm: str, past: float):
    limiter = RateLimiter.from_url(url, 10, 60, algorithm=algorithm)
    decision = limiter.hit("k", cost=3)
    limiter.refund("k", 3, past)
    assert limiter.remaining("k") == 7
    limiter.refund("k", 3, decision.reset_after)
    assert limiter.remaining("k") == 10


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_whoever_waits_as_told_passes(url: str, algorithm: str):
    limiter = RateLimiter.from_url(url, 1, 1, algorithm=algorithm)
    assert limiter.check("k")
    for _ in range(2):
        refused = limiter.hit("k")
        assert not refused.allowed
        time.sleep(refused.retry_after)
        assert limiter.check("k")


@given(st.data())
def test_the_wait_is_the_shortest_that_limits_accepts(data: st.DataObject):
    """`sliding_window` against the sentence in its docstring, a millisecond around its answer."""
    limit, window_s = data.draw(st.integers(1, 50)), data.draw(st.integers(1, 100))
    cost = data.draw(st.integers(1, limit))
    previous, current = data.draw(st.integers(0, 80)), data.draw(st.integers(0, 80))
    left_s = data.draw(st.integers(1, window_s * 1000)) / 1000
    state = (previous, left_s if previous else 0.0, current, left_s + window_s if current else 0.0)
    decision = sliding_window(limit, window_s, cost, *state)

    def passes_after(wait_s: float) -> bool:
        before, ago, now = previous, left_s - wait_s, current
        if ago <= 0:
            before, ago, now = current, ago + window_s, 0
        return math.floor(before * max(ago, 0) / window_s) + now + cost <= limit

    assert decision.allowed == passes_after(0)
    if not decision.allowed:
        assert passes_after(decision.retry_after)
        assert decision.retry_after < 0.003 or not passes_after(decision.retry_after - 0.003)


def test_limiters_with_different_rules_do_not_meet(url: str):
    assert RateLimiter.from_url(url, 1, 60).check("k")
    assert not RateLimiter.from_url(url, 1, 60).check("k")
    assert RateLimiter.from_url(url, 2, 60).check("k")
    assert RateLimiter.from_url(url, 1, 61).check("k")
    assert RateLimiter.from_url(url, 1, 60, algorithm="fixed-window").check("k")


@pytest.mark.parametrize("key", ["", "k" * 100_000, "line\nbreak\0", "ä€😀", "\udcff", b"\xff\0"])
def test_any_key_is_a_key(url: str, key: Any):
    limiter = RateLimiter.from_url(url, 1, 60)
    assert limiter.check(key) and not limiter.check(key)
    assert limiter.check("another")


def test_a_key_named_as_the_hash_of_another_is_a_key_of_its_own(url: str):
    limiter = RateLimiter.from_url(url, 1, 60)
    long = "k" * 2000
    assert limiter.check(long)
    assert limiter.check(f"sha256:{hashlib.sha256(long.encode()).hexdigest()}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_memcached_gets_names_that_it_takes(monkeypatch: pytest.MonkeyPatch, algorithm: str):
    class WithMemcachedsKeys(MemoryStorage):
        STORAGE_SCHEME: list[str] = []  # noqa: RUF012  (known to nobody)

    def checked(call: Any) -> Any:
        def run(self: Any, key: str, *arguments: Any, **options: Any) -> Any:
            # As pymemcache does, with what limits appends.
            sent = f"{key}/1234567890"
            taken = len(sent) <= 250 and sent.isascii() and sent.split() == [sent]
            assert taken and "\0" not in sent
            return call(self, key, *arguments, **options)

        return run

    for name in ("incr", "get", "get_expiry", "get_sliding_window", "acquire_sliding_window_entry"):
        setattr(WithMemcachedsKeys, name, checked(getattr(MemoryStorage, name)))
    storage = WithMemcachedsKeys()
    monkeypatch.setattr("pyplue.ratelimit.stored.storage_from_string", lambda *_, **__: storage)
    limiter = RateLimiter.from_url("memcached://localhost", 1, 60, algorithm=algorithm)
    keys: list[str | bytes] = ["", "plain", "with space", "with  space", " ", "tab\t", "nul\0"]
    keys += ["ümlaut", "line\n", "line", b"\xff", "k" * 150, "k" * 240, "k" * 241]
    for key in keys:
        assert limiter.hit(key).allowed and not limiter.hit(key).allowed
    if algorithm == "fixed-window":
        assert storage.get("plue/fixed-window/1/60/plain") > 0


def take(url: str, algorithm: str, results: Any) -> None:
    limiter = RateLimiter.from_url(url, 50, 60, algorithm=algorithm)
    results.put(sum(limiter.check("k") for _ in range(40)))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_processes_count_together(redis_server: str, algorithm: str):
    url = redis_server
    redis.Redis.from_url(url).flushall()
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=take, args=(url, algorithm, results)) for _ in range(2)]
    for process in processes:
        process.start()
    assert sum(results.get() for _ in processes) == 50
    for process in processes:
        process.join()


@pytest.mark.parametrize("count", ["failed", "all"])
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_middleware_runs_on_it(url: str, kind: str, count: Any):
    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("401 Unauthorized", [])
        return [b""]

    limits = [Limit("login", RateLimiter.from_url(url, 2, 60), count=count)]
    served = (
        serve_asgi(asgi.RateLimitMiddleware(asgi_app, limits))
        if kind == "asgi"
        else serve_wsgi(wsgi.RateLimitMiddleware(wsgi_app, limits))
    )
    with served as base, httpx.Client(base_url=base) as http:
        answers = [http.get("/") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [401, 401, 429]
        assert 1 <= int(answers[2].headers["retry-after"]) <= 120


def test_a_server_that_is_not_there_lets_nobody_in():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"redis://:secret@127.0.0.1:{closed.getsockname()[1]}/0"
    limiter = RateLimiter.from_url(url, 10, 60)
    for call in (limiter.check, limiter.hit, limiter.peek, limiter.refund, limiter.reset):
        with pytest.raises(LimiterUnavailableError) as caught:
            call("k")
        assert isinstance(caught.value, PlueError) and isinstance(caught.value, ConnectionError)
        assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_given_up():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        limiter = RateLimiter.from_url(url, 10, 60, socket_timeout=0.2)
        start = time.monotonic()
        with pytest.raises(LimiterUnavailableError):
            limiter.check("k")
        assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("nonsense://", 1, 60), {}, "unknown storage"),
        (("async+redis://127.0.0.1:1", 1, 60), {}, "async"),
        (("redis://127.0.0.1:1", -1, 60), {}, "max_requests"),
        (("redis://127.0.0.1:1", True, 60), {}, "max_requests"),
        (("redis://127.0.0.1:1", 1, 0.5), {}, "whole seconds"),
        (("redis://127.0.0.1:1", 1, 0), {}, "window"),
        (("redis://127.0.0.1:1", 1, 60), {"algorithm": "gcra"}, "gcra"),
    ],
)
def test_what_cannot_be_is_refused(arguments: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        RateLimiter.from_url(*arguments, **options)


@pytest.mark.parametrize("cost", [0, -1])
def test_a_cost_that_cannot_be_is_refused(url: str, cost: int):
    limiter = RateLimiter.from_url(url, 10, 60)
    for call in (limiter.check, limiter.hit, limiter.peek, limiter.refund):
        with pytest.raises(ValueError, match="cost"):
            call("k", cost)
    with pytest.raises(TypeError):
        limiter.check(5)  # type: ignore[arg-type]


def test_plue_urls_stay_on_this_host(tmp_path: Any):
    assert isinstance(RateLimiter.from_url("plue://", 1, 60), RateLimiter)
    url = f"plue://{tmp_path}/limits"
    assert RateLimiter.from_url(url, 1, 60, max_keys=1000).check("k")
    assert not RateLimiter.from_url(url, 1, 60, max_keys=1000).check("k")


def test_it_decides_as_limits_own_strategy_does(redis_server: str):
    """The same schedule on limits' strategy and on ours, both on Redis."""
    redis.Redis.from_url(redis_server).flushall()
    theirs = SlidingWindowCounterRateLimiter(storage_from_string(redis_server))  # type: ignore[arg-type]
    ours = RateLimiter.from_url(redis_server, 5, 1)
    item = RateLimitItemPerSecond(5, 1)
    pick = random.Random(3)
    passed = [0, 0]
    for _ in range(60):
        cost = pick.randint(1, 2)
        passed[0] += theirs.hit(item, "k", cost=cost)
        passed[1] += ours.check("k", cost)
        time.sleep(pick.random() / 20)
    assert abs(passed[0] - passed[1]) <= 2
