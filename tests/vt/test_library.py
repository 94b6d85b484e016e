"""libvt_fwd: sessions inside the calling process, through the C ABI as Python and C see it."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from source_tree import ROOT

from vt.harness import Home, Recording, eventually
from vt.library import code_of, finish, refused, run_host, session_of, start, vt

pytestmark = pytest.mark.usefixtures("nothing_left")

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
