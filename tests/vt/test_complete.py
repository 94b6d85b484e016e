"""Nothing is lost: mixed output, byte for byte, on the outer terminal and in the recording."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
from pathlib import Path

import pytest

from vt.harness import Home, background, decode

# The full size is 100; the run for every change is smaller.
MEGABYTES = int(os.environ.get("VT_OUTPUT_MB", "10"))

# Writes a file to its terminal in pieces: tiny ones at first, which split characters and
# sequences everywhere, then up to 64 KiB.
WRITER = """
import os, random, sys, tty
tty.setraw(1)
rng = random.Random(7)
data = memoryview(open(sys.argv[1], "rb").read())
at = 0
while at < len(data):
    size = rng.randint(1, 5) if at < 100_000 else rng.choice((7, 100, 4096, 65536))
    at += os.write(1, data[at : at + size])
"""

pytestmark = pytest.mark.timeout(900)


def mixed(size: int) -> bytes:
    """Text, characters of every length, escape sequences and, one part in twenty, any bytes."""
    rng = random.Random(size)
    parts: list[bytes] = []
    length = 0
    while length < size:
        choice = rng.randrange(20)
        if choice == 0:
            part = rng.randbytes(rng.randint(1, 400))
        elif choice < 4:
            part = "".join(rng.choice("aé€😀日\u07ff\uffff\U0010ffff") for _ in range(60)).encode()
        elif choice < 8:
            part = b"\x1b[%d;%dm\x1b[%dA\x1b]8;;http://x/%d\x1b\\link\x1b]8;;\x1b\\\x1b(B\x1b7" % (
                rng.randrange(8),
                rng.randrange(100),
                rng.randrange(50),
                choice,
            )
        elif choice == 8:
            part = rng.choice([b"\x1b[2J", b"\x1b[3J", b"\x1bc", b"\x1b[H\x1b[2J", b"\x1b[?1049h"])
        else:
            part = b"a line of text, number %09d, as a compiler prints them\r\n" % length
            part *= rng.randint(1, 60)
        parts.append(part)
        length += len(part)
    return b"".join(parts)[:size]


def peak_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_mixed_output_is_complete(home: Home) -> None:
    data = mixed(MEGABYTES * 1_000_000)
    file = home.path / "data"
    file.write_bytes(data)
    terminal = home.terminal(sys.executable, "-c", WRITER, str(file))
    peak = [0]

    def watch(stop: threading.Event) -> None:
        while not stop.wait(0.1) and terminal.popen.poll() is None:
            try:
                peak[0] = max(peak[0], peak_kib(terminal.pid))
            except (OSError, StopIteration):
                return

    with background(watch):
        assert terminal.wait(600) == 0
    shown = terminal.output
    assert len(shown) == len(data)
    assert hashlib.sha256(shown).digest() == hashlib.sha256(data).digest()
    recording = terminal.session.recording()
    assert recording.text() == decode(data)
    assert recording.exit == (0, terminal.session.id)
    assert terminal.session.info["exitCode"] == 0
    if sys.platform == "linux":
        print(f"{MEGABYTES} MB whole, peak memory {peak[0]} KiB")
        assert 0 < peak[0] < 8192, "memory does not grow with the output"


@pytest.mark.parametrize("mode", ["filter", "static"])
def test_output_without_titles_is_complete_through_the_filter(home: Home, mode: str) -> None:
    data = mixed(2_000_000).replace(b"\x1b]0", b"").replace(b"\x1b]1", b"").replace(b"\x1b]2", b"")
    data = data.decode("utf-8", "ignore").encode()
    file = home.path / "data"
    file.write_bytes(data)
    terminal = home.terminal(sys.executable, "-c", WRITER, str(file), flags=("--title-mode", mode))
    assert terminal.wait(100) == 0
    title = b"" if mode == "filter" else terminal.output[: terminal.output.index(b"\x07") + 1]
    assert terminal.output[len(title) :] == data
    assert terminal.session.recording().text() == data.decode()
