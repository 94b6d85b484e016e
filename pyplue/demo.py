"""`python -m pyplue demo`: each module does its main job once, and says at which rate.

A step is a function that returns one line about what it did and raises when it did not work.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from pyplue import ffi


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


STEPS: list[tuple[str, Callable[[], str]]] = [("tokens", tokens)]


def run() -> int:
    """Runs every step; 0 when all worked, 1 otherwise."""
    failed = 0
    for name, step in STEPS:
        try:
            print(f"{name:10} {step()}", flush=True)
        except Exception as error:
            failed += 1
            print(f"{name:10} FAILED: {error}", flush=True)
    print("All of it works on this machine." if not failed else f"{failed} of {len(STEPS)} failed.")
    return 1 if failed else 0
