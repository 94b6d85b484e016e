"""VibeTunnel's own Node server, as it is published on npm, and a client of its HTTP interface."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from source_tree import ROOT

from vt.harness import Home, eventually

CLI = ROOT / "tests/interop/vibetunnel/node_modules/vibetunnel/dist/vibetunnel-cli"


def real_node(node: str) -> str:
    """PyPI's node is a wrapper that, killed, leaves the real one behind, with its port."""
    ask = [node, "-p", "process.execPath"]
    return subprocess.run(ask, capture_output=True, check=True, text=True).stdout.strip()


class Server:
    def __init__(self, node: str, cli: Path, home: Home) -> None:
        self.argv = [real_node(node), str(cli), "--bind", "127.0.0.1", "--no-auth", "--no-mdns"]
        self.home = home
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def start(self) -> None:
        env = {**self.home.env, "VIBETUNNEL_CONTROL_DIR": str(self.home.control)}
        self.log = (self.home.path / "server.log").open("ab")
        self.popen = subprocess.Popen(
            [*self.argv, "--port", str(self.port)],
            env=env,
            cwd=self.home.path,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        eventually(self._healthy, 30, "a healthy VibeTunnel server")

    def _healthy(self) -> bool:
        assert self.popen.poll() is None, (self.home.path / "server.log").read_text()[-2000:]
        try:
            return bool(self.get("/health")["status"] == "ok")
        except OSError:
            time.sleep(0.05)
            return False

    def stop(self) -> None:
        self.popen.terminate()
        self.popen.wait(20)
        self.log.close()

    def request(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"} if data else {}
            connection.request(method, f"/api{path}", data, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, body = self.request("GET", path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.request(method, path, body)
        assert status == 200, (method, path, status, answer)
        return json.loads(answer)

    def listed(self, name: str) -> dict[str, Any] | None:
        return next((entry for entry in self.get("/sessions") if entry["id"] == name), None)

    def wait_listed(self, name: str, status: str = "running") -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            entry = self.listed(name)
            return entry if entry and entry["status"] == status else None

        return dict(eventually(found, 10, f"{name} listed as {status}"))

    def type(self, name: str, text: str) -> None:
        assert self.ask("POST", f"/sessions/{name}/input", {"text": text}) == {"success": True}

    def text(self, name: str) -> str:
        return self.request("GET", f"/sessions/{name}/text")[1].decode()

    def stream(self, name: str) -> Stream:
        return Stream(self.port, name)


class Stream:
    """What the server sends of a session, event by event, as a browser receives it."""

    def __init__(self, port: int, name: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.connection.request("GET", f"/api/sessions/{name}/stream")
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        self.header: dict[str, Any] | None = None
        self.events: list[Any] = []
        self.ended = threading.Event()
        self.ready = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self.ready.wait(10)

    def _read(self) -> None:
        kind = "message"
        try:
            for raw in self.response:
                line = raw.decode().rstrip("\n")
                self.ready.set()
                if line.startswith("event: "):
                    kind = line[7:]
                elif not line:
                    kind = "message"
                elif line.startswith("data: ") and kind == "message":
                    value = json.loads(line[6:])
                    if isinstance(value, dict):
                        self.header = value
                    else:
                        self.events.append(value)
        except (OSError, ValueError):
            pass
        finally:
            self.ended.set()

    def output(self) -> str:
        return "".join(event[2] for event in list(self.events) if event[1] == "o")

    def of_kind(self, kind: str) -> list[str]:
        return [event[2] for event in list(self.events) if event[1] == kind]

    def wait_output(self, text: str, timeout: float = 10.0) -> None:
        eventually(lambda: text in self.output(), timeout, f"{text!r} in the stream")

    def exit(self, timeout: float = 10.0) -> Any:
        """The exit event, once the server has closed the stream."""
        assert self.ended.wait(timeout), "the stream goes on"
        return self.events[-1]

    def close(self) -> None:
        self.connection.close()


@contextmanager
def vibetunnel(need: Callable[[str], str]) -> Iterator[Server]:
    """The server, with a home directory of its own for sessions."""
    home = Home([need("vibetunnel-fwd")])
    server = Server(need("node"), Path(need(str(CLI))), home)
    server.start()
    yield server
    server.stop()
    home.close()
