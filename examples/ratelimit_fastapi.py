"""A FastAPI application with three limits: by address, of failed logins, and by user.

    uvicorn --app-dir examples ratelimit_fastapi:app --workers 4 --no-proxy-headers

All workers count in one file. Log in as alice with the password "wonderland".
"""

from __future__ import annotations

import os

from fastapi import FastAPI, HTTPException
from fastapi.requests import HTTPConnection
from pydantic import BaseModel
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware

from pyplue import jwt
from pyplue.ratelimit import RateLimiter
from pyplue.ratelimit.asgi import RateLimitMiddleware
from pyplue.ratelimit.http import Limit, Request, by_user

LIMITS = os.environ.get("LIMITS_FILE", "fastapi-limits")
PROXIES = os.environ.get("TRUSTED_PROXIES", "").split()
KEY = jwt.Key(os.environ.get("JWT_SECRET", "an example's secret of 32 bytes or more"))


def limiter(max_requests: int, window: str) -> RateLimiter:
    return RateLimiter(max_requests, window, shared=LIMITS, max_keys=100_000)


class BearerToken(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        try:
            claims = jwt.decode(token, KEY, algorithms=["HS256"])
        except jwt.InvalidTokenError:
            return None
        return AuthCredentials(["authenticated"]), SimpleUser(claims["sub"])


def login_by_address(request: Request) -> str | None:
    return request.address if request.path == "/login" else None


class Login(BaseModel):
    name: str
    password: str


app = FastAPI()
# The middleware added last comes first: addresses, then who it is, then users.
app.add_middleware(RateLimitMiddleware, limits=[Limit("user", limiter(5, "1m"), key=by_user)])
app.add_middleware(AuthenticationMiddleware, backend=BearerToken())
app.add_middleware(
    RateLimitMiddleware,
    limits=[
        Limit("address", limiter(20, "1m")),
        Limit("login", limiter(3, "15m"), key=login_by_address, count="failed"),
    ],
    trusted_proxies=PROXIES,
)


@app.post("/login")
def log_in(login: Login) -> dict[str, str]:
    if (login.name, login.password) != ("alice", "wonderland"):
        raise HTTPException(401, "wrong name or password")
    return {"token": jwt.encode({"sub": login.name}, KEY)}


@app.get("/")
def index() -> dict[str, str]:
    return {"hello": "world", "from": f"worker {os.getpid()}"}
