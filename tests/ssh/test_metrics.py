"""The counters: each refusal under its reason, and all of them as Prometheus reads them."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from pyplue.ssh import SshConfigError, SshError
from pyplue.ssh.metrics import Metrics, serve_metrics
from pyplue.ssh.server import counters

from .forge import ROOT, Client, Forge, Server, commit, serve
from .test_proxy import ended

pytestmark = pytest.mark.timeout(60)

HEADER = (ROOT / "zig/ssh/include/plue_ssh.h").read_text()


def scrape(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of a page, as Prometheus' own parser reads it."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def busy(forge: Forge, work: Path) -> Iterator[Server]:
    """A server that has seen a little of everything."""
    name = f"alice/{work.name}"
    forge.repository(name)
    with serve(forge, metrics=True, on_push={}) as own:
        alice = Client(own, directory=work)
        clone = alice.clone(name, "clone")
        commit(forge, clone, "file")
        alice.git("push", "-q", "origin", "main", cwd=clone)
        for repository in ("bob/private", "alice/none"):
            assert alice.try_git("ls-remote", alice.url(repository)).returncode == 128
        assert alice.ssh("ls", "/").returncode == 128
        stranger = Client(own, "mallory")
        assert stranger.try_git("ls-remote", stranger.url(name)).returncode == 128
        own.wait_for_push(name)
        own.settled(connections=0, gits_running=0)
        yield own


def test_each_refusal_is_counted_under_its_reason(busy: Server):
    now = busy.counters()
    assert now["auth_failed_by_reason"]["unknown_key"] == 1
    assert sum(now["auth_failed_by_reason"].values()) == now["auth_failed_total"] == 1
    refused = {k: v for k, v in now["commands_refused_by_reason"].items() if v}
    assert refused == {"denied": 1, "not_found": 1, "service": 1}
    assert now["commands_refused_total"] == 3
    assert now["commands_by_service"] == {"upload-pack": 1, "receive-pack": 1, "upload-archive": 0}
    assert sum(now["disconnected_by_reason"].values()) == now["accepted_total"] == 6
    for took in now["durations_by_service"].values():
        ways = list(took["le_ms"].values())
        assert ways == sorted(ways) and ways[-1] <= took["count"]
    took = now["durations_by_service"]["receive-pack"]
    assert took["count"] == 1 and 0 < took["sum_ms"] < 60_000
    assert now["pushes_total"] == 1


def test_a_refused_connection_is_counted_under_its_reason(forge: Forge):
    with serve(forge, proxy_protocol_from=["127.0.0.1"], max_unauthenticated=1) as own:
        with socket.create_connection(("127.0.0.1", own.port)) as client:
            client.sendall(b"SSH-2.0-x\r\n")
            assert ended(client)
        own.wait_for("refused", reason="proxy_missing")
        with (
            socket.create_connection(("127.0.0.1", own.port)),
            socket.create_connection(("127.0.0.1", own.port)) as second,
        ):
            assert ended(second)
        own.wait_for("refused", reason="proxy_closed")
        refused = {k: v for k, v in own.counters()["refused_by_reason"].items() if v}
        assert refused == {"proxy_missing": 1, "max_unauthenticated": 1, "proxy_closed": 1}


def test_the_header_names_every_counter_and_every_reason():
    now = counters()
    names = set(now)
    for key, value in now.items():
        if isinstance(value, dict):
            names |= {name for name in value if key.endswith(("_reason", "_service"))}
    words = set(re.findall(r"[\w-]+", HEADER))
    assert names <= words, names - words


def test_prometheus_reads_what_the_counters_say(busy: Server):
    assert busy.metrics is not None
    samples = scrape(busy.metrics)
    now = busy.counters()

    def value(name: str, **labels: str) -> float:
        return samples[(f"plue_ssh_{name}", frozenset(labels.items()))]

    for name, count in now.items():
        if isinstance(count, int) and ("plue_ssh_" + name, frozenset()) in samples:
            assert value(name) == count, name
    for name in ("accepted_total", "connections", "pushes_total", "bytes_in_total"):
        value(name)  # is there
    for name, label in [
        ("auth_failed", "reason"),
        ("commands_refused", "reason"),
        ("refused", "reason"),
        ("disconnected", "reason"),
    ]:
        for reason, count in now[f"{name}_by_reason"].items():
            assert value(f"{name}_total", **{label: reason}) == count
    for service, took in now["durations_by_service"].items():
        assert value("commands_total", service=service) == now["commands_by_service"][service]
        assert value("command_seconds_count", service=service) == took["count"]
        assert value("command_seconds_sum", service=service) == took["sum_ms"] / 1000
        assert value("command_seconds_bucket", service=service, le="+Inf") == took["count"]
        for ms, below in took["le_ms"].items():
            bound = str(int(ms) / 1000)
            assert value("command_seconds_bucket", service=service, le=bound) == below
    [about] = [dict(labels) for name, labels in samples if name == "plue_ssh_info"]
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", about["libssh"])


def test_every_counter_has_a_metric():
    registry = CollectorRegistry()
    registry.register(Metrics())
    text = generate_latest(registry).decode()
    for name, value in counters().items():
        if isinstance(value, int):
            assert f"\nplue_ssh_{name}" in text, name


def test_the_page_is_on_loopback_only_unless_another_host_is_given():
    with serve_metrics(0) as page:
        assert page.host == "127.0.0.1"
        assert scrape(page.url)
        with pytest.raises(SshError, match=rf"127\.0\.0\.1 port {page.port}: Address already"):
            serve_metrics(page.port)
        with (
            pytest.raises(ConnectionRefusedError),
            socket.create_connection(("127.0.0.2", page.port), 1),
        ):
            pass
    page.stop()  # again
    with pytest.raises(urllib.error.URLError):
        scrape(page.url)


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_an_ipv6_address_makes_a_url():
    with serve_metrics(0, "::1") as page:
        assert page.url.startswith("http://[::1]:")
        assert scrape(page.url)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(port: int):
    with pytest.raises(SshConfigError, match=f"metrics port is {port}; it is 0"):
        serve_metrics(port)


def test_without_prometheus_client_the_import_says_what_to_install(tmp_path: Path):
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('hidden')\n")
    answer = subprocess.run(
        [sys.executable, "-c", "import pyplue.ssh, pyplue.ssh.metrics"],
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 1
    assert "pip install 'pyplue[ssh]'" in answer.stderr
