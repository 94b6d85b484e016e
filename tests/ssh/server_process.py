"""Runs one GitServer for the tests, in a process of its own: a crash is seen, a leak is countable.

Takes its settings as JSON in the first argument and prints one JSON line once it serves. Then each
line on stdin is a request, answered by a line: "counters", "keys {...}". At the end of stdin it
stops the server and exits.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from dataclasses import asdict

from pyplue.ssh import GitServer, Principal, Push
from pyplue.ssh.metrics import serve_metrics


class EventFile(logging.Handler):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.file = open(path, "a", buffering=1)  # noqa: SIM115 (open as long as the process)

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", None) or {"event": "log", "text": record.getMessage()}
        self.file.write(json.dumps(event) + "\n")


class PushFile:
    """Writes what it is told of, after `delay_s`; raises for repositories called "raise"."""

    def __init__(self, path: str, delay_s: float = 0) -> None:
        self.file = open(path, "a", buffering=1)  # noqa: SIM115 (open as long as the process)
        self.delay_s = delay_s

    def __call__(self, push: Push) -> None:
        time.sleep(self.delay_s)
        if push.repository.endswith("raise"):
            raise RuntimeError("as the test wants")
        self.file.write(json.dumps({**asdict(push), "path": str(push.path)}) + "\n")


def allowed(rules: list[str], repository: str, write: bool) -> bool:
    """The rules of a key table once more, for the callback."""
    for rule in rules:
        access, pattern = rule.split(" ", 1)
        prefix = pattern.removesuffix("*")
        matches = repository.startswith(prefix) if pattern.endswith("*") else repository == pattern
        if matches and (access == "write" or not write):
            return True
    return False


def main() -> None:
    options = json.loads(sys.argv[1])
    log = logging.getLogger("pyplue.ssh")
    log.setLevel(logging.DEBUG)
    log.addHandler(EventFile(options["events"]))
    people = options["people"]
    if options["path"] == "table":
        how = {"keys": {name: Principal(p["keys"], p["rules"]) for name, p in people.items()}}
    else:
        owners = {" ".join(k.split()[:2]): n for n, p in people.items() for k in p["keys"]}
        how = {
            "authenticate": lambda user, key: owners.get(key) if user == "git" else None,
            "authorize": lambda who, repository, write: allowed(
                people[who]["rules"], repository, write
            ),
        }
    if options.get("pushes"):
        how["on_push"] = PushFile(**options["pushes"])
    server = GitServer(
        options["repositories"], port=0, host_key=options["host_key"], **how, **options["settings"]
    )
    server.start()
    page = serve_metrics(0) if options.get("metrics") else None
    hello = {"port": server.port, "pid": os.getpid(), "metrics": page.url if page else None}
    print(json.dumps(hello), flush=True)
    for line in sys.stdin:
        request, _, argument = line.strip().partition(" ")
        if request == "counters":
            answer = server.counters()
        elif request == "keys":
            table = json.loads(argument)
            server.replace_keys({n: Principal(p["keys"], p["rules"]) for n, p in table.items()})
            answer = {}
        elif request == "stop":
            begun = time.monotonic()
            server.stop()
            answer = {"stopped_s": time.monotonic() - begun, "threads": threading.active_count()}
        elif request == "start":
            server.start()
            answer = {"port": server.port}
        else:
            answer = {"error": f"unknown request {request!r}"}
        print(json.dumps(answer), flush=True)
    server.stop()


if __name__ == "__main__":
    main()
