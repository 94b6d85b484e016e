"""Real servers for real HTTP clients: each runs in a thread of this process on a free port."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from werkzeug.serving import WSGIRequestHandler, make_server


@contextlib.contextmanager
def serve_asgi(app: Any) -> Iterator[str]:
    """Its URL."""
    config = uvicorn.Config(app, port=0, log_level="critical", proxy_headers=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < end, "uvicorn does not start"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


class Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        """A line for each request would bury what a failed test says."""


@contextlib.contextmanager
def serve_wsgi(app: Any) -> Iterator[str]:
    """Its URL."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
