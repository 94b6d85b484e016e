"""A real PostgreSQL server for the tests, private to them and as a user that is not root."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psycopg

from .forge import free_port

START_TIMEOUT_S = 60


def _unprivileged() -> dict[str, object]:
    """postgres refuses to run as root: arguments of Popen that make it somebody else."""
    if os.getuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise RuntimeError("there is no user postgres or nobody to run PostgreSQL as")


class Postgres:
    """One cluster in a directory of its own, on loopback, that can be stopped and started again."""

    def __init__(self, initdb: str, program: str) -> None:
        self._program = program
        self._who = _unprivileged()
        self._directory = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._directory.chmod(0o711)
        self.data = self._directory / "data"
        self.data.mkdir()
        if self._who:
            os.chown(self.data, self._who["user"], self._who["group"])
        subprocess.run(
            [initdb, "-D", self.data, "-U", "plue", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd="/",
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            **self._who,
        )
        self.port = free_port()
        self._numbers = itertools.count(1)
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql://plue@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        self._log = open(self._directory / "log", "ab")  # noqa: SIM115
        self._process = subprocess.Popen(
            [self._program, "-D", self.data, "-p", str(self.port)]
            + [word for setting in settings for word in ("-c", setting)],
            stdout=self._log,
            stderr=self._log,
            stdin=subprocess.DEVNULL,
            cwd="/",
            **self._who,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._directory / "log").read_text()
                assert time.monotonic() < deadline, (self._directory / "log").read_text()
                time.sleep(0.05)

    def stop(self) -> None:
        """At once: connections are closed, as when the machine goes down."""
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait(timeout=60)
        self._log.close()

    def freeze(self, frozen: bool) -> None:
        """The server neither answers nor fails, as behind a network that loses everything."""
        what = signal.SIGSTOP if frozen else signal.SIGCONT
        pids = [self._process.pid]
        task = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        pids += map(int, task.read_text().split())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # it served a client that has left
                os.kill(pid, what)

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"forge_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop(self, url: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {url.rsplit('/', 1)[1]} WITH (FORCE)")

    def remove(self) -> None:
        if self._process.poll() is None:
            self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)
