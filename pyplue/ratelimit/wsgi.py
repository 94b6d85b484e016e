"""Rate limits for WSGI applications: Flask, Django, Pyramid, Bottle and others.

    app.wsgi_app = RateLimitMiddleware(
        app.wsgi_app,
        limits=[Limit("address", RateLimiter(100, "1m", shared="/run/app/limits"))],
        trusted_proxies=["unix"],
    )

Two of them in one stack limit by address before authentication and by user after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from types import TracebackType
from typing import Any, TypeAlias

from pyplue.ratelimit.http import Answer, Guard, Headers, Limit, Request

Environ: TypeAlias = "dict[str, Any]"
ExcInfo: TypeAlias = (
    "tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None] | None"
)
StartResponse: TypeAlias = "Callable[..., Callable[[bytes], object]]"
App: TypeAlias = "Callable[[Environ, StartResponse], Iterable[bytes]]"


class WsgiRequest(Request):
    """A request as the environ describes it."""

    @property
    def method(self) -> str:
        return str(self.scope["REQUEST_METHOD"])

    @property
    def path(self) -> str:
        """PEP 3333 hides UTF-8 in Latin-1."""
        return str(self.scope.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")

    @property
    def peer(self) -> str | None:
        return self.scope.get("REMOTE_ADDR") or None

    @property
    def user(self) -> str | None:
        return self.scope.get("REMOTE_USER") or None

    def header(self, name: str) -> str | None:
        variable = name.upper().replace("-", "_")
        if variable not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            variable = f"HTTP_{variable}"
        value = self.scope.get(variable)
        return None if value is None else str(value)


class RateLimitMiddleware:
    """Refuses requests over a limit and tells all clients where they stand.

    Args:
        app: The application behind it.
        limits: Checked in their order; the first one that is exceeded answers.
        options: See `Guard` in pyplue.ratelimit.http: trusted_proxies, trusted_hops, ipv6_prefix,
            forwarded_header, answer, ietf_fields, x_ratelimit_fields, on_error.
    """

    def __init__(self, app: App, limits: Sequence[Limit], **options: Any) -> None:
        self.app = app
        self.guard = Guard(limits, **options)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        passage = self.guard.admit(WsgiRequest(environ, self.guard.client))
        if isinstance(passage, Answer):
            start_response(_status_line(passage.status), passage.headers)
            return [passage.body]

        def start_with_fields(
            status: str, headers: Headers, exc_info: ExcInfo = None
        ) -> Callable[[bytes], object]:
            passage.settle(int(status[:3]))
            added = passage.headers(headers)
            replaced = {name for name, _ in added if name.startswith("x-ratelimit-")}
            kept = [(name, value) for name, value in headers if name.lower() not in replaced]
            return start_response(status, kept + added, exc_info)

        try:
            return self.app(environ, start_with_fields)
        except Exception:
            passage.settle(500)
            raise


def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
