"""A server with a store of 10,000 users and 30,000 keys beside one of ten users, in one run.

    ./dev bench ssh_store

On SQLite and on PostgreSQL, and beside a table of keys in memory without any store. Connections
log in, run git-upload-pack of a small repository and end, eight at a time. Each figure is the best
of its rounds, taken in turns, so that a busy moment of the machine meets everybody.
PLUE_BENCH_SSH_ROUNDS (5) is the number of rounds.
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
from ssh.big_team import fill  # noqa: E402
from ssh.forge import Forge  # noqa: E402
from ssh.postgres import Postgres  # noqa: E402

from pyplue.ssh import GitServer  # noqa: E402
from pyplue.ssh.store import Store  # noqa: E402

ROUNDS = int(os.environ.get("PLUE_BENCH_SSH_ROUNDS", "5"))
PARALLEL, CONNECTIONS = 8, 400
TEN, MANY = (10, 30), (10_000, 30_000)


def serve(database: str, repositories: str, host_key: str, alice: str) -> None:
    """The server's process: says its port, then answers one word a line with milliseconds."""
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
        print(1000 * (time.perf_counter() - begun), flush=True)
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


def main() -> None:
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
            "SQLite 10": make(forge, str(directory / "ten.sqlite"), TEN),
            "SQLite 10,000": make(forge, str(directory / "many.sqlite"), MANY),
            "PostgreSQL 10": make(forge, postgres.new_database(), TEN),
            "PostgreSQL 10,000": make(forge, postgres.new_database(), MANY),
        }
        best: dict[str, dict[str, float]] = {name: {} for name in databases}
        for _ in range(ROUNDS):
            for name, database in databases.items():
                with running(forge, database) as (process, hello):
                    figures = {"start s": hello["start_s"]}
                    figures["connections/s"] = -connections(forge, program, hello["port"])
                    if database:
                        figures["unchanged ms"] = ask(process, "poll")
                        figures["changed ms"] = ask(process, "change")
                for what, value in figures.items():
                    best[name][what] = min(best[name].get(what, 1e9), value)
        show(best)


def show(best: dict[str, dict[str, float]]) -> None:
    print(f"{os.cpu_count()} cores, best of {ROUNDS} rounds\n")
    print(
        f"{'':20}{'start s':>12}{'poll ms':>12}{'reread ms':>12}{'conn/s':>12}{'of no store':>12}"
    )
    for name, figures in best.items():
        rate, base = -figures["connections/s"], -best["no store"]["connections/s"]
        unchanged, changed = figures.get("unchanged ms", 0), figures.get("changed ms", 0)
        print(
            f"{name:20}{figures['start s']:12.3f}{unchanged:12.2f}{changed:12.1f}"
            f"{rate:12.0f}{rate / base:11.2f}x"
        )


if __name__ == "__main__":
    if len(sys.argv) == 5:
        serve(*sys.argv[1:])
    else:
        main()
