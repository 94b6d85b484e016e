"""Turns the server's events into one record for each connection and each command."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]
"""`time` (Unix seconds), `level`, `log` ("connection" or "command") and what the names say."""

# More than a server admits: the oldest is only dropped when events have been lost.
_CONNECTIONS_MAX = 1 << 17
_DIRECTIONS = {
    "upload-pack": "fetch",
    "receive-pack": "push",
    "upload-archive": "archive",
}
# Ends of a connection that are nobody's fault.
_GOOD_ENDS = frozenset({"client", "stopping"})
# A git that goes on without its client, whose "disconnected" has come.
_AFTER_THE_END = frozenset({"abandoned", "pushed"})
# libssh's first words for who hangs up while keys are exchanged: a port scanner, a health check.
_HUNG_UP = "Socket error: "
# Bytes that a client sends which finds everything up to date: a flush packet.
_NOTHING_TO_PUSH = 4
_REFUSALS = frozenset({"refused", "auth_failed", "command_refused", "request_refused"})
_REFUSAL_FIELDS = (
    "address",
    "connection",
    "principal",
    "user",
    "fingerprint",
    "key_type",
    "repository",
    "request",
    "detail",
    "proxy",
)


@dataclass
class _Client:
    """What is known so far of a connection."""

    principal: str | None = None
    fingerprint: str | None = None
    refusal: str | None = None
    commands: int = 0
    updated: int = 0
    """References that the push which ends next has updated."""


class Activity:
    """Follows the events of one server, in their order. For one thread."""

    def __init__(self) -> None:
        self._clients: OrderedDict[int, _Client] = OrderedDict()

    def record(self, event: Record) -> Record | None:
        """What ends with this event, if anything does."""
        if event.get("event") == "pushed" and event.get("connection") not in self._clients:
            # Its client was gone before git had ended.
            return _command(event, _Client(updated=event["references"]), "ok", None)
        client = self._client(event)
        name, reason = event.get("event"), event.get("reason")
        if name == "authenticated":
            client.principal, client.fingerprint = event.get("principal"), event.get("fingerprint")
        elif name == "auth_failed":
            client.refusal = reason
            client.fingerprint = event.get("fingerprint") or client.fingerprint
        elif name == "command_refused":
            client.commands += 1
            return _command(event, client, f"refused: {reason}", 0.0)
        elif name == "pushed":
            client.updated = event["references"]
        elif name in ("finished", "abandoned"):
            client.commands += 1
            verdict = _git_verdict(event, client.updated)
            line = _command(event, client, verdict, event["duration_ms"] / 1000)
            client.updated = 0
            return line
        elif name == "refused":
            return _connection(event, client, f"refused: {reason}", 0.0)
        elif name == "disconnected":
            self._clients.pop(event["connection"], None)
            return _connection(event, client, _end(event, client), event["duration_ms"] / 1000)
        return None

    def refusal(self, event: Record) -> Record | None:
        """The same event for people who look up later why somebody was refused."""
        name, reason = event.get("event"), event.get("reason")
        ended = name == "disconnected" and not _is_good_end(event)
        if name not in _REFUSALS and not ended:
            return None
        client = self._client(event)
        known = {"fingerprint": client.fingerprint, "principal": client.principal}
        fields = {**known, **{key: event[key] for key in _REFUSAL_FIELDS if key in event}}
        return {
            "time": event.get("time"),
            "event": name,
            "reason": "request" if name == "request_refused" else reason,
            **{key: fields[key] for key in _REFUSAL_FIELDS if fields.get(key) is not None},
        }

    def _client(self, event: Record) -> _Client:
        number = event.get("connection")
        client = self._clients.get(number) if number is not None else None
        if client is None:
            client = _Client()
            if number is not None and event.get("event") not in _AFTER_THE_END:
                self._clients[number] = client
                if len(self._clients) > _CONNECTIONS_MAX:
                    self._clients.popitem(last=False)
        return client


def _connection(event: Record, client: _Client, verdict: str, seconds: float) -> Record:
    return _record(
        event,
        "connection",
        user=client.principal,
        fingerprint=client.fingerprint,
        commands=client.commands,
        seconds=round(seconds, 3),
        verdict=verdict,
        detail=None if verdict == "ok" else event.get("detail"),
        address=event.get("address"),
        connection=event.get("connection"),
    )


def _command(event: Record, client: _Client, verdict: str, seconds: float | None) -> Record:
    service = "receive-pack" if event["event"] == "pushed" else event.get("service")
    direction = _DIRECTIONS.get(service, service) if service else None
    return _record(
        event,
        "command",
        user=event.get("principal", client.principal),
        repository=event.get("repository"),
        direction=direction,
        bytes_in=event.get("bytes_in"),
        bytes_out=event.get("bytes_out"),
        updated=client.updated if direction == "push" else None,
        seconds=None if seconds is None else round(seconds, 3),
        verdict=verdict,
        address=event.get("address"),
        connection=event.get("connection"),
    )


def _record(event: Record, log: str, **fields: object) -> Record:
    level = "info" if fields["verdict"] in ("ok", "no login") else "warning"
    known = {name: value for name, value in fields.items() if value is not None}
    return {"time": event.get("time"), "level": level, "log": log, **known}


def _git_verdict(event: Record, updated: int) -> str:
    if event["event"] == "abandoned":
        return "abandoned"  # the client left before git had ended
    if "signal" in event:
        return f"failed: signal {event['signal']}"
    if event.get("exit_status", 0) != 0:
        return f"failed: exit {event['exit_status']}"
    # git tells the client alone what it has rejected, and why: a hook, a disk that is full.
    rejected = event.get("service") == "receive-pack" and updated == 0
    return "nothing updated" if rejected and event["bytes_in"] > _NOTHING_TO_PUSH else "ok"


def _end(event: Record, client: _Client) -> str:
    if client.principal is not None:
        return "ok" if _is_good_end(event) else f"closed: {event.get('reason')}"
    if client.refusal is not None:
        return f"refused: {client.refusal}"
    return "no login" if _is_good_end(event) else f"refused: {event.get('reason')}"


def _is_good_end(event: Record) -> bool:
    return event.get("reason") in _GOOD_ENDS or event.get("detail", "").startswith(_HUNG_UP)
