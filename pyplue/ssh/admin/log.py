"""python -m pyplue.ssh log"""

from __future__ import annotations

import argparse
import re
import textwrap
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any

from pyplue.ssh.admin.parser import Answer, Commands, UsageError, add_command
from pyplue.ssh.admin.state import state_of
from pyplue.ssh.admin.text import plain, table
from pyplue.ssh.errors import SshError
from pyplue.ssh.service import refusals
from pyplue.ssh.service.reasons import codes, explain

_LAST = 20
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_EPILOG = f"""\
  python -m pyplue.ssh log --user alice --since 2h
  python -m pyplue.ssh log --fingerprint SHA256:...    (ssh-keygen -lf KEY.pub prints it)
What fits all options is shown, the newest last. The reasons, beside the system's own words:
{textwrap.fill(", ".join(codes()), 78, initial_indent="  ", subsequent_indent="  ")}
"""

_Test = Callable[[dict[str, Any]], bool]


def add_commands(commands: Commands) -> None:
    log = add_command(
        commands,
        "log",
        _log,
        "show whom the server has refused, and why",
        "Shows whom the server has refused, why, and what helps.",
        _EPILOG,
    )
    log.add_argument("--reason", metavar="CODE", help="only this reason")
    log.add_argument("--fingerprint", metavar="SHA256:...", help="only this key")
    log.add_argument("--address", help="only this client address")
    log.add_argument(
        "--user", metavar="NAME", help="only this user, or who tried to log in under that name"
    )
    log.add_argument("--repository", metavar="USER/NAME", help="only this repository")
    log.add_argument(
        "--since",
        metavar="WHEN",
        type=moment,
        default=0.0,
        help="90s, 30m, 2h, 3d, 1w, or a time such as 2026-02-27 or 2026-02-27T15:00 (UTC)",
    )
    log.add_argument(
        "--last", metavar="N", type=_count, default=_LAST, help=f"0 is all; otherwise {_LAST}"
    )


def moment(text: str) -> float:
    """Unix seconds, from how long ago or from a date and time."""
    ago = re.fullmatch(r"(\d{1,9})([smhdw])", text, re.ASCII)
    if ago:
        return time.time() - int(ago[1]) * _UNITS_S[ago[2]]
    try:
        # Python 3.10 does not know the Z.
        when = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (when if when.tzinfo else when.replace(tzinfo=timezone.utc)).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write 2h, 3d or 2026-02-27T15:00"
        ) from None


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of refusals")
    return int(text)


def _log(options: argparse.Namespace) -> Answer:
    path = state_of(options).refusals
    wanted = _tests(options)
    kept: deque[dict[str, Any]] = deque(maxlen=options.last or None)
    seen = set()
    try:
        for record in refusals.read(path):
            seen.add(_word(record, "reason"))
            if all(test(record) for test in wanted):
                kept.append(record)
    except OSError as error:
        raise SshError(f"cannot read {path}: {error.strerror}") from error
    if options.reason and options.reason not in {*seen, *codes()}:
        raise UsageError(f"no reason is called {options.reason!r}: use {', '.join(codes())}")
    if not kept:
        return Answer([], "nobody was refused" if not seen else "no refusal fits these options")
    return Answer([_document(record) for record in kept], "\n".join(_text(list(kept))))


def _tests(options: argparse.Namespace) -> list[_Test]:
    tests: list[_Test] = [lambda record: record["time"] >= options.since]
    for name in ("reason", "fingerprint", "address"):
        if getattr(options, name) is not None:
            tests.append(_equal(name, getattr(options, name)))
    if options.user is not None:
        tests.append(lambda record: options.user in (record.get("principal"), record.get("user")))
    if options.repository is not None:
        tests.append(_equal("repository", options.repository.removesuffix(".git")))
    return tests


def _equal(name: str, wanted: str) -> _Test:
    return lambda record: record.get(name) == wanted


def _document(record: dict[str, Any]) -> dict[str, Any]:
    reason = explain(_word(record, "event"), _word(record, "reason"))
    shown = {"time": _time(record), **{k: v for k, v in record.items() if k != "time"}}
    return {**shown, "meaning": reason.meaning, "cure": reason.cure}


def _text(records: list[dict[str, Any]]) -> Iterator[str]:
    """The refusals, and below what their reasons mean."""
    rows = [
        (
            _time(record),
            _word(record, "address"),
            _word(record, "principal") or _word(record, "user"),
            _word(record, "reason"),
            _word(record, "repository") or _word(record, "request"),
            _word(record, "fingerprint"),
        )
        for record in records
    ]
    yield table(("time", "address", "user", "reason", "what", "key"), rows, "")
    yield ""
    for event, reason in sorted({(_word(r, "event"), _word(r, "reason")) for r in records}):
        explained = explain(event, reason)
        yield f"{plain(reason)}: {explained.meaning}."
        yield f"  {explained.cure[0].upper()}{explained.cure[1:]}."


def _time(record: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(record["time"], timezone.utc)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _word(record: dict[str, Any], name: str) -> str:
    value = record.get(name, "")
    return value if isinstance(value, str) else str(value)
