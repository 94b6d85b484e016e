"""python -m pyplue.ssh serve"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import logging
import os
import re
import resource
import socket
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyplue.ssh.admin.host_key import read_host_key
from pyplue.ssh.admin.parser import Commands, Parser, add_command
from pyplue.ssh.admin.state import State, state_of
from pyplue.ssh.admin.text import plain
from pyplue.ssh.errors import SshConfigError, SshDatabaseError, SshError, SshRefusedError
from pyplue.ssh.events import logger
from pyplue.ssh.pushes import Push
from pyplue.ssh.server import GitServer, Limits, libssh_version
from pyplue.ssh.service.logs import ServiceLog
from pyplue.ssh.service.pid_file import PidFile
from pyplue.ssh.service.refusals import RefusalFile
from pyplue.ssh.service.run import Signals, run
from pyplue.ssh.service.settings import names, read_settings

if TYPE_CHECKING:
    from pyplue.ssh.store import Store

_EPILOG = f"""\
  python -m pyplue.ssh serve --host 0.0.0.0 --set max_connections=500
Changes of users, keys, repositories and permissions count within a second, without a signal.
SIGTERM and SIGINT let running gits finish (drain_timeout_s, otherwise 10 seconds) and end with
status 0; a second one ends it at once. SIGHUP asks the database at once, opens the file of
refusals again (logrotate) and says which settings need a restart.
The log on standard error has one line for each connection and each command; `log` looks up later
why somebody was refused, `doctor` checks the rest.
What --set and --config take, with defaults and units in plue_ssh.h:
{textwrap.fill(", ".join(names()), 78, initial_indent="  ", subsequent_indent="  ")}
"""


def add_commands(commands: Commands) -> None:
    serve = add_command(
        commands,
        "serve",
        _serve,
        "run the server",
        "Runs the server, and shows where it listens and how to clone from it.",
        _EPILOG,
    )
    add_server_options(serve)
    serve.add_argument(
        "--advertise",
        metavar="HOST[:PORT]",
        type=host_and_port,
        help="how clients reach it, for the clone line; otherwise its own name and port",
    )
    serve.add_argument("--pid-file", metavar="FILE", type=Path, help="says which process it is")
    serve.add_argument(
        "--metrics-port",
        metavar="N",
        type=port_number,
        help="Prometheus' metrics at http://127.0.0.1:N/metrics, 0 is any; otherwise none",
    )
    serve.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="otherwise text"
    )
    serve.add_argument(
        "--max-stale",
        metavar="SECONDS",
        type=seconds,
        help="how long it goes on without its database; then everybody is refused; otherwise 300",
    )


def add_server_options(parser: Parser) -> None:
    """What `doctor` needs to know as well."""
    parser.add_argument(
        "--host",
        metavar="ADDRESS",
        type=address,
        default="127.0.0.1",
        help="address to listen on: 0.0.0.0 or :: for all; otherwise 127.0.0.1, this machine only",
    )
    parser.add_argument(
        "--port", metavar="N", type=port_number, default=2222, help="0 is any; otherwise 2222"
    )
    parser.add_argument(
        "--host-key",
        metavar="FILE",
        type=Path,
        help="private key of the server, made when it is missing; otherwise in --state",
    )
    parser.add_argument(
        "--proxy-protocol-from",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="address or network of a load balancer that sends PROXY headers; again for more",
    )
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="assignments",
        help="a limit or another setting of plue_ssh.h, such as max_connections=100, archive=true,"
        " ciphers=A,B or git_config.gc.auto=0; again for more",
    )
    parser.add_argument(
        "--config", metavar="FILE", type=Path, help="the same settings as one JSON object"
    )


def settings_of(options: argparse.Namespace) -> Limits:
    """From --config, --set and --proxy-protocol-from. Raises SshConfigError, SshError."""
    settings = read_settings(options.config, options.assignments)
    if options.proxy_protocol_from:
        settings["proxy_protocol_from"] = options.proxy_protocol_from
    return settings


def address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no numeric IPv4 or IPv6 address") from None


def port_number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: use 0 to 65535")
    return int(text)


def host_and_port(text: str) -> tuple[str, int | None]:
    """HOST, HOST:PORT or [IPv6]:PORT."""
    found = re.fullmatch(r"\[([0-9a-fA-F:.]+)\](?::(\d+))?|([\w.-]+)(?::(\d+))?", text, re.ASCII)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no host: write HOST, HOST:PORT or [IPv6]")
    number = found[2] or found[4]
    return found[1] or found[3], port_number(number) if number else None


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return value


# The log is written by Python, which may be busy while connections come in numbers.
_EVENT_QUEUE = 16384


def _serve(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    state = state_of(options)
    store = state.store(max_stale_s=options.max_stale)
    pid_file = PidFile(options.pid_file) if options.pid_file else None
    if pid_file:
        pid_file.check()
    _make_directory(state.repositories)
    host_key = options.host_key or state.host_key
    limits: Limits = {"event_queue": _EVENT_QUEUE, **settings}
    server = GitServer(
        state.repositories,
        host=options.host,
        port=options.port,
        host_key=host_key,
        store=store,
        on_push=_noted,
        **limits,
    )
    _raise_descriptor_limit()
    refusals = RefusalFile(state.refusals)
    signals = Signals(pid_file.remove if pid_file else lambda: None)
    with _logging(options.log_format, refusals), contextlib.ExitStack() as stack:
        metrics = stack.enter_context(_metrics(options.metrics_port))
        server.start()
        stack.callback(server.stop)
        if pid_file:
            pid_file.write()
            stack.callback(pid_file.remove)
        fingerprint = _fingerprint(host_key)
        _announce(options, state, store, server, fingerprint, metrics)
        reload = _Reload(options, settings, server, refusals, fingerprint)
        return run(server, signals, reload)


def _noted(_: Push) -> None:
    """Asked for so that the log can tell what a push has updated; there is no more to do."""


class _Reload:
    """What SIGHUP does."""

    def __init__(
        self,
        options: argparse.Namespace,
        settings: Limits,
        server: GitServer,
        refusals: RefusalFile,
        fingerprint: str,
    ) -> None:
        self._options = options
        self._settings = settings
        self._server = server
        self._refusals = refusals
        self._fingerprint = fingerprint

    def __call__(self) -> None:
        self._refusals.reopen()
        try:
            self._server.refresh()
            status = self._server.store_status()
            if status:
                logger.info(
                    "reloaded: %d users with %d keys, %d repositories",
                    status["users"], status["keys"], status["repositories"],
                )  # fmt: skip
        except SshDatabaseError as error:
            logger.error("not reloaded, what was known stays: %s", error)
        try:
            changed = self._changed()
        except (SshConfigError, SshError) as error:
            logger.error("the settings stay as they were: %s", error)
        else:
            if changed:
                logger.warning("restart the server for the new %s", ", ".join(changed))

    def _changed(self) -> list[str]:
        """What only a restart puts in force."""
        now, before = settings_of(self._options), self._settings
        changed = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
        host_key = self._options.host_key or state_of(self._options).host_key
        return changed + ["host key"] * (_fingerprint(host_key) != self._fingerprint)


def _fingerprint(host_key: Path) -> str:
    """With the key's type; "" when it cannot be read."""
    try:
        key = read_host_key(host_key)
    except (SshError, SshRefusedError):
        return ""
    return f"{key.fingerprint} {key.type}"


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SshError(
            f"{path}: {error.strerror}: name a directory for repositories with --repos"
        ) from error


def _raise_descriptor_limit() -> None:
    """Every connection needs a few descriptors; what the system allows is ours to use."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _logging(form: str, refusals: RefusalFile) -> Iterator[None]:
    handler = ServiceLog(sys.stderr, "json" if form == "json" else "text", refusals)
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        refusals.close()


@contextmanager
def _metrics(port: int | None) -> Iterator[str | None]:
    """The page for Prometheus, if one is wanted; its URL."""
    if port is None:
        yield None
        return
    try:
        from pyplue.ssh.metrics import serve_metrics  # needs prometheus-client
    except ImportError as error:
        raise SshError(str(error)) from None
    with serve_metrics(port) as page:
        yield page.url


def _announce(
    options: argparse.Namespace,
    state: State,
    store: Store,
    server: GitServer,
    fingerprint: str,
    metrics: str | None,
) -> None:
    example = store.repositories.first() or "USER/REPOSITORY"
    clone = f"git clone {clone_url(options, server.port)}/{example}"
    document = {
        "host": options.host,
        "port": server.port,
        "pid": os.getpid(),
        "clone": clone,
        "fingerprint": fingerprint.partition(" ")[0],
        "state": str(state.directory),
        "database": store.database.name,
        "repositories": str(state.repositories),
        "libssh": libssh_version(),
        "metrics": metrics,
    }
    bracketed = f"[{options.host}]" if ":" in options.host else options.host
    text = [
        f"serving {plain(str(state.repositories))}",
        f"on        {bracketed}:{server.port}, libssh {libssh_version()}",
        f"users in  {plain(store.database.name)}",
        f"host key  {fingerprint}",
        *([f"metrics   {metrics}"] if metrics else []),
        plain(clone),
    ]
    try:
        print(json.dumps(document) if options.json else "\n".join(text), flush=True)
    except OSError:
        # Nobody need read it; nor may Python complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def clone_url(options: argparse.Namespace, port: int) -> str:
    """ "ssh://git@HOST:PORT" as clients would write it."""
    host, number = options.advertise or (options.host, None)
    number = number or port
    if not options.advertise and ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    return f"ssh://git@{host}" + ("" if number == 22 else f":{number}")
