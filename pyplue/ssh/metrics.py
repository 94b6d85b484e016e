"""The server's counters for Prometheus, through prometheus-client (`pip install pyplue[ssh]`).

    from prometheus_client import REGISTRY
    from pyplue.ssh.metrics import Metrics, serve_metrics

    REGISTRY.register(Metrics())         # into metrics that the application serves already
    with serve_metrics(9100) as page:    # or on a port of its own, http://127.0.0.1:9100/metrics
        ...

Every name begins with "plue_ssh_". What a counter says is in plue_ssh.h, at `plue_ssh_counters`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIServer

from pyplue.ssh.errors import SshConfigError, SshError
from pyplue.ssh.server import counters, libssh_version, version

try:
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
    )
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "pyplue.ssh.metrics needs prometheus-client: pip install 'pyplue[ssh]'"
    ) from error

if TYPE_CHECKING:
    from prometheus_client.core import Metric
    from typing_extensions import Self

_GAUGES = {
    "connections": "Connections, authenticated or not.",
    "authenticated": "Authenticated connections.",
    "gits_running": "Running gits.",
    "decisions_pending": "Questions to the host that wait for an answer.",
    "pushes_waiting": "Pushes that on_push has not been told of yet.",
    "keys": "Keys in the table.",
}
_TOTALS = {
    "accepted_total": "Connections accepted.",
    "authenticated_total": "Logins.",
    "gits_failed_total": "Gits that ended with an exit status other than 0.",
    "bytes_in_total": "Bytes from clients to git.",
    "bytes_out_total": "Bytes from git to clients.",
    "pushes_total": "Pushes that have updated something, where on_push is told of them.",
    "pushes_lost_total": "Pushes that on_push could not be told of for want of memory.",
    "decisions_total": "Questions to the host.",
    "decisions_timeout_total": "Questions that the host did not answer in time.",
    "events_dropped_total": "Events that nobody took in time.",
}
_BY_LABEL = {
    "refused_by_reason": ("refused_total", "Connections refused before login.", "reason"),
    "auth_failed_by_reason": ("auth_failed_total", "Logins refused.", "reason"),
    "commands_refused_by_reason": ("commands_refused_total", "Commands refused.", "reason"),
    "disconnected_by_reason": ("disconnected_total", "Connections ended.", "reason"),
    "commands_by_service": ("commands_total", "Commands run.", "service"),
}


class Metrics(Collector):
    """A collector for a registry of prometheus-client: reads the counters whenever it is asked.

    `source` gives them, `GitServer.counters` for example; left out, they are this process's.
    """

    def __init__(self, source: Callable[[], dict[str, Any]] = counters) -> None:
        self._source = source

    def describe(self) -> list[Metric]:
        """None: a registry need not ask for them before it is scraped."""
        return []

    def collect(self) -> Iterator[Metric]:
        now = self._source()
        about = {"version": version(), "libssh": libssh_version()}
        yield InfoMetricFamily("plue_ssh", "Versions in use.", value=about)
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"plue_ssh_{name}", text, value=now[name])
        for name, text in _TOTALS.items():
            yield CounterMetricFamily(f"plue_ssh_{name}", text, value=now[name])
        for key, (name, text, label) in _BY_LABEL.items():
            family = CounterMetricFamily(f"plue_ssh_{name}", text, labels=[label])
            for value, count in now[key].items():
                family.add_metric([value], count)
            yield family
        durations = HistogramMetricFamily(
            "plue_ssh_command_seconds", "From the start of a git to its end.", labels=["service"]
        )
        for service, took in now["durations_by_service"].items():
            buckets = [(str(int(ms) / 1000), count) for ms, count in took["le_ms"].items()]
            durations.add_metric(
                [service], [*buckets, ("+Inf", took["count"])], took["sum_ms"] / 1000
            )
        yield durations


class MetricsPage:
    """A running page, see `serve_metrics`."""

    def __init__(self, server: WSGIServer, thread: threading.Thread) -> None:
        self._server = server
        self._thread = thread
        self.host: str = str(server.server_address[0])
        self.port: int = server.server_port

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/metrics"

    def stop(self) -> None:
        """Closes the port; does nothing the second time."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def serve_metrics(
    port: int,
    host: str = "127.0.0.1",
    source: Callable[[], dict[str, Any]] = counters,
) -> MetricsPage:
    """Serves the metrics over HTTP, on a thread of its own, until `stop()`.

    `port` 0 picks a free one, see `port` of the result. They name no user and no repository, but
    everybody who reaches `host` can read them: another than loopback must be asked for.

    Raises SshError when the port cannot be had and SshConfigError for one that is none.
    """
    if not 0 <= port <= 65535:
        raise SshConfigError(f"metrics port is {port}; it is 0 (any free one) to 65535")
    registry = CollectorRegistry()
    registry.register(Metrics(source))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SshError(f"metrics cannot be served on {host} port {port}: {reason}") from error
    return MetricsPage(server, thread)
