"""One hostile client: sends random scripts of frames, whole, broken and wrong, to a socket.

python storm_client.py SOCKET SEED SCRIPTS
"""

from __future__ import annotations

import json
import random
import socket
import struct
import sys
import time


def frame(kind: int, payload: bytes) -> bytes:
    return struct.pack(">BI", kind, len(payload)) + payload


def command(rng: random.Random) -> bytes:
    odd = [0, -1, 65536, 80.5, "80", None, True, [], {}, 10**40, "x" * 1000]
    size = {"cmd": "resize", "cols": rng.randint(1, 500), "rows": rng.randint(1, 200)}
    chosen = rng.choice(
        [
            size,
            {"cmd": "resize", "cols": rng.choice(odd), "rows": rng.choice(odd)},
            {"cmd": "reset-size"},
            {"cmd": "update-title", "title": rng.choice(["a\x1b]2;b\x07", "t" * 600, "é€"])},
            {"cmd": "update-title", "title": rng.choice(odd[:6])},
            # Signals that the child ignores, and what is no signal.
            {"cmd": "kill", "signal": rng.choice(["SIGWINCH", "urg", 28, "NOPE", 0, -9, 65, [9]])},
            {"cmd": "kill", "signal": "SIGTERM"},
            {"cmd": rng.choice(odd)},
            rng.choice(odd),
        ]
    )
    text = json.dumps(chosen).encode()
    if rng.random() < 0.1:
        text = text[: rng.randrange(len(text) + 1)]
    if rng.random() < 0.05:
        text = b"[" * rng.randrange(20_000)
    return frame(2, text)


def piece(rng: random.Random) -> bytes:
    choice = rng.randrange(12)
    if choice < 4:
        return command(rng)
    if choice < 7:
        return frame(1, rng.randbytes(rng.choice((0, 1, 5, 300, 5000, 60_000))))
    if choice == 7:
        return frame(4, b"") * rng.randint(1, 200)
    if choice == 8:
        return frame(rng.randrange(256), rng.randbytes(rng.randrange(2000)))
    if choice == 9:  # a length that promises more than comes, or more than is allowed
        return struct.pack(">BI", rng.randrange(7), rng.choice((100, 1 << 20, 1 << 24, 2**32 - 1)))
    if choice == 10:
        return rng.randbytes(rng.randint(1, 40))
    return frame(3, b'{"status":"busy"}') * rng.randint(1, 50)


def script(path: str, rng: random.Random) -> None:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(2)
    try:
        peer.connect(path)
        data = b"".join(piece(rng) for _ in range(rng.randint(1, 12)))
        step = rng.choice((1, 3, 100, 5000, len(data) or 1)) if len(data) < 3000 else 65536
        for at in range(0, len(data), step):
            peer.sendall(data[at : at + step])
            if rng.random() < 0.02:
                time.sleep(0.001)
        if rng.random() < 0.3:
            peer.shutdown(socket.SHUT_WR)
        if rng.random() < 0.5:
            peer.settimeout(0.02)
            peer.recv(1 << 16)
        if rng.random() < 0.2:  # a reset instead of an end
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (TimeoutError, ConnectionError, BlockingIOError):
        pass  # being refused, closed or kept waiting is an answer
    finally:
        peer.close()


def main() -> None:
    path, seed, scripts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    rng = random.Random(seed)
    for _ in range(scripts):
        script(path, rng)


if __name__ == "__main__":
    main()
