"""A server with a store of 10,000 users and 30,000 keys beside one of ten users, in one run.

    ./dev bench ssh_store

On SQLite and on PostgreSQL, and beside a table of keys in memory without any store. Connections
log in, run git-upload-pack of a small repository and end, eight at a time.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

from bench_ssh import load_program  # noqa: E402
from report import Comparison, Goal, main  # noqa: E402
from ssh.big_team import fill  # noqa: E402
from ssh.forge import Forge  # noqa: E402
from ssh.postgres import Postgres  # noqa: E402

from pyplue.ssh import GitServer  # noqa: E402
from pyplue.ssh.store import Store  # noqa: E402

PARALLEL, CONNECTIONS = 8, 400
TEN, MANY = (10, 30), (10_000, 30_000)

START, CONNECT = "start of a server with a store", "connections with a small fetch, 8 in parallel"
UNCHANGED, CHANGED = "ask the database whether anything changed", "read all again after a change"

GOALS = [
    Goal(START, at_most=2, name="SQLite, 10,000 users"),
    Goal(START, at_most=2, name="PostgreSQL, 10,000 users"),
    # As many, which two measurements never are: 5 % is what rounds differ by.
    Goal(CONNECT, at_least=0.95, than=("SQLite, 10 users",), name="SQLite, 10,000 users"),
    Goal(CONNECT, at_least=0.95, than=("PostgreSQL, 10 users",), name="PostgreSQL, 10,000 users"),
]


def serve(database: str, repositories: str, host_key: str, alice: str) -> None:
    """The server's process: says its port, then answers one word a line with seconds."""
    opened = time.perf_counter()
    if database:
        store = Store(database, repositories)
        server = GitServer(repositories, store=store, port=0, host_key=host_key)
    else:
        server = GitServer(
            repositories, keys={"alice": alice}, default_access="write", port=0, host_key=host_key
        )
    server.start()
    print(json.dumps({"port": server.port, "start_s": time.perf_counter() - opened}), flush=True)
    for line in sys.stdin:
        if line.strip() == "change":
            store.users.add(f"new{time.time_ns()}")
        begun = time.perf_counter()
        server.refresh()
        print(time.perf_counter() - begun, flush=True)
    server.stop()


@contextmanager
def running(forge: Forge, database: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    words = [database, str(forge.repositories), str(forge.keys["host"].private)]
    process = subprocess.Popen(
        [sys.executable, __file__, *words, forge.keys["alice"].line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait()


def ask(process: subprocess.Popen[str], word: str) -> float:
    process.stdin.write(word + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def connections(forge: Forge, program: Path, port: int) -> float:
    key = str(forge.keys["alice"].private)
    command = "git-upload-pack 'alice/project'"
    words = [str(port), "git", key, command, str(PARALLEL), str(CONNECTIONS)]
    answer = subprocess.run([str(program), *words], check=True, capture_output=True, text=True)
    rate, failed = answer.stdout.split()
    if failed != "0":
        raise RuntimeError(f"{failed} connections failed: {answer.stderr[:300]}")
    return float(rate)


def make(forge: Forge, database: str, size: tuple[int, int]) -> str:
    store = Store(database, forge.repositories)
    store.users.add("alice")
    store.keys.add("alice", forge.keys["alice"].line)
    store.repositories.create("alice/project", adopt=True)
    fill(store, *size)
    return database


def measure(quick: bool) -> list[Comparison]:
    found = {
        START: Comparison(START, "s", "lower", {}, ours=5),
        CONNECT: Comparison(CONNECT, "/s", "higher", {}, ours=5),
        UNCHANGED: Comparison(UNCHANGED, "s", "lower", {}, ours=4),
        CHANGED: Comparison(CHANGED, "s", "lower", {}, ours=4),
    }
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        directory = Path(temporary)
        forge = Forge(directory / "forge")
        program = load_program(directory)
        path = os.pathsep.join(
            [os.environ["PATH"], *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
        )
        postgres = Postgres(
            shutil.which("initdb", path=path) or "initdb",
            shutil.which("postgres", path=path) or "postgres",
        )
        stack.callback(postgres.remove)
        databases = {
            "no store": "",
            "SQLite, 10 users": make(forge, str(directory / "ten.sqlite"), TEN),
            "SQLite, 10,000 users": make(forge, str(directory / "many.sqlite"), MANY),
            "PostgreSQL, 10 users": make(forge, postgres.new_database(), TEN),
            "PostgreSQL, 10,000 users": make(forge, postgres.new_database(), MANY),
        }
        for _ in range(2 if quick else 7):
            for name, database in databases.items():
                with running(forge, database) as (process, hello):
                    figures = {START: hello["start_s"]}
                    figures[CONNECT] = connections(forge, program, hello["port"])
                    if database:
                        figures[UNCHANGED] = ask(process, "poll")
                        figures[CHANGED] = ask(process, "change")
                for what, value in figures.items():
                    found[what].samples.setdefault(name, []).append(value)
    return list(found.values())


if __name__ == "__main__":
    if len(sys.argv) == 5:
        serve(*sys.argv[1:])
    else:
        main(measure, GOALS)
