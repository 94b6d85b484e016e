"""libvt_fwd and its host: what either does, the other stays whole.

What a host can do to its sessions (fork, exit, be killed, ignore SIGCHLD, run out of descriptors)
is done by a Python process of its own, a `host`.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pyplue import ffi
from vt.harness import Client, Home, Session, alive, eventually
from vt.library import finish, host, run_host, start, vt

pytestmark = pytest.mark.usefixtures("nothing_left")

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
