#!/usr/bin/env python3
"""Fuzzes what becomes of a program's output in Python, pyplue.vt.screen and the filter of attach:
arguments are libFuzzer's. `./dev fuzz` runs it.

Whatever a program writes, and in whatever pieces: nothing is raised, the same is shown, and the
same is kept from a terminal. The first two bytes of an input are the size.
"""

from __future__ import annotations

import random
import sys
import zlib

import atheris

with atheris.instrument_imports(include=["pyplue.vt", "pyte"]):
    import pyplue.vt.emulator  # noqa: F401 (screen.py imports it late)
    from pyplue.vt.screen import Screen
    from pyplue.vt.sequences import SequenceBuffer, without_queries


def shown(screen: Screen) -> tuple[object, ...]:
    assert len(screen.lines) == screen.rows
    cols, rows = screen.cursor
    assert 0 <= cols < screen.cols and 0 <= rows < screen.rows
    return screen.lines, screen.cursor


def harmless(pieces: list[str]) -> str:
    sequences = SequenceBuffer()
    return "".join(without_queries(sequences.feed(piece)) for piece in pieces)


def check(data: bytes) -> None:
    if len(data) < 2:
        return
    text = data[2:].decode(errors="replace")
    chance = random.Random(zlib.crc32(data))
    pieces = []
    at = 0
    while at < len(text):
        end = at + chance.randint(1, 40)
        pieces.append(text[at:end])
        at = end

    whole = Screen(data[0] % 40 + 1, data[1] % 12 + 1)
    cut = Screen(whole.cols, whole.rows)
    whole.feed(text)
    for piece in pieces:
        cut.feed(piece)
    assert shown(whole) == shown(cut), (shown(whole), shown(cut), text)

    kept = harmless(pieces)
    assert kept == harmless([text]), (kept, text)
    assert without_queries(kept) == kept, (kept, text)


def main() -> None:
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
