#!/usr/bin/env python3
"""Fuzzes the reader of recordings, pyplue.vt.cast: arguments are libFuzzer's. `./dev fuzz` runs it.

Whatever is in the file, and in whatever pieces it grew: the same events and the same errors, every
error a CastError, every text one that can be written again.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import zlib
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["pyplue.vt"]):
    from pyplue.vt.cast import CastReader, Event
    from pyplue.vt.errors import CastError

HEADER = b'{"version":2,"width":80,"height":24}\n'


def read_all(reader: CastReader) -> list[Event | str]:
    """Events, and the messages of errors between them, to the end of the file as it is now."""
    found: list[Event | str] = []
    while True:
        try:
            events = reader.read()
        except CastError as error:
            found.append(str(error))
            continue
        if not events:
            return found
        found += events


def check_header(reader: CastReader) -> None:
    try:
        header = reader.header
    except CastError:
        return
    assert header["version"] == 2
    assert all(type(n) is int and n > 0 for n in reader.initial_size)


def check_event(event: Event) -> None:
    assert abs(event.time) < 1e12
    event.data.encode()
    event.code.encode()
    if event.code == "x":
        assert str(int(event.data)) == event.data
    if event.size is not None:
        assert event.code == "r" and min(event.size) >= 0


def line_of(event: Event) -> str:
    fields = ["exit", int(event.data)] if event.code == "x" else [event.time, event.code]
    return json.dumps([*fields, event.data], ensure_ascii=bool(len(event.data) & 1))


class Growing:
    """A recording that is written piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, data: bytes = b"") -> CastReader:
        self.path.write_bytes(data)
        return CastReader(self.path)

    def add(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)


def check(recording: Growing, data: bytes) -> None:
    reader = recording.start(data)
    whole = read_all(reader)
    check_header(reader)
    events = [it for it in whole if isinstance(it, Event)]
    for event in events:
        check_event(event)
    assert reader.cut == len(data) - (data.rfind(b"\n") + 1)

    chance = random.Random(zlib.crc32(data))
    reader = recording.start()
    grown: list[Event | str] = []
    at = 0
    while at < len(data):
        end = min(len(data), at + chance.randint(1, 1 + len(data) // 3))
        recording.add(data[at:end])
        grown += read_all(reader)
        at = end
    assert grown == whole, (grown, whole)

    # From the first line that begins at or behind a place: the same as of those lines alone.
    start = chance.randint(0, len(data))
    recording.path.write_bytes(data)
    later = [it for it in read_all(CastReader(recording.path, start)) if isinstance(it, Event)]
    begin = start if start == 0 else data.find(b"\n", start - 1) + 1 or len(data)
    alone = [it for it in read_all(recording.start(data[begin:])) if isinstance(it, Event)]
    assert later == alone, (start, later, alone)

    # Written again, they are the same events.
    text = "".join(line_of(event) + "\n" for event in events)
    again = read_all(recording.start(HEADER + text.encode()))
    assert again == events, (again, events)


def main() -> None:
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(prefix="fuzz.", dir=folder) as name:
        recording = Growing(Path(name) / "stdout")
        atheris.Setup(sys.argv, lambda data: check(recording, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
