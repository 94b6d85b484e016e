"""The examples under real servers with four worker processes, which enforce one limit together."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from source_tree import ROOT

WORKERS = 4


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def server_command(kind: str, port: int, workers: int) -> list[str]:
    where = ["--workers", str(workers)]
    if kind == "flask":
        program = [sys.executable, "-m", "gunicorn", "--chdir", "examples"]
        # Threads too: the workers of one machine rarely come alone.
        where += ["--threads", "2", "--bind", f"127.0.0.1:{port}"]
        return [*program, *where, "--log-level", "warning", "ratelimit_flask:app"]
    program = [sys.executable, "-m", "uvicorn", "--app-dir", "examples"]
    where += ["--port", str(port), "--no-proxy-headers", "--log-level", "warning"]
    return [*program, *where, "ratelimit_fastapi:app"]


@contextlib.contextmanager
def serve(kind: str, folder: Path, workers: int = WORKERS) -> Iterator[str]:
    """The URL of an example that trusts the proxies of loopback."""
    port = free_port()
    limits = {"LIMITS_FILE": str(folder / "limits"), "TRUSTED_PROXIES": "127.0.0.0/8 ::1"}
    server = subprocess.Popen(
        server_command(kind, port, workers),
        cwd=ROOT,
        env={**os.environ, **limits},
        start_new_session=True,
    )
    try:
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.TransportError), httpx.Client(verify=False) as http:
                # As another client than those of the tests.
                headers = {"x-forwarded-for": "203.0.113.1"}
                if http.get(f"http://127.0.0.1:{port}/", headers=headers).status_code == 200:
                    break
            assert server.poll() is None and time.monotonic() < end, f"{kind} does not start"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.fixture(params=["flask", "fastapi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_four_workers_enforce_one_limit(kind: str, tmp_path: Path):
    with serve(kind, tmp_path) as url:
        # Workers start one after the other, and share the work as the kernel likes: clients come
        # until two workers have answered the same one.
        for client in range(1, 30):

            def ask(_: int, client: int = client) -> httpx.Response:
                with httpx.Client(verify=False) as http:
                    return http.get(url, headers={"x-forwarded-for": f"192.0.2.{client}"})

            with ThreadPoolExecutor(8) as pool:
                answers = list(pool.map(ask, range(30)))
            assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 10}
            passed = " ".join(answer.text for answer in answers if answer.status_code == 200)
            if len(set(re.findall(r"worker (\d+)", passed))) > 1:
                return
        pytest.fail("one worker has answered everybody")


def test_the_limit_outlives_a_restart(kind: str, tmp_path: Path):
    headers = {"x-forwarded-for": "192.0.2.1"}
    for status in (200, 429):
        with (
            serve(kind, tmp_path, workers=1) as url,
            httpx.Client(headers=headers, verify=False) as http,
        ):
            assert {http.get(url).status_code for _ in range(20)} == {status}


def test_an_example_does_what_it_says(kind: str, tmp_path: Path):
    wrong = {"name": "alice", "password": "guess"}
    right = {"name": "alice", "password": "wonderland"}
    with (
        serve(kind, tmp_path, workers=1) as url,
        httpx.Client(base_url=url, headers={"x-forwarded-for": "192.0.2.1"}) as http,
    ):
        assert [http.post("/login", json=right).status_code for _ in range(4)] == [200] * 4
        assert [http.post("/login", json=wrong).status_code for _ in range(3)] == [401] * 3
        refused = http.post("/login", json=right)
        assert refused.status_code == 429
        assert refused.json()["violated-policies"] == ["login"]
        # Pages are still open to that address, and logins to others.
        assert http.get("/").status_code == 200
        other = {"x-forwarded-for": "2001:db8::1"}
        answer = http.post("/login", json=right, headers=other)
        assert answer.status_code == 200
        if kind == "fastapi":
            bearer = {"authorization": f"Bearer {answer.json()['token']}", **other}
            statuses = [http.get("/", headers=bearer).status_code for _ in range(6)]
            assert statuses == [200] * 5 + [429]
            # A forged token is nobody, hence limited by address only.
            assert http.get("/", headers={"authorization": "Bearer x.y.z"}).status_code == 200
