"""The log of `serve`: one line for each connection and command, and for what people must know."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, Literal, TextIO

from pyplue.ssh.service.activity import Activity
from pyplue.ssh.service.refusals import RefusalFile

Format = Literal["text", "json"]

_PLAIN = re.compile(r"[A-Za-z0-9._/:@+~-]+")
# Events that are told even though they end neither a connection nor a command.
_TOLD = frozenset({"error"})


class ServiceLog(logging.Handler):
    """Writes lines to `stream` and refusals to `refusals`."""

    def __init__(self, stream: TextIO, form: Format, refusals: RefusalFile) -> None:
        super().__init__()
        self._stream = stream
        self._line: Callable[[dict[str, Any]], str] = _json_line if form == "json" else _text_line
        self._refusals = refusals
        self._activity = Activity()
        self._refusals_failed = False
        self._writing = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        event: dict[str, Any] | None = getattr(record, "event", None)
        if event is None:
            self._say(_message(record))
            return
        # Both look at every event: the second needs what the first has learned.
        refusal = self._activity.refusal(event)
        line = self._activity.record(event)
        if refusal is not None:
            self._keep(refusal)
        if line is not None:
            self._say(line)
        elif event.get("event") in _TOLD:
            detail = event.get("detail", "")
            self._say({"time": event["time"], "level": event["level"], "log": "server",
                       "message": detail})  # fmt: skip

    def _say(self, fields: dict[str, Any]) -> None:
        try:
            with self._writing:
                self._stream.write(self._line(fields) + "\n")
                self._stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more; the server goes on

    def _keep(self, refusal: dict[str, Any]) -> None:
        try:
            self._refusals.add(refusal)
        except OSError as error:
            if not self._refusals_failed:
                self._say(_now("error", f"cannot keep refusals for later: {error}"))
            self._refusals_failed = True
        else:
            self._refusals_failed = False


def _message(record: logging.LogRecord) -> dict[str, Any]:
    text = record.getMessage()
    if record.exc_info and record.exc_info[1] is not None:
        text += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    return {
        "time": record.created,
        "level": record.levelname.lower(),
        "log": "server",
        "message": text,
    }


def _now(level: str, text: str) -> dict[str, Any]:
    now = datetime.now(timezone.utc).timestamp()
    return {"time": now, "level": level, "log": "server", "message": text}


def _json_line(fields: dict[str, Any]) -> str:
    return json.dumps({**fields, "time": timestamp(fields["time"])})


def _text_line(fields: dict[str, Any]) -> str:
    words = [timestamp(fields["time"]), fields["level"], fields["log"]]
    if "message" in fields:
        words.append(json.dumps(fields["message"])[1:-1].replace('\\"', '"'))
    words += [
        f"{name}={_value(value)}"
        for name, value in fields.items()
        if name not in ("time", "level", "log", "message")
    ]
    return " ".join(words)


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def timestamp(seconds: float) -> str:
    """ISO 8601 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
