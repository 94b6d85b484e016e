"""`GitServer`: the server of libplue_ssh as a Python object. All SSH happens in the library."""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from pyplue import ffi
from pyplue.ssh.callbacks import Authenticate, Authorize, Callbacks
from pyplue.ssh.errors import SshConfigError, SshError
from pyplue.ssh.events import RECORD_MAX, EventLog, logger
from pyplue.ssh.pushes import OnPush, PushFeed

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from pyplue.ssh.store import Store
    from pyplue.ssh.store.watch import StoreStatus

Access = Literal["none", "read", "write"]


class Limits(TypedDict, total=False):
    """Further settings of a `GitServer`, each a keyword argument. Zero switches a time limit off.

    `zig/ssh/include/plue_ssh.h` documents each with its default and range; an unknown name or a
    value out of range is an `SshConfigError` that says so.
    """

    user: str
    """The only user name that may log in; "git"."""
    git: str
    """Path of git, or its name in PATH; "git"."""
    host_keys: list[str]
    """More private host keys, which must exist; an RSA one serves old clients."""
    proxy_protocol_from: list[str]
    """Addresses and networks of load balancers, which must send a PROXY header (version 1 or 2)."""
    threads: int
    callback_threads: int
    decision_timeout_ms: int
    max_pending_decisions: int
    login_grace_s: int
    max_auth_tries: int
    max_connections: int
    max_unauthenticated: int
    max_unauthenticated_per_ip: int
    max_channels: int
    keepalive_s: int
    keepalive_count: int
    exec_grace_s: int
    idle_timeout_s: int
    git_timeout_s: int
    drain_timeout_s: int
    kill_grace_s: int
    push_grace_s: int
    push_queue: int
    """How many pushes may wait for `on_push`; 1024. Further ones are refused before they begin."""
    archive: bool
    fsck_objects: bool
    git_config: dict[str, str]
    environment: dict[str, str]
    kex: str
    ciphers: str
    macs: str
    host_key_algorithms: str
    user_key_algorithms: str
    rsa_min_bits: int
    rekey_bytes: int
    rekey_s: int
    event_queue: int


@dataclass(frozen=True)
class Principal:
    """Who a client is once it has proved to own one of `keys`.

    `keys` are OpenSSH public key lines, "ssh-ed25519 AAAA... comment". `rules` are what it may do:
    "read PATTERN" or "write PATTERN" (which includes read), PATTERN being a repository's name
    without ".git", a prefix that ends in "/*", or "*". What no rule allows is refused. With
    `rules=None` the server's `authorize` decides, or else its `default_access`.
    """

    keys: Sequence[str]
    rules: Sequence[str] | None = None


Keys = Mapping[str, "Principal | Sequence[str] | str"]

_lock = threading.Lock()
_running: GitServer | None = None


class GitServer:
    """Serves the Git repositories below `repos` over SSH, on threads of its own.

    Args:
        repos: Directory of the repositories: "alice/repo" and "alice/repo.git" both name
            repos/alice/repo.git, or repos/alice/repo. Nothing above it and no symbolic link below
            it can be reached.
        host: A numeric address.
        port: 0 picks a free one, see `port`.
        host_key: Private key of the server, made (ed25519, mode 0600) when the file is missing.
            Left out: pyplue/ssh_host_ed25519_key in $XDG_DATA_HOME or ~/.local/share.
        keys: A table {principal: key line, key lines or `Principal`}. Logins and commands that it
            answers call nothing in Python.
        authenticate: authenticate(username, public_key) -> principal or None, asked for keys that
            are not in the table, once the client has proved to own the key: an OpenSSH line
            "ssh-ed25519 AAAA...". None refuses.
        authorize: authorize(principal, repository, write) -> bool, asked for every command of a
            principal without rules; `repository` is a name such as "alice/repo".
        default_access: What a principal without rules may do when there is no `authorize`; "none".
        store: A `pyplue.ssh.store.Store`: users, keys and permissions come from its database, in
            the place of the four above. What changes there counts within a second.
        on_push: on_push(push) is told of every `Push` that has updated something, with exactly
            those references, on a thread of its own, in order and one at a time, at least once and
            whether or not its client is still there. What it raises is logged. When it falls
            behind by more than `push_queue` pushes, new ones are refused.
        limits: See `Limits`.

    `authenticate` and `authorize` run on a thread of the server, one call at a time unless
    `callback_threads` says otherwise. An exception, a wrong type or no answer within
    `decision_timeout_ms` is a refusal.

    One server per process can run at a time. Everything it does is logged as a structured event to
    the logger "pyplue.ssh"; `record.event` is the event as a dict (see `plue_ssh_event_next` in
    plue_ssh.h).

    Raises:
        SshConfigError: (a ValueError) A setting is wrong.
        SshError: (an OSError) It cannot start. Both say what to do; nothing is left running.
    """

    def __init__(
        self,
        repos: str | os.PathLike[str],
        *,
        host: str = "127.0.0.1",
        port: int = 2222,
        host_key: str | os.PathLike[str] | None = None,
        keys: Keys | None = None,
        authenticate: Authenticate | None = None,
        authorize: Authorize | None = None,
        default_access: Access = "none",
        store: Store | None = None,
        on_push: OnPush | None = None,
        **limits: Unpack[Limits],
    ) -> None:
        if not 0 <= port <= 65535:
            raise SshConfigError(f"port is {port}; it is 0 (any free one) to 65535")
        self._watch = None
        if store is not None:
            if keys or authenticate or authorize or default_access != "none":
                raise SshConfigError(
                    "with store= it decides alone: leave out keys=, authenticate=, authorize= and "
                    "default_access="
                )
            self._watch = store.watch()
            authorize = self._watch.allows
        self._requested_port = port
        self._host_key = Path(host_key) if host_key is not None else None
        # What the library gets at the next start; changed together with what it has now.
        self._table = _Table(keys or {})
        self._changing_table = threading.Lock()
        self._callbacks = Callbacks(authenticate, authorize)
        self._on_push = on_push
        self._events: EventLog | None = None
        self._pushes: PushFeed | None = None
        self._config: dict[str, Any] = {
            "repositories": os.path.abspath(os.fsdecode(repos)),
            "bind_address": host,
            "default_access": default_access,
            "authenticate": "callback" if authenticate else "keys",
            "authorize": "callback" if authorize else "keys",
            **limits,
        }
        self._config.setdefault("push_queue", 1024 if on_push else 0)

    def start(self) -> Self:
        """Binds and serves in the background; returns itself. See the class for what is raised."""
        global _running
        with _lock:
            if _running is not None:
                raise SshError("a GitServer runs in this process already: stop() it first")
            if self._watch:
                self._table = _Table(self._watch.load())
            _check(ffi.ssh.plue_ssh_configure(_text(json.dumps(self._config))), SshConfigError)
            self._table.put_in_force()
            host_key = self._host_key or _default_host_key()
            self._callbacks.set()
            self._events = EventLog()
            self._events.start()
            if self._on_push is not None:
                self._pushes = PushFeed(self._on_push)
                self._pushes.start()
            started = ffi.ssh.ssh_server_start(self._requested_port, _text(os.fsdecode(host_key)))
            if not started:
                reason = _last_error()
                for thread in self._let_go():
                    thread.join()
                raise SshError(reason)
            _running = self
            if self._watch:
                self._watch.start(self._replace_keys)
        atexit.register(self.stop)
        self._warn_if_closed()
        return self

    def stop(self) -> None:
        """Stops listening, lets running gits finish for `drain_timeout_s`, then ends them.

        `on_push` is told of the pushes that are left, for as long again. Returns when nothing of
        the server is left; does nothing when it is not running. From
        inside `authenticate` or `authorize` it only begins to stop: call it again elsewhere.
        """
        global _running
        if self._callbacks.running_here():
            if _running is self:
                ffi.ssh.ssh_server_stop()
            return
        with _lock:
            if _running is not self:
                return
            if self._watch:
                self._watch.stop()
            ffi.ssh.ssh_server_stop()
            threads = self._let_go()
            _running = None
        atexit.unregister(self.stop)
        # Without the lock: a logging handler or on_push may be about to call stop() as well.
        for thread in threads:
            thread.join()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether this server listens."""
        return _running is self and self.port != 0

    @property
    def port(self) -> int:
        """The port in use; 0 while it does not run."""
        return int(ffi.ssh.plue_ssh_port()) if _running is self else 0

    @property
    def connection_count(self) -> int:
        """Number of authenticated connections right now."""
        return int(ffi.ssh.ssh_get_connection_count()) if _running is self else 0

    def counters(self) -> dict[str, Any]:
        """Gauges (`connections`, `gits_running`, ...) and totals since the process began.

        Integers, and dicts of them by reason or by service: `counters()["auth_failed_by_reason"]
        ["unknown_key"]`. plue_ssh.h names them all, at `plue_ssh_counters`; `pyplue.ssh.metrics`
        has them for Prometheus.
        """
        return counters()

    def refresh(self) -> None:
        """Asks the `store` now instead of within half a second. Raises SshDatabaseError."""
        if self._watch:
            self._watch.refresh()

    def store_status(self) -> StoreStatus | None:
        """How fresh the `store` is and what is in it; None without one."""
        return self._watch.status() if self._watch else None

    def add_key(self, principal: str, public_key: str, rules: Sequence[str] | None = None) -> None:
        """Adds a key to the running server's table, or gives the same principal's key new rules.

        Also for later starts. Raises SshConfigError for a line or a rule that is none, and for
        somebody else's key.
        """
        self._need_own_keys()
        self._need_running()
        text = None if rules is None else _text("\n".join(rules))
        with self._changing_table:
            added = ffi.ssh.plue_ssh_keys_add(_text(principal), _text(public_key), text)
            _check(added, SshConfigError)
            # As the library has read them: with a line break in it, one rule is two.
            lines = rules and "\n".join(rules).split("\n")
            self._table.put(principal, Principal([public_key], lines))

    def remove_key(self, public_key: str) -> bool:
        """Removes a key at once and for later starts: no new login, no new command. False when it
        was not there."""
        self._need_own_keys()
        self._need_running()
        with self._changing_table:
            self._table.remove(public_key)
            return bool(ffi.ssh.plue_ssh_keys_remove(_text(public_key)))

    def replace_keys(self, keys: Keys) -> None:
        """Puts `keys` in the place of the whole table, all or nothing; also for later starts."""
        self._need_own_keys()
        self._replace_keys(keys)

    def _replace_keys(self, keys: Keys) -> None:
        table = _Table(keys)
        with self._changing_table:
            if _running is self:
                table.put_in_force()
            self._table = table

    def _need_own_keys(self) -> None:
        if self._watch:
            raise SshError("the keys are those of the store: use store.keys")

    def _need_running(self) -> None:
        if _running is not self:
            raise SshError("this GitServer does not run: start() it first, or use replace_keys")

    def _warn_if_closed(self) -> None:
        with_rules = any(row.get("rules") for row in self._table.rows())
        decides = self._config["authorize"] == "callback"
        if not (with_rules or decides or self._config["default_access"] != "none"):
            logger.warning(
                "nobody may read any repository so far: give principals rules, or authorize=, "
                'or default_access="read"'
            )

    def _let_go(self) -> list[EventLog | PushFeed]:
        """The library has ended its threads: takes back what it could call, and what still runs."""
        Callbacks.unset()
        events, self._events = self._events, None
        pushes, self._pushes = self._pushes, None
        threads: list[EventLog | PushFeed] = []
        if pushes is not None:
            pushes.finish(self._config.get("drain_timeout_s", 10))
            threads.append(pushes)
        assert events is not None  # noqa: S101 (for the type checker)
        events.finish()
        return [*threads, events]


def counters() -> dict[str, Any]:
    """`GitServer.counters` without a server: the totals are the process's, whichever ran in it."""
    record = ffi.buffer(RECORD_MAX)
    length = ffi.ssh.plue_ssh_counters(record, RECORD_MAX)
    _check(length > 0, SshError)
    found: dict[str, Any] = json.loads(record.raw[:length])
    return found


def version() -> str:
    """The version of libplue_ssh."""
    return str(ffi.ssh.plue_ssh_version().decode())


def libssh_version() -> str:
    """The version of libssh it runs on, such as "0.10.6"."""
    return str(ffi.ssh.plue_ssh_libssh_version().decode())


class _Table:
    """The keys of a server, as plue_ssh_keys_replace takes them."""

    def __init__(self, keys: Keys) -> None:
        self._given = [_row(*entry) for entry in keys.items()]
        self._by_key: dict[str, dict[str, Any]] | None = None

    def rows(self) -> list[dict[str, Any]]:
        return self._given if self._by_key is None else list(self._by_key.values())

    def put_in_force(self) -> None:
        _check(ffi.ssh.plue_ssh_keys_replace(_text(json.dumps(self.rows()))), SshConfigError)

    def put(self, principal: str, entry: Principal) -> None:
        """One key, in the place of the same one."""
        self._keys()[_plain(entry.keys[0])] = _row(principal, entry)

    def remove(self, public_key: str) -> None:
        self._keys().pop(_plain(public_key), None)

    def _keys(self) -> dict[str, dict[str, Any]]:
        # Only now, when the library has taken them: what it refuses may have one of them twice.
        if self._by_key is None:
            self._by_key = {
                _plain(line): {**row, "keys": [line]} for row in self._given for line in row["keys"]
            }
        return self._by_key


def _plain(public_key: str) -> str:
    """Without the comment. A blob has one spelling: the library takes no other base64."""
    return " ".join(public_key.split()[:2])


def _row(principal: str, entry: Principal | Sequence[str] | str) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = Principal([entry])
    elif not isinstance(entry, Principal):
        entry = Principal(entry)
    row: dict[str, Any] = {"principal": principal, "keys": list(entry.keys)}
    if entry.rules is not None:
        row["rules"] = list(entry.rules)
    return row


def _default_host_key() -> Path:
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    directory = Path(data) / "pyplue"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / "ssh_host_ed25519_key"


def _text(value: str) -> bytes:
    """A NUL-terminated argument; a NUL inside would silently cut it off."""
    if "\0" in value:
        raise SshConfigError(f"{value[:40]!r} holds a NUL character")
    return os.fsencode(value)


def _check(done: bool, error: Callable[[str], Exception]) -> None:
    if not done:
        raise error(_last_error())


def _last_error() -> str:
    return str(ffi.ssh.plue_ssh_last_error().decode(errors="replace"))
