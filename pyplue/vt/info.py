"""What a session's session.json says. Others wrote it: every member may be missing or wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pyplue.processes import is_alive
from pyplue.vt.control_dir import MAX_JSON_BYTES, open_regular
from pyplue.vt.errors import SessionDataError, SessionNotFoundError


@dataclass(frozen=True)
class SessionInfo:
    """One look at a session.

    Texts are as they were written: pass them through `pyplue.vt.printable` before a terminal sees
    them. `status` is "starting", "running" or "exited"; a session whose process is gone is
    "exited", also when its forwarder was killed and could not say so; `exit_code` is None then.
    """

    id: str
    name: str
    command: tuple[str, ...]
    working_dir: str
    status: str
    started_at: datetime | None
    pid: int | None
    exit_code: int | None
    cols: int | None
    rows: int | None
    last_clear_offset: int
    # The whole of session.json.
    fields: Mapping[str, Any] = field(repr=False)

    @property
    def running(self) -> bool:
        """Whether it is not "exited"."""
        return self.status != "exited"


def read_info(directory: Path) -> SessionInfo:
    """Reads `directory`/session.json. Raises SessionDataError, or SessionNotFoundError when it is
    not there."""
    path = directory / "session.json"
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        raise SessionNotFoundError(f"{directory} has no session.json: it is no session") from None
    try:
        text = os.read(descriptor, MAX_JSON_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(text) > MAX_JSON_BYTES:
        raise SessionDataError(f"{path} is larger than {MAX_JSON_BYTES} bytes: it is no session's")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SessionDataError(f"{path} is not JSON ({error}): remove the session") from None
    if not isinstance(value, dict):
        raise SessionDataError(f"{path} is no JSON object: remove the session")
    return _info(directory.name, value)


def _info(session_id: str, value: dict[str, Any]) -> SessionInfo:
    pid = _integer(value, "pid")
    if pid is not None and pid <= 0:
        pid = None
    status = _text(value, "status")
    if status not in ("starting", "exited"):
        status = "running"
    if status == "running" and (pid is None or not is_alive(pid)):
        status = "exited"
    command = value.get("command")
    return SessionInfo(
        id=session_id,
        name=_text(value, "name"),
        command=tuple(str(word) for word in command) if isinstance(command, list) else (),
        working_dir=_text(value, "workingDir"),
        status=status,
        started_at=_time(_text(value, "startedAt")),
        pid=pid,
        exit_code=_integer(value, "exitCode") if status == "exited" else None,
        cols=_integer(value, "initialCols"),
        rows=_integer(value, "initialRows"),
        last_clear_offset=max(0, _integer(value, "lastClearOffset") or 0),
        fields=value,
    )


def _text(value: dict[str, Any], key: str) -> str:
    text = value.get(key)
    return text if isinstance(text, str) else ""


def _integer(value: dict[str, Any], key: str) -> int | None:
    number = value.get(key)
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _time(text: str) -> datetime | None:
    """ISO 8601 in UTC, with whatever precision."""
    try:
        moment = datetime.fromisoformat(text[:19])
    except ValueError:
        return None
    return moment.replace(tzinfo=timezone.utc)
