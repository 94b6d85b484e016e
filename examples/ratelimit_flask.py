"""A Flask application with a limit by address and one of failed logins.

    gunicorn --chdir examples --workers 4 ratelimit_flask:app

All workers count in one file. Log in as alice with the password "wonderland".
"""

from __future__ import annotations

import os

from flask import Flask, abort, request

from pyplue.ratelimit import RateLimiter
from pyplue.ratelimit.http import Limit, Request
from pyplue.ratelimit.wsgi import RateLimitMiddleware

LIMITS = os.environ.get("LIMITS_FILE", "flask-limits")
PROXIES = os.environ.get("TRUSTED_PROXIES", "").split()


def limiter(max_requests: int, window: str) -> RateLimiter:
    return RateLimiter(
        max_requests, window, algorithm="fixed-window", shared=LIMITS, max_keys=100_000
    )


def login_by_address(request: Request) -> str | None:
    return request.address if request.path == "/login" else None


app = Flask(__name__)
app.wsgi_app = RateLimitMiddleware(  # type: ignore[method-assign]
    app.wsgi_app,
    limits=[
        Limit("address", limiter(20, "1m")),
        Limit("login", limiter(3, "15m"), key=login_by_address, count="failed"),
    ],
    trusted_proxies=PROXIES,
)


@app.post("/login")
def log_in() -> str:
    if request.get_json() != {"name": "alice", "password": "wonderland"}:
        abort(401)
    return "welcome"


@app.get("/")
def index() -> str:
    return f"hello from worker {os.getpid()}"
