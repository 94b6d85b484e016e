"""`python -m pyplue demo`: each module does its main job once, and says at which rate.

A step is a function that returns one line about what it did and raises when it did not work, or
`NotTried` when this machine lacks a program that is not pyplue's.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pyplue import ffi, vt
from pyplue.ratelimit import RateLimiter


class NotTried(Exception):
    """What is missing here, and how to get it."""


def tokens() -> str:
    """Signs and verifies tokens with one key, and has a forged one refused."""
    key = ffi.jwt.jwt_key_create(b"a demo secret of 32 bytes or more", 33)
    try:
        count = 100_000
        sign, verify = ffi.jwt.jwt_sign_text, ffi.jwt.jwt_verify_text
        payload = b'{"sub":"alice","name":"Alice","admin":true,"exp":4102444800}'
        start = time.perf_counter()
        for _ in range(count):
            token = sign(key, payload)
        signed = time.perf_counter()
        for _ in range(count):
            if verify(key, token) != payload:
                raise RuntimeError("a token did not verify")
        verified = time.perf_counter()
        if verify(key, token[:-1] + (b"A" if token[-1:] != b"A" else b"E")) is not None:
            raise RuntimeError("a forged token was accepted")
    finally:
        ffi.jwt.jwt_key_destroy(key)
    return (
        f"{count / (signed - start):,.0f} signs/s, {count / (verified - signed):,.0f} verifies/s"
        " on one thread through ctypes; a forged token was refused"
    )


def terminals() -> str:
    """Records two terminal sessions with vibetunnel-fwd, and reads the recordings back."""
    here = Path(sysconfig.get_path("scripts")) / "vibetunnel-fwd"
    command = str(here) if here.exists() else shutil.which("vibetunnel-fwd")
    if command is None:
        raise RuntimeError("vibetunnel-fwd is not installed beside this Python or on PATH")
    with tempfile.TemporaryDirectory(prefix="vt.", dir="/tmp") as folder:  # short, for a socket

        def record(name: str, *child: str) -> tuple[int, str, float]:
            environment = {**os.environ, "VIBETUNNEL_CONTROL_DIR": folder}
            start = time.perf_counter()
            done = subprocess.run(
                [command, "--session-id", name, "--", *child],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=False,
            )
            seconds = time.perf_counter() - start
            lines = Path(folder, name, "stdout").read_text("utf-8").splitlines()[1:]
            events = [json.loads(line) for line in lines]
            text = "".join(event[2] for event in events if event[1] == "o")
            if text.encode() != done.stdout or events[-1] != ["exit", done.returncode, name]:
                raise RuntimeError(f"the recording of {name} is not what was shown")
            return done.returncode, text, seconds

        code, text, short_s = record("short", "sh", "-c", "printf 'h\\303\\251llo'; exit 7")
        if (code, text) != (7, "h\u00e9llo"):
            raise RuntimeError(f"a session that says h\u00e9llo and ends with 7: {text!r}, {code}")
        lines = 1_000_000
        _, text, long_s = record("long", "seq", str(lines))
        if not text.endswith(f"{lines}\r\n"):
            raise RuntimeError("the end of a long recording is missing")
    return (
        f"a session recorded in {short_s * 1e3:.1f} ms from start to end,"
        f" a long one whole at {len(text) / long_s / 1e6:,.0f} MB/s"
    )


def session() -> str:
    """Drives a shell on a recorded terminal from Python, and says where to watch it."""
    shell = vt.spawn(["sh"], session_id="pyplue-demo", env={**os.environ, "PS1": "$ "})
    for line in (
        """printf '\\033[32m%s\\033[0m\\n' "typed by Python on $(uname -sm)" """,
        "seq 3 | sort -r",
        "exit 7",
    ):
        time.sleep(0.3)  # so that it can be watched as it is played
        shell.send(line, key="enter")
    code = shell.wait(timeout=30)
    shown = "".join(event.data for event in shell.events() if event.code == "o")
    if code != 7 or "\x1b[32mtyped by Python" not in shown or "3\r\n2\r\n1" not in shown:
        raise RuntimeError(f"the shell ended with {code} and showed {shown!r}")
    lines = [
        "Python typed into a shell and read its terminal; the recording is kept",
        f"watch it: asciinema play {shlex.quote(str(shell.cast_path))}",
        "as text: python -m pyplue.vt tail pyplue-demo",
        "in a browser, with VibeTunnel: npm install -g vibetunnel, then run",
        '  node "$(npm root -g)/vibetunnel/dist/vibetunnel-cli" --no-auth --bind 127.0.0.1',
        "  and open http://127.0.0.1:4020",
    ]
    return f"\n{'':11}".join(lines)


def limits() -> str:
    """Floods a limiter with more new keys than it holds; who is at the limit stays refused."""
    held, batch = 50_000, 1000
    with RateLimiter(10, "1m", max_keys=held) as limiter:
        if sum(limiter.check("somebody") for _ in range(20)) != 10:
            raise RuntimeError("the limit was not kept")
        batches = [[f"{i}.{j}" for j in range(batch)] for i in range(200)]
        start = time.perf_counter()
        passed = sum(sum(limiter.check_many(keys)) for keys in batches)
        rate = len(batches) * batch / (time.perf_counter() - start)
        if limiter.check("somebody"):
            raise RuntimeError("the flood has let somebody in who was at the limit")
        if not 0 < passed < held or len(limiter) > held:
            raise RuntimeError(f"the table holds {len(limiter)} keys, {held} at most")
        return (
            f"{rate:,.0f} checks/s in a flood of {len(batches) * batch:,} new keys; {held:,} are "
            "held, and who was at the limit stayed refused"
        )


def git_over_ssh() -> str:
    """Sets up a team with python -m pyplue.ssh; the real git pushes to its server and clones."""
    missing = [name for name in ("git", "ssh", "ssh-keygen") if shutil.which(name) is None]
    if missing:
        raise NotTried(
            f"needs {' and '.join(missing)}: apt-get install git openssh-client, or your system's "
            "own way"
        )
    if find_spec("sqlalchemy") is None:
        raise NotTried("needs SQLAlchemy for its users and keys: pip install 'pyplue[ssh]'")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", root / "key"], check=True
        )
        forge = [sys.executable, "-m", "pyplue.ssh", "--state", str(root / "state")]
        for command in (
            ["user", "add", "alice"],
            ["key", "add", "alice", str(root / "key.pub")],
            ["repo", "create", "alice/project"],
            ["user", "add", "bob"],
            ["repo", "create", "bob/secret"],
        ):
            subprocess.run([*forge, *command], check=True, stdout=subprocess.DEVNULL)

        ssh = f"ssh -F none -i {root}/key -o IdentitiesOnly=yes -o StrictHostKeyChecking=no"
        ssh += f" -o UserKnownHostsFile={root}/known_hosts -o BatchMode=yes -o LogLevel=ERROR"
        who = ["-c", "user.name=Alice", "-c", "user.email=alice@example.org"]
        environment = {**os.environ, "GIT_SSH_COMMAND": ssh, "GIT_TERMINAL_PROMPT": "0"}

        def git(*words: str | Path) -> float:
            start = time.perf_counter()
            subprocess.run(["git", *who, *words], check=True, env=environment, capture_output=True)
            return time.perf_counter() - start

        size = 16 << 20
        git("init", "-q", root / "work")
        (root / "work" / "large.bin").write_bytes(os.urandom(size))
        git("-C", root / "work", "add", "-A")
        git("-C", root / "work", "commit", "-q", "-m", "First")
        with (
            open(root / "log", "w") as log,
            subprocess.Popen(
                [*forge, "serve", "--port", "0", "--json"], stdout=subprocess.PIPE, stderr=log
            ) as server,
        ):
            try:
                hello = server.stdout.readline() if server.stdout else b""
                if not hello:
                    raise RuntimeError(f"no server: {(root / 'log').read_text()}")
                address = f"ssh://git@127.0.0.1:{json.loads(hello)['port']}"
                pushed_s = git(
                    "-C", root / "work", "push", "-q", f"{address}/alice/project", "HEAD:main"
                )
                cloned_s = git("clone", "-q", f"{address}/alice/project.git", root / "again")
                refused = subprocess.run(
                    ["git", "clone", f"{address}/bob/secret", root / "no"],
                    env=environment,
                    capture_output=True,
                )
            finally:
                server.terminate()
        if server.returncode != 0:
            raise RuntimeError(f"the server ended badly: {(root / 'log').read_text()}")
        if (root / "again" / "large.bin").read_bytes() != (
            root / "work" / "large.bin"
        ).read_bytes():
            raise RuntimeError("what was cloned is not what was pushed")
        if refused.returncode == 0:
            raise RuntimeError("somebody else's repository was given away")
    return (
        f"the real git pushed {size >> 20} MB in {pushed_s:.1f} s and cloned them in"
        f" {cloned_s:.1f} s through python -m pyplue.ssh on SQLite; another's repository was"
        " refused"
    )


STEPS: list[tuple[str, Callable[[], str]]] = [
    ("tokens", tokens),
    ("limits", limits),
    ("git", git_over_ssh),
    ("terminals", terminals),
    ("session", session),
]


def run() -> int:
    """Runs every step; 0 when all that could be tried worked, 1 otherwise."""
    failed = not_tried = 0
    for name, step in STEPS:
        try:
            print(f"{name:10} {step()}", flush=True)
        except NotTried as missing:
            not_tried += 1
            print(f"{name:10} not tried, {missing}", flush=True)
        except Exception as error:
            failed += 1
            print(f"{name:10} FAILED: {error}", flush=True)
    if failed:
        print(f"{failed} of {len(STEPS)} failed.")
    elif not_tried:
        print(f"{len(STEPS) - not_tried} of {len(STEPS)} were tried, and work on this machine.")
    else:
        print("All of it works on this machine.")
    return 1 if failed else 0
