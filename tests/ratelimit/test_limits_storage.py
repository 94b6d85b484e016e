"""`plue://` where its users are: Flask-Limiter and SlowAPI, unchanged, with a real HTTP client."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import time
from pathlib import Path
from typing import Any

import flask_limiter
import httpx
import limits.aio.strategies
import pytest
import slowapi
import slowapi.errors
import slowapi.middleware
import slowapi.util
from fastapi import FastAPI
from fastapi.requests import Request
from flask import Flask
from flask_limiter.util import get_remote_address
from hypothesis import given
from hypothesis import strategies as st
from limits import RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.errors import StorageError
from limits.storage import MemoryStorage, storage_from_string
from limits.strategies import STRATEGIES
from ratelimit_servers import serve_asgi, serve_wsgi

from pyplue.ratelimit.errors import RateLimitError, SharedFileError
from pyplue.ratelimit.storage import AsyncPlueStorage, PlueStorage

STRATEGY_NAMES = ["fixed-window", "moving-window", "sliding-window-counter"]


@pytest.fixture(params=["private", "shared"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return "plue://" if request.param == "private" else f"plue://{tmp_path}/limits?max_keys=10000"


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_flask_limiter_runs_on_it(uri: str, strategy: str):
    app = Flask(__name__)
    limiter = flask_limiter.Limiter(
        get_remote_address,
        app=app,
        storage_uri=uri,
        strategy=strategy,
        headers_enabled=True,
        default_limits=["100 per day"],
    )

    @app.get("/")
    @limiter.limit("3 per minute")
    def index() -> str:
        return "hello"

    @app.get("/free")
    @limiter.exempt
    def free() -> str:
        return "free"

    @app.get("/costly")
    @limiter.limit("10 per minute", cost=4)
    def costly() -> str:
        return "costly"

    with serve_wsgi(app) as url, httpx.Client(base_url=url) as http:
        answers = [http.get("/") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        left = [answer.headers["x-ratelimit-remaining"] for answer in answers]
        assert left == ["2", "1", "0", "0", "0"]
        reset = int(answers[3].headers["x-ratelimit-reset"]) - time.time()
        assert 0 <= reset <= 121
        assert {http.get("/free").status_code for _ in range(5)} == {200}
        assert [http.get("/costly").status_code for _ in range(3)] == [200, 200, 429]
        limiter.reset()
        assert http.get("/").status_code == 200


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_slowapi_runs_on_it(uri: str, strategy: str):
    app = FastAPI()
    limiter = slowapi.Limiter(
        slowapi.util.get_remote_address, storage_uri=uri, strategy=strategy, headers_enabled=True
    )
    app.state.limiter = limiter
    app.add_exception_handler(
        slowapi.errors.RateLimitExceeded,
        slowapi._rate_limit_exceeded_handler,  # type: ignore[arg-type]
    )
    app.add_middleware(slowapi.middleware.SlowAPIMiddleware)

    @app.get("/")
    @limiter.limit("3/minute")
    async def index(request: Request) -> Any:
        return slowapi.extension.JSONResponse({"hello": "world"})

    with serve_asgi(app) as url, httpx.Client(base_url=url) as http:
        answers = [http.get("/") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert answers[0].headers["x-ratelimit-remaining"] == "2"


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
@given(costs=st.lists(st.integers(0, 4), max_size=30), limit=st.integers(1, 12))
def test_it_answers_as_the_memory_storage_of_limits(strategy: str, costs: list[int], limit: int):
    item = RateLimitItemPerMinute(limit, 60)
    ours = STRATEGIES[strategy](PlueStorage())
    theirs = STRATEGIES[strategy](MemoryStorage())
    for cost in costs:
        assert ours.test(item, "k", cost=cost) == theirs.test(item, "k", cost=cost)
        assert ours.hit(item, "k", cost=cost) == theirs.hit(item, "k", cost=cost)
        mine, other = (one.get_window_stats(item, "k") for one in (ours, theirs))
        assert mine.remaining == other.remaining
    ours.clear(item, "k")
    assert ours.get_window_stats(item, "k").remaining == limit


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_when_told_to_come_again_a_request_passes(strategy: str):
    limiter = STRATEGIES[strategy](PlueStorage())
    item = RateLimitItemPerSecond(2, 1)
    assert limiter.hit(item) and limiter.hit(item) and not limiter.hit(item)
    time.sleep(max(0.0, limiter.get_window_stats(item).reset_time - time.time()) + 0.002)
    # The sliding counter tells when something changes, which may be half a window too early.
    if strategy == "sliding-window-counter":
        time.sleep(0.502)
    assert limiter.hit(item)


def test_async_strategies_run_on_it(uri: str):
    async def run() -> None:
        storage = storage_from_string(f"async+{uri}")
        assert isinstance(storage, AsyncPlueStorage)
        for name in ("FixedWindow", "MovingWindow", "SlidingWindowCounter"):
            limiter = getattr(limits.aio.strategies, f"{name}RateLimiter")(storage)
            item = RateLimitItemPerMinute(2, namespace=name)
            assert [await limiter.hit(item) for _ in range(3)] == [True, True, False]
            assert (await limiter.get_window_stats(item)).remaining == 0
        assert await storage.check()
        assert await storage.reset()

    asyncio.run(run())


def take(uri: str, strategy: str, results: Any) -> None:
    limiter = STRATEGIES[strategy](storage_from_string(uri))  # type: ignore[arg-type]
    results.put(sum(limiter.hit(RateLimitItemPerMinute(50), "k") for _ in range(40)))


@pytest.mark.parametrize("strategy", STRATEGY_NAMES)
def test_processes_count_together_in_a_shared_file(strategy: str, tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    arguments = (f"plue://{tmp_path}/limits?max_keys=10000", strategy, results)
    processes = [context.Process(target=take, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    assert sum(results.get() for _ in processes) == 50
    for process in processes:
        process.join()


def test_two_storages_in_one_process_are_apart_unless_they_share_a_file(tmp_path: Path):
    assert PlueStorage().incr("k", 60) == PlueStorage().incr("k", 60) == 1
    uri = f"plue://{tmp_path}/with%20space?max_keys=1000"
    assert PlueStorage(uri).incr("k", 60) == 1
    assert PlueStorage(uri).incr("k", 60) == 2
    assert (tmp_path / "with space").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("key", ["", "k" * 5_000, "ä€😀", "\udcff", "nul\0"])
def test_any_key_is_a_key(key: str):
    storage = PlueStorage()
    assert [storage.incr(key, 60) for _ in range(2)] == [1, 2]
    assert storage.get(key) == 2 and storage.get(key + "x") == 0
    storage.clear(key)
    assert storage.get(key) == 0


def test_a_full_table_refuses_new_keys_or_lets_them_pass_as_chosen():
    for policy, passes in (("deny", False), ("allow", True)):
        storage = storage_from_string("plue://", max_keys=64, when_full=policy)
        fixed, moving, sliding = (STRATEGIES[name](storage) for name in STRATEGY_NAMES)  # type: ignore[arg-type]
        item = RateLimitItemPerMinute(1)
        assert fixed.hit(item, "victim") and not fixed.hit(item, "victim")
        for i in range(500):
            fixed.hit(item, f"flood {i}")
        for strategy in (fixed, moving, sliding):
            assert strategy.hit(item, "newcomer") == passes
        assert not fixed.hit(item, "victim")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("plue://run/app/limits", "three slashes"),
        ("plue:///tmp/x?keys=5", "no option is called keys"),
        ("plue://?max_keys=many", "max_keys"),
        ("plue://?max_keys=0", "max_keys"),
        ("plue://?max_keys=99999999999999999999", "max_keys"),
        ("plue://?when_full=explode", "when_full"),
    ],
)
def test_a_uri_that_is_not_understood_is_refused(uri: str, message: str):
    for scheme in ("", "async+"):
        with pytest.raises(ValueError, match=message):
            storage_from_string(scheme + uri)


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path):
    other = tmp_path / "other"
    other.write_text("something else")
    other.chmod(0o600)
    for path, message in [
        (other, "other"),
        (tmp_path, "regular file"),
        (tmp_path / "no" / "where", "No such file"),
    ]:
        with pytest.raises(SharedFileError, match=message):
            storage_from_string(f"plue://{path}")
    assert other.read_text() == "something else"


def test_what_makes_no_sense_is_refused():
    storage = PlueStorage()
    for call in (
        lambda: storage.incr("k", 60, -1),
        lambda: storage.incr("k", 0),
        lambda: storage.acquire_entry("k", 5, 60, -1),
        lambda: storage.acquire_entry("k", 5, 0),
        lambda: storage.acquire_sliding_window_entry("k", 5, 0),
    ):
        with pytest.raises(RateLimitError):
            call()
    with pytest.raises(StorageError):
        PlueStorage(wrap_exceptions=True).incr("k", 0)
    assert not storage.acquire_entry("k", 0, 60)
    assert not storage.acquire_sliding_window_entry("k", 0, 60)
    with pytest.raises(TypeError):
        storage_from_string("plue://", max_key=5)


def test_a_storage_is_not_pickled():
    with pytest.raises(TypeError, match="URI"):
        pickle.dumps(PlueStorage())


def test_a_forked_worker_counts_on_from_a_copy():
    storage = PlueStorage()
    storage.incr("k", 60)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, bytes([storage.incr("k", 60), storage.incr("k", 60)]))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 2) == bytes([2, 3])
    assert storage.get("k") == 1
    os.close(read)
    os.close(write)
