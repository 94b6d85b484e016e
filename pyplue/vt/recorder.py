"""`record`: keeps what happens in a `with` block as an asciicast file, for docs and tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, overload

from pyplue.vt.block import BlockRecording
from pyplue.vt.control_dir import StrPath
from pyplue.vt.errors import VtError
from pyplue.vt.session import Session
from pyplue.vt.spawn import Word, spawn

# A program that is still there at the end of the block gets SIGHUP, and after this SIGKILL.
_PATIENCE_S = 2.0


@overload
def record(
    path: StrPath, *, cols: int = 80, rows: int = 24, title: str | None = None, echo: bool = True
) -> AbstractContextManager[BlockRecording]: ...
@overload
def record(
    path: StrPath,
    argv: Sequence[Word],
    *,
    cols: int = 80,
    rows: int = 24,
    title: str | None = None,
    **options: Any,
) -> AbstractContextManager[Session]: ...


def record(
    path: StrPath,
    argv: Sequence[Word] | None = None,
    *,
    cols: int = 80,
    rows: int = 24,
    title: str | None = None,
    echo: bool = True,
    **options: Any,
) -> AbstractContextManager[BlockRecording] | AbstractContextManager[Session]:
    """Records to the asciicast file `path`, which `asciinema play` plays; it is complete when the
    block ends, also with an exception.

        with vt.record("demo.cast"):
            print("Hello"); subprocess.run(["ls", "--color=auto"])

    Everything that this process and its children write to standard output and standard error in
    the block, which they find to be a terminal of `cols` x `rows`. With `echo` it also goes where
    standard output went. What is read from standard input, and what is written to /dev/tty, is not
    in it. It concerns the whole process: other threads' output is recorded too.

        with vt.record("demo.cast", ["python3", "-q"]) as session:
            session.send("6 * 7", key="enter"); session.wait("42")

    With `argv`: a session of its own, which is driven in the block, with what is typed. Further
    `options` are `spawn`'s. A program that runs at the end of the block is hung up (SIGHUP).
    Without a `control_dir` nobody else sees the session, and only its recording stays.
    """
    if argv is None:
        if options:
            raise TypeError(f"{next(iter(options))} is for a recording of a program: give argv")
        return BlockRecording(Path(path), cols, rows, title, echo)
    if title is not None:
        options.setdefault("name", title)
    return _recorded_session(Path(path), argv, {"cols": cols, "rows": rows, **options})


@contextlib.contextmanager
def _recorded_session(
    path: Path, argv: Sequence[Word], options: dict[str, Any]
) -> Iterator[Session]:
    with contextlib.ExitStack() as stack:
        if options.get("control_dir") is None:
            options["control_dir"] = stack.enter_context(private_control_dir())
        session = spawn(argv, **options)
        try:
            yield session
        finally:
            end(session)
            if path.exists() and not path.is_file():  # a device or a pipe stays one
                path.write_bytes(session.cast_path.read_bytes())
            else:
                staged = path.with_name(f".{path.name}.{os.getpid()}.tmp")
                shutil.copyfile(session.cast_path, staged)
                staged.replace(path)


@contextlib.contextmanager
def private_control_dir() -> Iterator[Path]:
    """A control directory that is removed with all that is in it; sockets fit into its path."""
    parent = "/tmp" if os.access("/tmp", os.W_OK) else None  # noqa: S108 (mkdtemp makes it safe)
    folder = tempfile.mkdtemp(prefix="vt.", dir=parent)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def end(session: Session) -> None:
    """Ends a session if it runs, and waits until its recording is complete."""
    for signal in ("SIGHUP", "SIGKILL"):
        with contextlib.suppress(VtError):
            if not session.info.running:
                break
            session.kill(signal)
            session.wait(timeout=_PATIENCE_S)
    with contextlib.suppress(VtError):
        session.wait(timeout=_PATIENCE_S)
