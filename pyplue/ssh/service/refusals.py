"""Whom the server has refused and why: kept as JSON lines in files that follow each other.

Records hold fingerprints, never keys. The files are their owner's alone (mode 0600).
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

FILE_MAX_BYTES = 8 << 20
FILES_MAX = 8
"""So many files are kept, the newest included: 64 MB, some 250,000 refusals."""

_LINE_MAX = 64 << 10
# What a date can show.
_TIME_MAX = 1 << 36


class RefusalFile:
    """Where `serve` adds to. Safe to use from any thread."""

    def __init__(self, path: Path, max_bytes: int = FILE_MAX_BYTES, files: int = FILES_MAX) -> None:
        self._handler = _PrivateFile(path, maxBytes=max_bytes, backupCount=files - 1, delay=True)

    def add(self, record: dict[str, Any]) -> None:
        """Raises OSError when the disk does not take it."""
        self._handler.handle(logging.makeLogRecord({"msg": json.dumps(record)}))

    def reopen(self) -> None:
        """The next record goes to a file of that name, also when somebody has moved it away."""
        self._handler.acquire()
        try:
            self._handler.close_stream()
        finally:
            self._handler.release()

    def close(self) -> None:
        self._handler.close()


class _PrivateFile(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.baseFilename, flags, 0o600)
        os.fchmod(descriptor, 0o600)
        return open(descriptor, "a", encoding="ascii")

    def close_stream(self) -> None:
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

    def handleError(self, record: logging.LogRecord) -> NoReturn:
        # What the disk did not take must not be tried again with the next record.
        self.close_stream()
        raise


def read(path: Path) -> Iterator[dict[str, Any]]:
    """All records that are kept, oldest first. What is no record is left out.

    Raises OSError when a file cannot be read; no file is no record.
    """
    with contextlib.ExitStack() as stack:
        # Their names are no order: the server may have begun new ones meanwhile.
        for file in sorted(_open_all(path, stack), key=_begins_at):
            file.seek(0)
            yield from _records(file)


def _begins_at(file: BinaryIO) -> float:
    first = next(_records(file), None)
    return float("inf") if first is None else first["time"]  # the newest may still be empty


def _records(file: BinaryIO) -> Iterator[dict[str, Any]]:
    while line := file.readline(_LINE_MAX):
        record = _parse(line)
        if record is not None:
            yield record


def _open_all(path: Path, stack: contextlib.ExitStack) -> list[BinaryIO]:
    """Newest first: while the server begins a new file, one may be met twice but none missed."""
    files: list[BinaryIO] = []
    seen = set()
    number = 0
    while True:
        name = path if number == 0 else path.with_name(f"{path.name}.{number}")
        try:
            file = stack.enter_context(name.open("rb"))
        except FileNotFoundError:
            if number > 0:
                return files
        else:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                files.append(file)
        number += 1


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:  # the end of a file when the server was killed
        return None
    if not isinstance(record, dict):
        return None
    time = record.get("time")
    return record if isinstance(time, int | float) and 0 <= time < _TIME_MAX else None
