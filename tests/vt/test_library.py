"""libvt_fwd: sessions inside the calling process, through the C ABI as Python and C see it.

What a host can do to its sessions (fork, exit, be killed, ignore SIGCHLD, run out of descriptors)
is done by a Python process of its own, a `host`.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from source_tree import ROOT

from pyplue import ffi
from vt.harness import Client, Home, Recording, Session, alive, eventually

vt = ffi.vt


def code_of(name: str) -> int:
    """The error code that the library calls `name`."""
    for code in range(0, -64, -1):
        if vt.vt_fwd_error_name(code) == name.encode():
            return code
    raise AssertionError(f"no error is called {name}")


def refused(config: Any) -> tuple[str, str]:
    """The name and the sentence with which the library refuses to start."""
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    assert vt.vt_fwd_start(text, len(text)) == 0
    message = vt.vt_fwd_last_message().decode()
    return vt.vt_fwd_error_name(vt.vt_fwd_last_error()).decode(), message


def start(home: Home, *argv: str, **config: Any) -> int:
    config = {"control_dir": str(home.control), "cwd": str(home.work), **config}
    text = json.dumps({"argv": argv, **config}).encode()
    handle = vt.vt_fwd_start(text, len(text))
    assert handle, vt.vt_fwd_last_message()
    return int(handle)


def session_of(home: Home, handle: int) -> Session:
    out = ffi.buffer(64)
    length = vt.vt_fwd_session_id(handle, out, 64)
    assert length > 0
    return home.session(out.raw[:length].decode())


def finish(handle: int, timeout_ms: int = 10_000) -> int:
    code = vt.vt_fwd_wait(handle, timeout_ms)
    assert vt.vt_fwd_close(handle)
    return int(code)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No test leaves a session, a descriptor or a thread of the library behind."""
    before = len(os.listdir("/dev/fd"))
    yield
    eventually(lambda: vt.vt_fwd_running() == 0, what="sessions still run")
    eventually(lambda: len(os.listdir("/dev/fd")) <= before, what="descriptors are left")


HOST = """
import json, os, signal, sys, time
from pyplue import ffi
vt = ffi.vt
control = sys.argv[1]
def start(*argv, **config):
    text = json.dumps({"argv": argv, "control_dir": control, **config}).encode()
    handle = vt.vt_fwd_start(text, len(text))
    assert handle, vt.vt_fwd_last_message()
    return handle
"""


def host(home: Home, script: str, **options: Any) -> subprocess.Popen[bytes]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    program = HOST + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", program, str(home.control)], **options)


def run_host(home: Home, script: str, **options: Any) -> str:
    process = host(home, script, **options)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()  # one that hangs does not stay
    assert process.returncode == 0, err.decode()
    return out.decode()


# ---- a session ----------------------------------------------------------------------------------


def test_a_session_runs_when_start_returns_and_is_complete_when_wait_does(home: Home):
    handle = start(
        home,
        *("sh", "-c", 'stty size; echo "$A $TERM $VIBETUNNEL_SESSION_ID"; read x; exit 7'),
        id="one",
        cols=90,
        rows=20,
        name="mine \x1b]2;x",
        env={"A": "given", "PATH": os.environ["PATH"], "TERM": "dumb"},
    )
    session = session_of(home, handle)
    assert session.id == "one"
    info = session.info
    assert info["status"] == "running"
    assert info["pid"] == vt.vt_fwd_session_pid(handle)
    assert (info["initialCols"], info["initialRows"]) == (90, 20)
    assert info["name"] == "mine ]2;x"
    assert info["workingDir"] == str(home.work)
    assert stat.S_IMODE(session.path.stat().st_mode) == 0o700
    for name in ("session.json", "stdout", "stdin", "ipc.sock"):
        assert stat.S_IMODE((session.path / name).stat().st_mode) == 0o600, name
    assert vt.vt_fwd_wait(handle, 0) == code_of("timeout")
    with session.client() as client:
        assert client.answers()
        session.wait_output("given xterm-256color one")
        client.control(cmd="resize", cols=100, rows=30).type(b"go\n")
        assert vt.vt_fwd_wait(handle, 10_000) == 7
        assert client.closed()
    assert vt.vt_fwd_wait(handle, 0) == 7  # as often as asked
    recording = session.recording()
    assert recording.text().startswith("20 90\r\ngiven xterm-256color one\r\n")
    assert recording.of_kind("r") == ["100x30"]
    assert recording.of_kind("i") == ["go\n"]
    assert recording.exit == (7, "one")
    assert session.info["status"] == "exited"
    assert session.info["exitCode"] == 7
    assert not (session.path / "ipc.sock").exists()
    assert vt.vt_fwd_kill(handle, 9) == 0
    assert vt.vt_fwd_stop(handle) == 0
    assert vt.vt_fwd_close(handle)
    assert vt.vt_fwd_wait(handle, 0) == code_of("no_handle")


def test_whoever_has_waited_may_remove_the_session_at_once(home: Home):
    for _ in range(100):
        handle = start(home, "true", id="again")
        assert vt.vt_fwd_wait(handle, 10_000) == 0
        directory = os.open(session_of(home, handle).path, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as `prune` does
        finally:
            os.close(directory)
        assert vt.vt_fwd_close(handle)


def test_a_session_whose_handle_is_closed_ends_by_itself(home: Home):
    handle = start(home, "sh", "-c", "sleep 0.3; exit 3", id="alone")
    assert vt.vt_fwd_close(handle)
    assert not vt.vt_fwd_close(handle)
    session = home.session("alone").wait("exited")
    eventually(lambda: not (session.path / "ipc.sock").exists())
    assert session.recording().exit == (3, "alone")


@pytest.mark.parametrize(("number", "expected"), [(15, 143), (9, 137), (1, 129), (2, 130)])
def test_kill_sends_a_signal(home: Home, number: int, expected: int):
    handle = start(home, "sleep", "100")
    assert vt.vt_fwd_kill(handle, number) == 0
    assert finish(handle) == expected
    assert vt.vt_fwd_kill(handle, 0) == code_of("argument")
    assert vt.vt_fwd_kill(handle, signal.NSIG) == code_of("argument")


def test_stop_asks_first_and_kills_after_three_seconds_or_at_the_second_call(home: Home):
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    patient, hasty = (start(home, "sh", "-c", stubborn) for _ in range(2))
    for handle in (patient, hasty):
        session_of(home, handle).wait_output("ready")
        assert vt.vt_fwd_stop(handle) == 0
    assert vt.vt_fwd_wait(hasty, 200) == code_of("timeout")
    begin = time.monotonic()
    assert vt.vt_fwd_stop(hasty) == 0
    assert finish(hasty) == 137
    assert time.monotonic() - begin < 1.5
    assert finish(patient) == 137
    assert 1.5 < time.monotonic() - begin < 5


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["no-such-command"], 127, "command not found"),
        (["/etc/passwd"], 126, "permission denied"),
        ([""], 127, "command not found"),
    ],
)
def test_a_command_that_cannot_run_says_so_in_the_recording(home, argv, code, message):
    handle = start(home, *argv)
    session = session_of(home, handle)
    assert finish(handle) == code
    assert message in session.recording().text()


def test_all_output_is_recorded(home: Home):
    handle = start(home, "sh", "-c", "seq 300000")
    session = session_of(home, handle)
    assert finish(handle, 30_000) == 0
    expected = "".join(f"{n}\r\n" for n in range(1, 300_001))
    assert session.recording().text() == expected


def test_the_options_do_what_they_say(home: Home):
    script = r"printf '\033]2;title\007shown\n'; read x"
    handle = start(home, "sh", "-c", script, title_mode="filter", record_input=False)
    session = session_of(home, handle)
    with session.client() as client:
        session.wait_output("shown")
        client.type(b"secret\n")
        assert finish(handle) == 0
    recording = session.recording()
    assert "title" not in recording.text()
    assert recording.of_kind("i") == []
    handle = start(home, "sh", "-c", "seq 1000", max_cast_bytes=500)
    session = session_of(home, handle)
    assert finish(handle) == 0
    assert session.recording().of_kind("m") == ["recording stopped: VIBETUNNEL_MAX_CAST_BYTES=500"]


def test_git_is_asked_beside_the_session(home: Home):
    subprocess.run(["git", "init", "-q", "-b", "trunk", home.work], check=True)
    with_git = start(home, "sleep", "100", id="with")
    without = start(home, "sleep", "100", id="without", git=False)
    eventually(lambda: "gitBranch" in home.session("with").info)
    assert home.session("with").info["gitBranch"] == "trunk"
    assert home.session("with").info["gitRepoPath"] == str(home.work)
    assert "gitRepoPath" not in home.session("without").info
    for handle in (with_git, without):
        assert vt.vt_fwd_stop(handle) == 0
        assert finish(handle) == 143


def test_a_directory_that_is_removed_is_not_made_again(home: Home):
    handle = start(home, "sh", "-c", "read x", id="gone")
    session = home.session("gone")
    client = session.client()
    for entry in session.path.iterdir():
        entry.unlink()
    session.path.rmdir()
    client.type(b"\n")
    assert finish(handle) == 0
    client.close()
    assert not session.path.exists()


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "argv is missing"),
        ({"argv": ["sh"], "colour": 1}, "colour is not a key"),
        ({"argv": ["sh"], "\0\x1b]0;": 1}, "??]0; is not a key"),
        ({"argv": ["sh"], "cols": 0}, "cols is a whole number from 1 to 65535"),
        ({"argv": ["sh"], "id": "../x"}, "id has 1 to 64 letters"),
        ({"argv": ["sh"], "env": ["A=1"]}, "env is not an object of strings"),
        ({"argv": ["sh", "a\0b"]}, "argv holds a NUL"),
        ({"argv": ["sh"], "title_mode": "loud"}, "title_mode is none, filter"),
        (b'{"argv":["\xff"]}', "the configuration is not valid JSON in UTF-8"),
        (b"", "the configuration is not valid JSON"),
        ([], "the configuration is not a JSON object"),
        (b"[" * 100_000, "the configuration is not valid JSON"),
    ],
)
def test_a_configuration_is_refused_by_name(config: Any, message: str):
    name, said = refused(config)
    assert name == "config"
    assert said.startswith(message), said


def test_what_cannot_work_is_refused_and_leaves_nothing(home: Home):
    base = {"argv": ["sh"], "control_dir": str(home.control)}
    assert refused({**base, "cwd": "/no/such"})[0] == "working_directory"
    assert refused({**base, "cwd": "/etc/passwd"})[0] == "working_directory"
    assert "103 bytes" in refused({**base, "control_dir": f"/tmp/{'x' * 100}"})[1]
    assert refused({**base, "control_dir": "/dev/null/x"})[0] == "system"
    assert not home.control.exists() or not list(home.control.iterdir())
    handle = start(home, "sleep", "100", id="taken")
    begin = time.monotonic()
    for _ in range(20):
        assert refused({**base, "id": "taken"})[0] == "session_is_running"
    assert time.monotonic() - begin < 1  # nothing else starts or ends meanwhile
    assert vt.vt_fwd_stop(handle) == 0
    assert finish(handle) == 143
    again = start(home, "true", id="taken")  # and when it has ended, it may be used again
    assert finish(again) == 0


@pytest.mark.parametrize("config", ['cwd="sub"', ""])
def test_a_host_whose_directory_was_removed_starts_nothing_elsewhere(home: Home, config: str):
    run_host(
        home,
        f"""
        os.makedirs(gone := control + ".gone")
        os.chdir(gone)
        os.rmdir(gone)
        config = dict(argv=["pwd"], control_dir=control, {config})
        text = json.dumps(config).encode()
        assert vt.vt_fwd_start(text, len(text)) == 0
        start("true", cwd="/")
        """,
    )


def test_running_out_of_descriptors_is_an_error_that_leaves_none_starting(home: Home):
    run_host(
        home,
        """
        import resource
        # To its end: it needs a descriptor, too.
        assert vt.vt_fwd_wait(start("true", id="first"), 10_000) == 0
        for limit in range(4, 24):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 4096))
            config = {"argv": ["true"], "control_dir": control, "id": f"n{limit}"}
            text = json.dumps(config).encode()
            handle = vt.vt_fwd_start(text, len(text))
            resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
            if handle:
                assert vt.vt_fwd_wait(handle, 10_000) == 0
                break
            assert vt.vt_fwd_error_name(vt.vt_fwd_last_error()) in (b"system", b"working_directory")
        else:
            raise AssertionError("24 descriptors are not enough for one session")
        """,
    )
    for session in home.sessions():
        assert session.info["status"] == "exited", session.id


# ---- the process around the sessions -------------------------------------------------------------


def test_the_hosts_signals_umask_and_directory_stay_its_own(home: Home):
    out = run_host(
        home,
        """
        kept = ("SigBlk", "SigIgn", "SigCgt", "Umask")
        def state():
            own = open("/proc/self/status").read() if os.path.exists("/proc/self/status") else ""
            lines = [line.split() for line in own.splitlines() if line.split(":")[0] in kept]
            # Signals 32 and 33 are the C library's own, for its threads.
            mask = [int(line[1], 16) & 0x7FFFFFFF for line in lines]
            return mask, os.getcwd(), dict(os.environ), [signal.getsignal(n) for n in range(1, 32)]
        os.umask(0o027)
        before = state()
        handle = start("sh", "-c", "umask; trap - INT; kill -INT $$", id="s", cwd="/")
        assert state() == before
        if os.path.isdir("/proc/self/task"):
            [thread] = set(os.listdir("/proc/self/task")) - {str(os.getpid())}
            text = open(f"/proc/self/task/{thread}/status").read()
            blocked = int(text.split("SigBlk:")[1].split()[0], 16)
            # All that a host may handle, SIGINT and SIGCHLD among them.
            for number in (1, 2, 3, 10, 12, 13, 14, 15, 17, 18, 20, 23, 25, 28):
                assert blocked >> (number - 1) & 1, number
        print(vt.vt_fwd_wait(handle, 10_000))
        assert state() == before
        """,
    )
    assert out.strip() == "130"
    assert home.session("s").recording().text() == "0027\r\n"
    assert stat.S_IMODE((home.control / "s" / "stdout").stat().st_mode) == 0o600


def test_a_command_gets_nothing_that_the_host_has_open(home: Home):
    out = run_host(
        home,
        """
        secret = os.open("/etc/passwd", os.O_RDONLY)
        os.set_inheritable(secret, True)
        other = start("sleep", "100")
        handle = start("sh", "-c", "ls /dev/fd/ | tr '\\\\n' ' '; echo", id="fds")
        assert vt.vt_fwd_wait(handle, 10_000) == 0
        vt.vt_fwd_stop(other)
        vt.vt_fwd_wait(other, 10_000)
        """,
    )
    assert out == ""
    # The last one is ls's own, of the directory.
    assert home.session("fds").recording().text().split() == ["0", "1", "2", "3"]


def test_a_host_without_standard_streams(home: Home):
    run_host(
        home,
        """
        os.close(0)
        handle = start("sh", "-c", "read x; echo got $x; exit 4", id="bare")
        import socket
        client = socket.socket(socket.AF_UNIX)
        client.connect(f"{control}/bare/ipc.sock")
        client.sendall(b"\\x01\\0\\0\\0\\3ok\\n")
        assert vt.vt_fwd_wait(handle, 10_000) == 4
        """,
    )
    assert "got ok" in home.session("bare").recording().text()


def test_a_host_that_ignores_sigchld_loses_the_exit_code_and_nothing_else(home: Home):
    out = run_host(
        home,
        """
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        handle = start("sh", "-c", "echo all; exit 7", id="lost")
        print(vt.vt_fwd_wait(handle, 10_000), vt.vt_fwd_close(handle))
        """,
    )
    assert out == "255 True\n"
    assert home.session("lost").recording().text() == "all\r\n"
    assert home.session("lost").recording().exit == (255, "lost")
    assert home.session("lost").info["exitCode"] == 255


def test_a_host_that_waits_for_any_child_does_not_hang_us(home: Home):
    out = run_host(
        home,
        """
        handles = [start("sh", "-c", f"sleep 0.0{n}; exit 7") for n in range(5)]
        end = time.monotonic() + 1
        while time.monotonic() < end:
            try:
                os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pass
        print(sorted({vt.vt_fwd_wait(handle, 10_000) for handle in handles}))
        """,
    )
    assert set(json.loads(out)) <= {7, 255}


def test_a_hosts_own_children_stay_its_own(home: Home):
    handle = start(home, "sh", "-c", "read x")
    child = subprocess.Popen(["sh", "-c", "exit 9"])
    assert child.wait(10) == 9
    assert vt.vt_fwd_stop(handle) == 0
    assert finish(handle) in (143, 129)


# ---- the host forks, exits, is killed ------------------------------------------------------------


def test_a_forked_child_has_no_sessions_and_holds_none_of_their_ends(home: Home):
    run_host(
        home,
        """
        import socket
        handle = start("sh", "-c", "echo up; read x; exit 5", id="parents")
        client = socket.socket(socket.AF_UNIX)
        client.connect(f"{control}/parents/ipc.sock")
        client.sendall(b"\\x04\\0\\0\\0\\0")
        assert client.recv(5) == b"\\x04\\0\\0\\0\\0"
        fd_count = len(os.listdir("/dev/fd"))
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                assert vt.vt_fwd_running() == 0
                assert vt.vt_fwd_wait(handle, 0) == -2
                assert not vt.vt_fwd_close(handle)
                # Its own pipe, and all of the session's descriptors less.
                assert len(os.listdir("/dev/fd")) <= fd_count - 6 + 2, os.listdir("/dev/fd")
                own = start("sh", "-c", "exit 6", id="childs")
                assert vt.vt_fwd_wait(own, 10_000) == 6
                os.write(write, b"y")
                time.sleep(30)  # and holds nothing open meanwhile
            finally:
                os._exit(1)
        assert os.read(read, 1) == b"y"
        assert vt.vt_fwd_running() == 1
        client.sendall(b"\\x01\\0\\0\\0\\1\\n")
        assert vt.vt_fwd_wait(handle, 10_000) == 5
        client.settimeout(5)
        assert client.recv(5) == b""  # the end is seen
        again = start("sh", "-c", "exit 3", id="parents")  # and the id is free
        assert vt.vt_fwd_wait(again, 10_000) == 3
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        """,
    )


def test_forks_at_any_moment_of_busy_sessions(home: Home):
    run_host(
        home,
        """
        import threading
        stop = threading.Event()
        def work(n):
            while not stop.is_set():
                handle = start("sh", "-c", "seq 2000", id=f"w{n}")
                assert vt.vt_fwd_wait(handle, 20_000) == 0
                vt.vt_fwd_close(handle)
        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(3)]
        for thread in threads: thread.start()
        for _ in range(40):
            child = os.fork()
            if child == 0:
                os._exit(0 if vt.vt_fwd_running() == 0 else 1)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        for thread in threads: thread.join()
        """,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "os._exit(0)"])
def test_a_host_that_ends_ends_its_sessions(home: Home, ending: str):
    begin = time.monotonic()
    run_host(
        home,
        f"""
        start("sleep", "100", id="gentle")
        loop = "while :; do sleep 0.1; done"
        start("sh", "-c", f"trap '' HUP; echo $((1 + 41)); {{loop}}", id="stubborn")
        while '"42' not in open(f"{{control}}/stubborn/stdout").read(): time.sleep(0.01)
        {ending}
        """,
    )
    assert time.monotonic() - begin < 5
    gentle, stubborn = home.session("gentle"), home.session("stubborn")
    if ending == "os._exit(0)":
        # No exit handler runs, as in a host that is killed: the kernel hangs up, readers see it.
        eventually(lambda: read(gentle)["status"] == "exited")
        assert read(gentle)["exitCode"] == 1
        os.killpg(stubborn.info["pid"], signal.SIGKILL)  # it ignores the hang-up: still there
        eventually(lambda: read(stubborn)["status"] == "exited")
        return
    assert gentle.info["exitCode"] == 129
    assert gentle.recording().exit == (129, "gentle")
    assert stubborn.info["exitCode"] == 137
    assert stubborn.recording().exit == (137, "stubborn")
    for session in (gentle, stubborn):
        assert not (session.path / "ipc.sock").exists()


def read(session: Session) -> Any:
    out = ffi.buffer(65536)
    length = vt.vt_fwd_session_read(os.fsencode(session.path), out, 65536)
    assert length > 0, vt.vt_fwd_last_message()
    return json.loads(out.raw[:length])


def test_a_host_that_is_killed_leaves_what_readers_understand(home: Home):
    process = host(home, 'start("sleep", "100", id="s"); print("up", flush=True); time.sleep(60)')
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    session = home.session("s")
    assert read(session)["status"] == "running"
    process.kill()
    process.communicate()
    eventually(lambda: not alive(session.info["pid"]), what="the hang-up ends the command")
    assert read(session)["status"] == "exited"
    assert read(session)["exitCode"] == 1
    handle = start(home, "true", id="s")  # the id is free
    assert finish(handle) == 0


# ---- many ----------------------------------------------------------------------------------------


def resident_kib() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_a_hundred_sessions_at_once_leave_nothing(home: Home):
    def counts() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    before = counts()
    memory = []
    for turn in range(int(os.environ.get("VT_LIBRARY_ROUNDS", "5"))):
        handles = [start(home, "sh", "-c", "read x; exit 3", id=f"{turn}-{n}") for n in range(100)]
        assert vt.vt_fwd_running() == 100
        for n, handle in enumerate(handles):
            client = Client(home.control / f"{turn}-{n}" / "ipc.sock")
            client.type(b"\n")
            client.close()
            assert handle
        assert {finish(handle) for handle in handles} == {3}
        eventually(lambda: counts() == before, what=f"{counts()} is not {before}")
        memory.append(resident_kib())
    assert memory[-1] - memory[0] < 2048, memory
    assert all(session.info["exitCode"] == 3 for session in home.sessions())


def test_a_wait_may_be_longer_than_any_clock(home: Home):
    handle = start(home, "sleep", "0.1")
    assert vt.vt_fwd_wait(handle, 2**63 - 1) == 0
    assert vt.vt_fwd_wait(handle, -(2**63)) == 0
    assert vt.vt_fwd_close(handle)


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_AS and /proc")
def test_a_host_without_memory_for_a_session_gets_an_error(home: Home):
    out = run_host(
        home,
        """
        import resource
        def configuration(name):
            return json.dumps({"argv": ["true"], "control_dir": control, "id": name}).encode()
        def attempt(text):
            handle = vt.vt_fwd_start(text, len(text))
            if handle == 0:
                return vt.vt_fwd_error_name(vt.vt_fwd_last_error()).decode()
            code = vt.vt_fwd_wait(handle, 10_000)
            vt.vt_fwd_close(handle)
            return code
        assert attempt(configuration("first")) == 0
        texts = [configuration(f"m{number}") for number in range(40)]
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        results = []
        for number, text in enumerate(texts):
            resource.setrlimit(resource.RLIMIT_AS, (size + number * 65536, -1))
            results.append(attempt(text))
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        print(json.dumps(results))
        assert vt.vt_fwd_running() == 0
        """,
    )
    results = json.loads(out)
    assert set(results) <= {0, "out_of_memory", "system"}
    assert results[0] == "out_of_memory"
    assert results[-1] == 0
    for session in home.sessions():
        assert session.info["status"] == "exited", session.id


def test_threads_that_use_each_others_handles(home: Home):
    """Random calls on shared, closed and made-up handles: errors, never a crash or a hang."""
    shared: list[int] = [0, 4096, 2**32 - 1]
    stop = time.monotonic() + float(os.environ.get("VT_LIBRARY_SECONDS", "3"))
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        out = ffi.buffer(64)
        try:
            while time.monotonic() < stop:
                handle = rng.choice(shared)
                match rng.randrange(8):
                    case 0:
                        if vt.vt_fwd_running() < 20:
                            shared.append(start(home, "sh", "-c", "sleep 0.05; exit 2"))
                    case 1:
                        vt.vt_fwd_close(handle)
                    case 2:
                        assert vt.vt_fwd_kill(handle, rng.choice([1, 9, 15, 28])) in (0, -2)
                    case 3:
                        assert vt.vt_fwd_stop(handle) in (0, -2)
                    case 4:
                        code = vt.vt_fwd_wait(handle, rng.randrange(20))
                        assert code in (2, 129, 137, 143, -2, -24), code
                    case 5:
                        assert vt.vt_fwd_session_id(handle, out, 64) != 0
                    case 6:
                        assert vt.vt_fwd_session_pid(handle) != 0
                    case 7:
                        assert vt.vt_fwd_last_error() <= 0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for handle in shared:
        vt.vt_fwd_close(handle)
    assert not failures, failures[0]


# ---- from C --------------------------------------------------------------------------------------

C_PROGRAM = r"""
#ifdef __linux__
#define _GNU_SOURCE
#endif
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vt_fwd.h>

int main(int argc, char **argv) {
    char config[512];
    if (argc != 2) return 2;
    snprintf(config, sizeof config,
             "{\"argv\":[\"sh\",\"-c\",\"echo from C; exit 5\"],\"id\":\"c\","
             "\"control_dir\":\"%s\"}",
             argv[1]);
#ifdef __linux__
    clearenv(); /* then there is not even an empty environment */
#endif
    uint32_t session = vt_fwd_start((const uint8_t *)config, strlen(config));
    if (session == 0) {
        puts(vt_fwd_last_message());
        return 1;
    }
    int32_t code = vt_fwd_wait(session, -1);
    if (!vt_fwd_close(session) || vt_fwd_close(session)) return 1;
    if (vt_fwd_last_error() != VT_FWD_ERROR_NO_HANDLE || vt_fwd_running() != 0) return 1;

    uint8_t bytes[64], text[64];
    int64_t length = vt_fwd_frame_encode(VT_FWD_FRAME_INPUT, (const uint8_t *)"ls\n", 3, bytes, 64);
    vt_fwd_frame frame;
    uint32_t decoder = vt_fwd_decoder_create();
    if (vt_fwd_decoder_next(decoder, bytes, (size_t)length, text, 64, &frame)) return 1;
    printf("%d %s %d %.3s\n", code, vt_fwd_version(), (int)frame.type, (const char *)text);
    return vt_fwd_decoder_destroy(decoder) ? 0 : 1;
}
"""


UNLOADING = r"""
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char config[4096];
    snprintf(config, sizeof config, "{\"argv\": [\"sh\", \"-c\", \"read x; exit 5\"],"
             " \"id\": \"u\", \"control_dir\": \"%s\"}", argv[argc - 1]);
    void *library = dlopen(argv[1], RTLD_NOW);
    uint32_t (*start)(const char *, size_t) =
        (uint32_t (*)(const char *, size_t))dlsym(library, "vt_fwd_start");
    if (start(config, strlen(config)) == 0 || dlclose(library)) return 1;
    pid_t child = fork();
    if (child == 0) _exit(0);
    int status;
    if (waitpid(child, &status, 0) != child || status) return 2;
    usleep(100000);
    return 0;
}
"""


def test_a_host_may_unload_the_library(home: Home, tmp_path: Path):
    source, program = tmp_path / "host.c", tmp_path / "host"
    source.write_text(UNLOADING)
    subprocess.run([sys.executable, "-m", "ziglang", "cc", "-o", program, source], check=True)
    done = subprocess.run([program, vt.path, home.control], timeout=20, check=False)
    assert done.returncode == 0
    assert home.session("u").info["exitCode"] == 129  # it ends with its host, as ever


def test_a_c_program_starts_a_session(home: Home, tmp_path: Path):
    source, program = tmp_path / "host.c", tmp_path / "host"
    source.write_text(C_PROGRAM)
    include = f"-I{ROOT / 'zig' / 'vt-fwd' / 'include'}"
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", include]
    compiler = [sys.executable, "-m", "ziglang", "cc"]
    rpath = f"-Wl,-rpath,{vt.path.parent}"
    subprocess.run([*compiler, *strict, "-o", program, source, vt.path, rpath], check=True)
    done = subprocess.run([program, home.control], capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout
    assert done.stdout == "5 0.1.0 1 ls\n\n"
    assert Recording(home.control / "c" / "stdout").text() == "from C\r\n"
