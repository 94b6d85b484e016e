"""`python -m pyplue.ssh serve` as a process: what it says, logs and does when signals come."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from .forge import Client, Forge, commit, free_port, short_path
from .serving import PROGRAM, Frozen, Team, received, run, serving, wait_until

# ---- what it says ----------------------------------------------------------------------------


def test_it_shows_where_it_listens_with_a_line_to_paste(team: Team, work: Path):
    with serving(team) as server:
        assert server.hello["fingerprint"].startswith("SHA256:")
        assert server.hello["clone"] == f"git clone ssh://git@127.0.0.1:{server.port}/alice/project"
        environment = Client(server).environment()
        words = [*server.hello["clone"].split(), str(work / "pasted")]
        subprocess.run(words, env=environment, check=True, capture_output=True)
        assert team.forge.objects(work / "pasted")


def test_it_says_so_to_people_too(team: Team):
    # By a program with other rules for names.
    with team.store.database.writing() as connection:
        connection.exec_driver_sql("UPDATE repositories SET name = 'a\x1b[31mb'")
    port = str(free_port())
    words = [*PROGRAM, *team.options, "serve", "--port", port, "--advertise", "git.example.org:22"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        text = [process.stdout.readline().strip() for _ in range(5)]
        process.terminate()
        assert process.wait(timeout=30) == 0
    assert text[1].startswith(f"on        127.0.0.1:{port}, libssh ")
    shown = json.loads(team.run("host-key", "show", "--json").stdout)
    assert text[3] == f"host key  {shown['fingerprint']} ssh-ed25519"
    assert text[4] == r"git clone ssh://git@git.example.org/alice/a\x1b[31mb"


def test_an_ipv6_address_is_shown_as_clients_write_it(team: Team):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serving(team, "--host", "::1") as server:
        url = f"ssh://git@[::1]:{server.port}/alice/project"
        assert server.hello["clone"] == f"git clone {url}"
        socket.create_connection(("::1", server.port)).close()


def test_one_line_for_each_connection_and_command(team: Team, work: Path):
    with serving(team) as server:
        alice, mallory = Client(server, directory=work), Client(server, "mallory")
        clone = alice.clone("alice/project", "clone")
        fetched = server.wait_for_line("command", direction="fetch")
        assert fetched["user"] == "alice"
        assert fetched["repository"] == "alice/project"
        assert fetched["verdict"] == "ok"
        assert fetched["bytes_out"] > fetched["bytes_in"] > 0
        assert 0 < fetched["seconds"] < 60
        assert fetched["address"] == "127.0.0.1"
        commit(team.forge, clone, "more", os.urandom(1000))
        alice.git("push", "-q", "origin", "main", cwd=clone)
        pushed = server.wait_for_line("command", direction="push", verdict="ok")
        assert pushed["bytes_in"] > 1000
        assert pushed["updated"] == 1
        assert alice.try_git("fetch", alice.url("bob/secret"), cwd=clone).returncode
        refused = server.wait_for_line("command", verdict="refused: denied")
        assert refused["level"] == "warning"
        assert refused["repository"] == "bob/secret"
        assert mallory.ssh("x").returncode == 255
        stranger = server.wait_for_line("connection", verdict="refused: unknown_key")
        assert stranger["fingerprint"] == team.fingerprint("mallory")
        socket.create_connection(("127.0.0.1", server.port)).close()
        server.wait_for_line("connection", verdict="no login")
        ended = [line for line in server.lines("connection") if line.get("user") == "alice"]
        assert [line["commands"] for line in ended] == [1, 1, 1]
        assert all(line["fingerprint"] == team.fingerprint("alice") for line in ended)
    numbers = [line["connection"] for line in server.lines("connection")]
    assert len(numbers) == len(set(numbers)) == 5
    assert len(server.lines("command")) == 3


def test_a_push_that_updates_nothing_is_no_success(team: Team, work: Path):
    with serving(team) as server:
        alice = Client(server, directory=work)
        clone = alice.clone("alice/project", "clone")
        alice.git("push", "-q", "origin", "main", cwd=clone)
        told = server.wait_for_line("command", direction="push")
        assert (told["verdict"], told["updated"]) == ("ok", 0)  # it was up to date
        hook = team.path("alice/project") / "hooks/pre-receive"
        hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
        hook.chmod(0o755)
        assert "not today" in alice.try_git("push", "origin", "main:new", cwd=clone).stderr
        told = server.wait_for_line("command", verdict="nothing updated")
        assert (told["level"], told["updated"]) == ("warning", 0)
        hook.unlink()
        alice.git("push", "-q", "origin", "main:new", "main:other", cwd=clone)
        assert server.wait_for_line("command", updated=2)["verdict"] == "ok"


def test_a_line_of_text_for_people(team: Team, work: Path):
    with serving(team, "--log-format", "text") as server:
        Client(server, directory=work).clone("alice/project", "clone")
        Client(server).ssh("git-upload-pack 'al\x1b[31mice/x'")
    lines = server.stderr.read_text().splitlines()
    assert re.fullmatch(
        r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info command user=alice "
        r"repository=alice/project direction=fetch bytes_in=\d+ bytes_out=\d+ "
        r"seconds=[0-9.]+ verdict=ok address=127\.0\.0\.1 connection=1",
        lines[0],
    )
    assert "\x1b" not in server.stderr.read_text()
    assert 'verdict="refused: ' in server.stderr.read_text()


def test_it_goes_on_when_nobody_reads_its_log(team: Team):
    words = [*PROGRAM, *team.options, "serve", "--json", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        port = json.loads(process.stdout.readline())["port"]
        process.stdout.close()
        process.stderr.close()
        for _ in range(3):
            socket.create_connection(("127.0.0.1", port)).close()
        time.sleep(0.2)
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_a_load_balancer_is_believed(team: Team):
    with serving(team, "--proxy-protocol-from", "127.0.0.0/8") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as balancer:
            balancer.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 22\r\n")
            assert balancer.recv(100).startswith(b"SSH-2.0-plue")
        server.wait_for_line("connection", address="192.0.2.7", verdict="no login")
        with socket.create_connection(("127.0.0.1", server.port)) as stranger:
            stranger.sendall(b"SSH-2.0-stranger\r\n")
            server.wait_for_line("connection", verdict="refused: proxy_missing")
        assert "send-proxy-v2" in team.ask("log", "--reason", "proxy_missing").stdout


# ---- signals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_running_clone_is_finished_before_the_end(team: Team, work: Path, number):
    team.large("alice/large")
    with serving(team) as server:
        alice = Client(server, directory=work)
        cloning = Frozen(alice, "clone", "-q", alice.url("alice/large"), "clone")
        cloning.freeze_when(lambda: received(work / "clone/.git"))
        server.signal(number)
        server.wait_for_line("server", "stopping: 1 git")
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", server.port)).close()
        status, messages = cloning.thaw()
        assert status == 0, messages
        assert server.process.wait(timeout=30) == 0
        assert server.lines("command")[-1]["verdict"] == "ok"
    assert team.forge.objects(work / "clone")


def test_what_git_has_said_last_arrives_before_the_end(team: Team, work: Path):
    """git has ended, but its client is slow: the rest is in buffers when the server stops."""
    team.large("alice/fits", 2)
    with serving(team) as server:
        alice = Client(server, directory=work)
        cloning = Frozen(alice, "clone", "-q", alice.url("alice/fits"), "clone")
        cloning.freeze_when(lambda: received(work / "clone/.git", more_than=1 << 18))
        wait_until(lambda: not server.gits())
        server.signal(signal.SIGTERM)
        server.wait_for_line("server", "stopping: 0 git")
        time.sleep(1)  # for a server that does not wait for its client
        status, messages = cloning.thaw()
        assert status == 0, messages
        assert server.process.wait(timeout=30) == 0
    assert team.forge.objects(work / "clone")


def test_a_second_signal_ends_it_at_once(team: Team, work: Path):
    team.large("alice/large")
    pid_file = work / "pid"
    with serving(team, "--pid-file", str(pid_file), "--set", "drain_timeout_s=3600") as server:
        alice = Client(server, directory=work)
        cloning = Frozen(alice, "clone", "-q", alice.url("alice/large"), "clone")
        cloning.freeze_when(lambda: received(work / "clone/.git"))
        server.signal(signal.SIGTERM)
        server.wait_for_line("server", "stopping: 1 git")
        assert pid_file.exists()
        server.signal(signal.SIGTERM)
        assert server.process.wait(timeout=5) == 1
        assert not pid_file.exists()
        status, messages = cloning.thaw()
        assert status == 128
        assert "fatal: early EOF" in messages


def test_a_second_signal_ends_it_although_nobody_reads_its_log(team: Team):
    words = [*PROGRAM, *team.options, "serve", "--json", "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes) as process:
        port = json.loads(process.stdout.readline())["port"]
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(100):
            socket.create_connection(("127.0.0.1", port)).close()
        time.sleep(0.5)  # the pipe is full now
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        process.terminate()
        assert process.wait(timeout=10) == 1


def test_sighup_reads_everything_again(team: Team, work: Path):
    config = work / "settings.json"
    config.write_text('{"max_channels": 5}')
    refusals = team.state / "refusals.jsonl"
    with serving(team, "--config", str(config)) as server:
        mallory = Client(server, "mallory")
        assert mallory.ssh("x").returncode == 255
        wait_until(refusals.exists)
        refusals.rename(team.state / "moved")  # as logrotate does
        team.store.keys.add("bob", team.forge.keys["mallory"].line)
        server.signal(signal.SIGHUP)
        server.wait_for_line("server", "reloaded: 2 users with 3 keys, 1 repositories")
        assert mallory.ssh("x").returncode == 128
        wait_until(lambda: refusals.exists() and "service" in refusals.read_text())
        config.write_text('{"max_channels": 6, "archive": true}')
        server.signal(signal.SIGHUP)
        server.wait_for_line("server", "restart the server for the new archive, max_channels")
        config.write_text("{")
        server.signal(signal.SIGHUP)
        server.wait_for_line("server", "the settings stay as they were")
        config.write_text('{"max_channels": 5}')
        shutil.copyfile(team.forge.keys["bob"].private, team.state / "ssh_host_ed25519_key")
        server.signal(signal.SIGHUP)
        server.wait_for_line("server", "restart the server for the new host key")
        assert mallory.ssh("x").returncode == 128


def test_systemd_is_told(team: Team):
    path = short_path()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(20)
        with serving(team, prefix=("env", f"NOTIFY_SOCKET={path}")) as server:
            assert listener.recv(1000).split(b"\n")[0] == b"READY=1"
            server.signal(signal.SIGHUP)
            assert listener.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert listener.recv(1000) == b"READY=1"
            assert server.end() == 0
            assert listener.recv(1000) == b"STOPPING=1"
    os.unlink(path)


# ---- the pid file ----------------------------------------------------------------------------


def test_a_pid_file_lives_as_long_as_the_server(team: Team, work: Path):
    path = work / "pid"
    with serving(team, "--pid-file", str(path)) as server:
        assert path.read_text() == f"{server.pid}\n"
        again = team.run("serve", "--port", "0", "--pid-file", path)
        assert again.returncode == 1
        assert f"belongs to process {server.pid}, which is alive" in again.stderr
        assert path.read_text() == f"{server.pid}\n"
    assert not path.exists()
    assert [entry.name for entry in work.iterdir() if "pid" in entry.name] == []


def test_the_pid_file_of_a_dead_server_is_replaced(team: Team, work: Path):
    path = work / "pid"
    with serving(team, "--pid-file", str(path)) as server:
        server.process.kill()
        server.process.wait()
    assert path.exists()
    with serving(team, "--pid-file", str(path)) as server:
        assert path.read_text() == f"{server.pid}\n"


def test_the_number_of_a_dead_server_may_be_somebody_elses_now(team: Team, work: Path):
    path = work / "pid"
    with subprocess.Popen(["sleep", "60"]) as other:
        path.write_text(f"{other.pid}\n")
        os.utime(path, (0, 0))  # long before that process
        with serving(team, "--pid-file", str(path)) as server:
            assert path.read_text() == f"{server.pid}\n"
        path.write_text(f"{other.pid}\n")
        assert team.run("serve", "--port", "0", "--pid-file", path).returncode == 1
        other.kill()


def test_another_file_is_not_taken_for_a_pid_file(team: Team, work: Path):
    path = work / "precious"
    path.write_text("a poem\n")
    answer = team.run("serve", "--port", "0", "--pid-file", path)
    assert answer.returncode == 1
    assert "no pid file" in answer.stderr
    assert path.read_text() == "a poem\n"


# ---- wrong words -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--port", "70000"], 2, "'70000' is no port"),
        (["--port", "ssh"], 2, "'ssh' is no port"),
        (["--host", "localhost"], 2, "no numeric IPv4 or IPv6 address"),
        (["--host", "192.0.2.1"], 1, "192.0.2.1"),
        (["--metrics-port", "-1"], 2, "'-1' is no port"),
        (["--log-format", "xml"], 2, "'xml'"),
        (["--max-stale", "soon"], 2, "'soon' is no number of seconds"),
        (["--max-stale", "-1"], 2, "is no number of seconds"),
        (["--max-stale", "0.1"], 2, "max_stale_s 0.1: use"),
        (["--database", "mysql://localhost/x"], 2, "no database at a mysql: URL"),
        (["--advertise", "a b"], 2, "is no host"),
        (["--advertise", "host:port"], 2, "is no host"),
        (["--proxy-protocol-from", "everywhere"], 2, "everywhere"),
        (["--set", "max_connections"], 2, "write NAME=VALUE"),
        (["--set", "max_connections=many"], 2, "give a whole number"),
        (["--set", "max_connections=0"], 2, "max_connections"),
        (["--set", "archive=yes"], 2, "give true or false"),
        (["--set", "git_config=1"], 2, "write git_config.KEY=VALUE"),
        (["--set", "color=red"], 2, "there is no setting 'color'"),
        (["--set", "ciphers=rot13"], 1, "ciphers"),
        (["--set", "git=/nowhere/git"], 1, "/nowhere/git"),
        (["--config", "/nowhere"], 1, "/nowhere: No such file"),
        (["--config", "/dev/null"], 2, "is no JSON"),
        (["--pid-file", "/nowhere/pid"], 1, "/nowhere/pid"),
        (["--pid-file", "/"], 1, "/"),
        (["--host-key", "/dev/null"], 1, "/dev/null"),
        (["--colour", "red"], 2, "--colour"),
        (["again"], 2, "again"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_words_are_one_line(team: Team, words: list[str], status: int, says: str):
    port = [] if "--port" in words else ["--port", "0"]
    answer = team.run("serve", *port, *words)
    assert (answer.returncode, answer.stdout) == (status, ""), answer.stderr
    assert says in answer.stderr
    # A warning of the server may precede it; the last line is the error.
    assert answer.stderr.splitlines()[-1].startswith("pyplue.ssh: ")
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"git": 5}', "git must be a string"),
        ('{"git": "a\\u0000b"}', "git must be a string (UTF-8, no NUL)"),
        ('{"host_keys": 5}', "host_keys must be an array of strings"),
        ('{"host_keys": ["\\ud800"]}', "host_keys must be an array of strings"),
        ('{"max_connections": "x"}', "max_connections must be a whole number"),
        ('{"max_connections": true}', "max_connections must be a whole number"),
        ('{"drain_timeout_s": 1.5}', "drain_timeout_s must be a whole number"),
        ('{"archive": 1}', "archive must be true or false"),
        ('{"git_config": 5}', "git_config must be an object of strings"),
        ('{"git_config": {"a.b": 5}}', "git_config must be an object of strings"),
        ("[" * 100_000, "nested too deeply"),
        ('{"git": ' * 100_000, "nested too deeply"),
    ],
)
def test_a_wrong_file_of_settings_is_one_line(team: Team, work: Path, text: str, says: str):
    config = work / "settings.json"
    config.write_text(text)
    # doctor and serve read them alike, and doctor ends in any case.
    answer = team.ask("doctor", "--config", config, "--set", "git_config.c.d=e")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert answer.stderr.startswith(f"pyplue.ssh: {config}")
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "path", "says"),
    [
        ("--state", "/proc/nowhere", "name another directory with --state"),
        ("--repos", "/proc/nowhere", "name a directory for repositories with --repos"),
        ("--database", "/proc/nowhere", "/proc/nowhere"),
    ],
)
def test_places_that_cannot_be_are_one_line(team: Team, option: str, path: str, says: str):
    answer = run("--state", team.state, "serve", "--port", "0", option, path)
    assert answer.returncode == 1
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_port_in_use_is_one_line(team: Team):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = team.run("serve", "--port", str(port), "--pid-file", team.directory / "pid")
    assert answer.returncode == 1
    assert str(port) in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert not (team.directory / "pid").exists()


def test_a_metrics_port_in_use_is_one_line(team: Team):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        answer = team.run("serve", "--port", "0", "--metrics-port", str(port))
    assert answer.returncode == 1
    assert f"port {port}: Address already in use" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_metrics_can_be_scraped(team: Team):
    with serving(team, "--metrics-port", "0") as server:
        Client(server).ssh("x")
        Client(server, "mallory").ssh("x")
        server.wait_for_line("connection", verdict="refused: unknown_key")
        with urllib.request.urlopen(server.hello["metrics"], timeout=10) as page:
            text = page.read().decode()
    assert server.hello["metrics"].startswith("http://127.0.0.1:")
    assert 'plue_ssh_auth_failed_total{reason="unknown_key"} 1.0' in text
    assert "plue_ssh_authenticated_total 1.0" in text


def test_a_host_key_that_others_can_read_is_refused(team: Team):
    (team.state / "ssh_host_ed25519_key").chmod(0o644)
    answer = team.run("serve", "--port", "0")
    assert answer.returncode == 1
    assert "chmod 600" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_settings_reach_the_server(team: Team, work: Path):
    config = work / "settings.json"
    config.write_text('{"user": "plue", "git_config": {"receive.denyDeletes": "true"}}')
    words = ["--config", str(config), "--set", "archive=true", "--set", "user=forge"]
    with serving(team, *words, "--set", "environment.WHERE=here") as server:
        client = Client(server, user="forge", directory=work)
        clone = client.clone("alice/project", "clone")
        client.git("archive", f"--remote={client.url('alice/project')}", "-o", "x.tar", "main")
        client.git("push", "-q", "origin", "main:old", cwd=clone)
        assert "deletion prohibited" in client.try_git("push", "origin", ":old", cwd=clone).stderr
        hook = team.path("alice/project") / "hooks/update"
        hook.write_text("#!/bin/sh\necho $WHERE $PLUE_USER $PLUE_REPO >&2\n")
        hook.chmod(0o755)
        answer = client.try_git("push", "origin", "main:new", cwd=clone)
        assert "remote: here alice alice/project" in answer.stderr


# ---- again and again -------------------------------------------------------------------------


def test_a_state_directory_is_made_and_used_again(forge: Forge, work: Path):
    state = work / "made" / "here"
    with subprocess.Popen(
        [*PROGRAM, "--state", str(state), "serve", "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        first = json.loads(process.stdout.readline())
        process.terminate()
        _, log = process.communicate(timeout=30)
        assert process.returncode == 0, log
    assert state.stat().st_mode & 0o777 == 0o700
    assert first["clone"].endswith("/USER/REPOSITORY")
    for words in (["user", "add", "alice"], ["key", "add", "alice", forge.keys["alice"].line]):
        assert run("--state", state, *words).returncode == 0
    answer = run("--state", state, "repo", "create", "alice/first")
    assert answer.returncode == 0
    shutil.copytree(forge.directory / "template.git", state / "repositories/alice/second.git")
    assert run("--state", state, "repo", "create", "alice/second", "--adopt").returncode == 0
    shown = json.loads(run("--state", state, "host-key", "show", "--json").stdout)
    assert shown["fingerprint"] == first["fingerprint"]
