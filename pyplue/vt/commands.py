"""What `python -m pyplue.vt` does, one function for each command; each returns the exit status."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

from pyplue.vt import export as exporter
from pyplue.vt.attach import attach as attach_here
from pyplue.vt.cast import CastReader
from pyplue.vt.control_dir import control_dir
from pyplue.vt.errors import CastError, SessionNotFoundError, VtError
from pyplue.vt.info import SessionInfo
from pyplue.vt.printable import printable
from pyplue.vt.prune import remove
from pyplue.vt.session import Session
from pyplue.vt.session import sessions as all_sessions
from pyplue.vt.transcript import Transcript

FORMATS = ("text", "v3", "svg")
_SUFFIXES = {".txt": "text", ".log": "text", ".cast": "v3", ".svg": "svg"}

# How far back `tail` looks for lines.
_TAIL_BYTES = 4 << 20


def find(options: argparse.Namespace, name: str) -> Session:
    """The session with this id, or the only one whose id begins so."""
    try:
        return Session.open(name, control_dir=options.control_dir)
    except SessionNotFoundError:
        ids = [session.id for session in all_sessions(control_dir=options.control_dir)]
        found = [session_id for session_id in ids if session_id.startswith(name)]
        if not found:
            raise
        if len(found) > 1:
            raise SessionNotFoundError(
                f"{name} is the beginning of {len(found)} ids, such as {found[0]} and {found[1]}: "
                "write more of it"
            ) from None
        return Session.open(found[0], control_dir=options.control_dir)


def one_line(error: Exception) -> str:
    """What an exception says, harmless on a terminal; without the screen that some show."""
    text = str(error).partition("\n")[0]
    if isinstance(error, OSError) and error.strerror and not isinstance(error, VtError):
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return printable(text, 1000)


def _not_from_within(session: Session) -> None:
    """What it shows here would be its own output, for ever."""
    if os.environ.get("VIBETUNNEL_SESSION_ID") == session.id:
        raise VtError(f"this terminal is session {session.id}: look at it from another one")


def _with_info(options: argparse.Namespace) -> Iterator[tuple[Session, SessionInfo]]:
    """All sessions but those that somebody removes meanwhile."""
    for session in all_sessions(control_dir=options.control_dir):
        try:
            info = session.info
        except VtError:
            continue
        yield session, info


def list_sessions(options: argparse.Namespace) -> int:
    found = list(_with_info(options))
    if options.json:
        rows = []
        for session, info in found:
            known = {"id": info.id, "status": info.status, "castPath": str(session.cast_path)}
            rows.append({**info.fields, **known})
        print(json.dumps(rows, indent=2).replace("\x7f", "\\u007f"))
        return 0
    if not found:
        print(f"no sessions in {control_dir(options.control_dir)}", file=sys.stderr)
        return 0
    table: list[tuple[str, ...]] = [("ID", "STATUS", "STARTED", "NAME", "COMMAND")]
    for _, info in found:
        code = "?" if info.exit_code is None else info.exit_code
        status = info.status if info.running else f"exited {code}"
        command = printable(" ".join(info.command), 200)
        table.append((info.id, status, _local_time(info), printable(info.name, 40), command))
    for line in _columns(table):
        print(line)
    return 0


def _local_time(info: SessionInfo) -> str:
    if info.started_at is None:
        return ""
    # The first and the last day of the calendar are in no other time zone.
    with contextlib.suppress(OverflowError, ValueError):
        return info.started_at.astimezone().strftime("%Y-%m-%d %H:%M")
    return "?"


def _columns(table: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*table, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for row in table:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()[:room]


def tail(options: argparse.Namespace) -> int:
    if options.lines < 0:
        raise ValueError("--lines is a number of lines, 0 or more")
    session = find(options, options.session)
    if options.follow:
        _not_from_within(session)
    size = session.cast_path.stat().st_size
    transcript, ended = Transcript(), False
    last: deque[str] = deque(maxlen=options.lines)
    with contextlib.closing(CastReader(session.cast_path, max(0, size - _TAIL_BYTES))) as cast:
        while events := cast.read():
            last.extend(transcript.feed(events))
            ended = events[-1].code == "x"
        offset = cast.position - cast.cut
    if not options.follow:
        last.extend(transcript.flush())
    _print(last)
    if options.follow and not ended:
        for event in session.events(offset=offset):
            _print(transcript.feed([event]))
        _print(transcript.flush())
    return 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()


def send(options: argparse.Namespace) -> int:
    text = sys.stdin.buffer.read() if options.text == "-" else os.fsencode(options.text)
    find(options, options.session).send(text, key=options.key)
    return 0


def attach(options: argparse.Namespace) -> int:
    session = find(options, options.session)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise VtError("attach needs a terminal: tail -f prints the output anywhere")
    _not_from_within(session)
    ended = attach_here(session, detach_key=options.detach_key, read_only=options.read_only)
    name = printable(session.id)
    if ended.exit_code is not None:
        print(f"[session {name} ended with exit code {ended.exit_code}]")
    else:
        print(f"[left session {name}; python -m pyplue.vt attach {name} comes back]")
    return 0


def kill(options: argparse.Namespace) -> int:
    session = find(options, options.session)
    number = options.signal
    session.kill(int(number) if number.isdecimal() else number)
    if options.wait is not None:
        session.wait(timeout=options.wait)
    return 0


def rename(options: argparse.Namespace) -> int:
    find(options, options.session).rename(options.name)
    return 0


def prune(options: argparse.Namespace) -> int:
    if options.sessions:
        chosen = [find(options, name) for name in options.sessions]
    else:
        chosen = [session for session, info in _with_info(options) if not info.running]
    status = 0
    for session in chosen:
        try:
            if not options.dry_run:
                remove(session)
            print(f"{'would remove' if options.dry_run else 'removed'} {session.id}")
        except (VtError, OSError) as error:
            print(f"pyplue.vt: {one_line(error)}", file=sys.stderr)
            status = 1
    return status


def export(options: argparse.Namespace) -> int:
    path, title = _recording(options)
    output = Path(options.output) if options.output else None
    chosen = options.format or (_SUFFIXES.get(output.suffix.lower()) if output else "text")
    if chosen is None:
        raise ValueError(f"{options.output}: which format is it? --format {'|'.join(FORMATS)}")
    if options.at is not None and chosen != "svg":
        raise ValueError("--at is for --format svg")
    try:
        cast = CastReader(path)
    except FileNotFoundError:
        raise CastError(f"{path} is missing: there is no recording") from None
    progress = _Progress()
    try:
        _ = cast.header  # raises when it is no recording
        if chosen == "text":
            pieces = exporter.to_text(cast, progress)
        elif chosen == "v3":
            pieces = exporter.to_v3(cast, progress)
        else:
            pieces = exporter.to_svg(cast, progress, title=title, at=options.at)
        _write(output, pieces)
        progress.done()
        if cast.cut:
            print(
                f"pyplue.vt: {path} ends in the middle of a line: its last {cast.cut} bytes are "
                "left out",
                file=sys.stderr,
            )
    finally:
        cast.close()
    return 0


def _recording(options: argparse.Namespace) -> tuple[Path, str]:
    """The path of a recording, and what it may be called."""
    name: str = options.recording
    if "/" in name or "." in name:
        return Path(name), Path(name).stem
    session = find(options, name)
    return session.cast_path, session.info.name


def _write(output: Path | None, pieces: Iterable[str]) -> None:
    """To a file as a whole or not at all; devices and pipes are written to as they are."""
    if output is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece.encode("utf-8", "replace"))
        return
    if output.exists() and not output.is_file():
        with output.open("w", encoding="utf-8", errors="replace") as device:
            device.writelines(pieces)
        return
    output = output.resolve()  # a link stays one
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", errors="replace", dir=output.parent, prefix=f".{output.name}.",
        delete=False,
    ) as file:  # fmt: skip
        try:
            for piece in pieces:
                file.write(piece)
            file.close()
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(file.name, 0o666 & ~umask)
            os.replace(file.name, output)
        except BaseException:
            os.unlink(file.name)
            raise


class _Progress:
    """How much of a long work is done, on standard error when that is a terminal."""

    def __init__(self) -> None:
        self._next = time.monotonic() + 0.3 if sys.stderr.isatty() else float("inf")
        self._shown = False

    def __call__(self, part: float) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + 0.1
            self._shown = True
            print(f"\rexporting {part:4.0%} ", end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
