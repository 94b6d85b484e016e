"""A11 of the contract: passwords, peers, one run, the cap; and bad input of other kinds."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vt.harness import PULSE, Home, Session, Terminal, eventually

SECRET = "correct-horse-7"


# ---- passwords ----------------------------------------------------------------------------------

PROMPTS = {
    "getpass": [
        sys.executable,
        "-c",
        "import getpass; print('got', len(getpass.getpass('Password: ')))",
    ],
    "a shell's read": [
        "bash",
        "-c",
        'read -rs -p "Password: " secret; echo; echo got ${#secret}',
    ],
    "stty -echo": [
        "sh",
        "-c",
        "stty -echo; printf 'Password: '; read -r s; stty echo; echo; echo got ${#s}",
    ],
}


@pytest.mark.parametrize("typed_by", ["terminal", "socket"])
@pytest.mark.parametrize("program", PROMPTS.values(), ids=PROMPTS.keys())
def test_a11_a_password_leaves_no_trace(home: Home, program: list[str], typed_by: str) -> None:
    terminal = home.terminal(*program, flags=("-vvv",))
    session = terminal.session.wait()
    terminal.expect(b"Password: ")
    time.sleep(0.1)  # as a person does; a prompt may come before the echo is off
    if typed_by == "terminal":
        for letter in SECRET:
            terminal.send(letter.encode())
        terminal.send(b"\r")
    else:
        with session.client() as client:
            client.type(SECRET.encode()).type(b"\n")
    terminal.expect(b"got %d" % len(SECRET))
    assert terminal.wait() == 0
    everything = b"".join(
        path.read_bytes() for path in (home.path / ".vibetunnel").rglob("*") if path.is_file()
    )
    assert b"Password: " in everything
    for length in range(4, len(SECRET) + 1):
        assert SECRET[:length].encode() not in everything
    assert SECRET not in session.recording().text("i")
    assert not set(session.recording().text("i")) & set(SECRET)


def test_a11_what_is_typed_after_a_password_is_recorded(home: Home) -> None:
    script = 'read -rs -p "Password: " s; echo; read -r line; echo "line=$line"'
    terminal = home.terminal("bash", "-c", script)
    terminal.expect(b"Password: ")
    time.sleep(0.1)
    terminal.send(SECRET.encode() + b"\r")
    terminal.expect(b"\r\n")
    time.sleep(0.1)
    terminal.send(b"hello\r")
    terminal.expect(b"line=hello")
    terminal.wait()
    assert terminal.session.recording().text("i") == "hello\r"


def test_a11_a_program_in_raw_mode_is_recorded(home: Home) -> None:
    """An editor has no echo either, but is no password prompt: it is not in canonical mode."""
    terminal = home.terminal("sh", "-c", "stty raw -echo; printf up; head -c 5")
    terminal.expect(b"up")
    terminal.send(b"typed")
    terminal.wait()
    assert terminal.session.recording().text("i") == "typed"


@pytest.mark.parametrize(
    ("flags", "variables"),
    [(("--no-record-input",), {}), ((), {"VIBETUNNEL_RECORD_INPUT": "0"})],
    ids=["flag", "variable"],
)
def test_a11_input_recording_can_be_off(
    home: Home, flags: tuple[str, ...], variables: dict[str, str]
) -> None:
    terminal = home.terminal("cat", flags=flags, env=variables)
    session = terminal.session.wait()
    terminal.send(b"one\r")
    with session.client() as client:
        client.type(b"two\n")
        terminal.expect(b"two\r\n")
    terminal.send(b"\x04")
    terminal.wait()
    assert session.recording().of_kind("i") == []


# ---- peers --------------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to play two other users")
def test_a11_another_user_is_refused_and_root_is_not(home: Home) -> None:
    owner, stranger = 65534, 54321
    for directory in (home.path, home.work):
        os.chown(directory, owner, owner)
        directory.chmod(0o755)
    process = home.start("cat", user=owner, group=owner, extra_groups=[])
    session = process.session.wait()
    # The modes keep others out already; without them the check is what is left.
    for path in (home.path / ".vibetunnel", home.control, session.path):
        path.chmod(0o755)
    (session.path / "ipc.sock").chmod(0o666)
    probe = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.settimeout(3)\n"
        "try: s.sendall(b'\\x04\\0\\0\\0\\0' + b'\\x01\\0\\0\\0\\x05evil\\n'); print(s.recv(5))\n"
        "except (BrokenPipeError, ConnectionResetError): print(b'')"
    )

    def answer(user: int) -> bytes:
        argv = ["/usr/bin/python3", "-c", probe, str(session.path / "ipc.sock")]
        return subprocess.run(
            argv, user=user, group=user, extra_groups=[], capture_output=True, check=True
        ).stdout.strip()

    assert answer(stranger) == b"b''"
    assert answer(owner) == repr(PULSE).encode()
    with session.client() as root:
        assert root.answers()
        session.wait_output("evil")  # of the owner, once
        assert session.recording(finished=False).text("i").count("evil") == 1
        root.control(cmd="kill")
    assert process.wait().code == 143


# ---- one run ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 126, 127, 137])
def test_a11_the_command_runs_exactly_once(home: Home, code: int) -> None:
    home.run("sh", "-c", f"echo ran >>ran; exit {code}")
    assert (home.work / "ran").read_text() == "ran\n"


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="vhangup needs root")
def test_a11_a_hang_up_of_the_terminal_is_not_the_end(home: Home) -> None:
    script = """
import ctypes, os, signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
name = os.ttyname(0)
print("before", flush=True)
time.sleep(0.1)
ctypes.CDLL(None).vhangup()
fd = os.open(name, os.O_RDWR)
time.sleep(0.2)
os.write(fd, b"after\\n")
time.sleep(0.1)
os._exit(5)
"""
    result = home.run(sys.executable, "-c", script)
    assert result.code == 5
    assert home.last.recording().text() == "before\r\nafter\r\n"


# ---- the cap ------------------------------------------------------------------------------------


def test_a11_the_recording_may_be_capped(home: Home) -> None:
    cap = 200_000
    result = home.run("seq", "1", "100000", env={"VIBETUNNEL_MAX_CAST_BYTES": str(cap)})
    assert result.code == 0
    assert result.out.endswith(b"99999\r\n100000\r\n"), "the terminal goes on"
    recording = home.last.recording()
    assert cap * 0.5 < len(recording.raw) <= cap + 4096
    markers = recording.of_kind("m")
    assert len(markers) == 1
    assert recording.events[-1][1] == "m"
    assert result.out.decode().startswith(recording.text())


@pytest.mark.parametrize("value", ["", "0", "-1", "many", "1e9", "99999999999999999999999"])
def test_a11_a_cap_that_is_no_number_is_none(home: Home, value: str) -> None:
    home.run("seq", "1", "1000", env={"VIBETUNNEL_MAX_CAST_BYTES": value})
    assert home.last.recording().text().endswith("1000\r\n")


def test_a11_a_tiny_cap_still_leaves_a_valid_recording(home: Home) -> None:
    assert home.run("seq", "1", "1000", env={"VIBETUNNEL_MAX_CAST_BYTES": "1"}).code == 0
    home.last.recording()


# ---- a full disk --------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(at: Path) -> Iterator[None]:
    at.mkdir(parents=True)
    argv = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(at)]
    if os.geteuid() != 0 or subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here; the limit on file sizes is tested")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def check_full_disk(result_out: bytes, err: bytes, session: Session) -> None:
    assert result_out.endswith(b"49999\r\n50000\r\n"), "the terminal goes on"
    assert result_out.startswith(b"1\r\n2\r\n")
    assert len(result_out) == len("".join(f"{n}\r\n" for n in range(1, 50_001)))
    assert (session.path / "stdout").read_bytes().endswith(b"\n"), "every line is whole"
    recording = session.recording(finished=False)
    assert result_out.decode().startswith(recording.text())
    assert err.count(b"recording stopped") == 1, err


def test_bad_input_a_full_disk_while_recording(home: Home) -> None:
    with small_disk(home.control):
        process = home.start("seq", "1", "50000")
        result = process.wait()
        assert result.code == 0
        check_full_disk(result.out, result.err, process.session)
        home.control.joinpath(process.session.id, "stdout").unlink()


def test_bad_input_a_limit_on_file_sizes(home: Home) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    process = home.start("seq", "1", "50000", preexec_fn=limit)
    result = process.wait()
    assert result.code == 0
    check_full_disk(result.out, result.err, process.session)
    assert process.session.info["status"] == "exited"


def test_bad_input_no_descriptors_left(home: Home) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (5, 5))

    result = home.run("touch", "ran", preexec_fn=limit)
    assert result.code == 1
    assert result.err.strip()
    assert not (home.work / "ran").exists()
    assert home.last.status() != "starting"


def test_bad_input_few_descriptors_for_clients(home: Home) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))

    process = home.start("cat", preexec_fn=limit)
    session = process.session.wait()
    peers = []
    for _ in range(40):
        peer = socket.socket(socket.AF_UNIX)
        peer.setblocking(False)
        peer.connect_ex(str(session.path / "ipc.sock"))
        peers.append(peer)
    time.sleep(0.3)
    before = os.times()
    cpu = Path(f"/proc/{process.pid}/stat")

    def ticks() -> int:
        fields = cpu.read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    used = ticks()
    time.sleep(0.5)
    assert ticks() - used < 10, "no busy loop while clients cannot be accepted"
    assert os.times().elapsed >= before.elapsed
    for peer in peers:
        peer.close()
    time.sleep(0.1)
    with session.client() as client:
        assert client.answers()
        client.control(cmd="kill")
    assert process.wait().code == 143


def test_bad_input_a_huge_argument_list(home: Home) -> None:
    result = home.run("sh", "-c", "echo $#", "sh", *["x" * 100] * 5000)
    assert result.out == b"5000\r\n"


def test_bad_input_the_working_directory_is_gone(home: Home) -> None:
    gone = home.path / "gone"
    gone.mkdir()
    script = 'cd "$1"; rmdir "$1"; shift; exec "$@"'
    argv = [*home.command, "--session-id", "x", "--", "sh", "-c", "echo ran; exit 3"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", str(gone), *argv],
        env=home.env,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    # Either is defined: it runs there all the same, or says why it cannot.
    if done.returncode == 3:
        assert b"ran" in done.stdout
    else:
        assert done.returncode in (1, 126)
        assert done.stderr.strip() or done.stdout.strip()
    assert home.session("x").status() in (None, "exited")


def test_bad_input_the_stdin_fifo_may_be_written_or_removed(home: Home) -> None:
    process = home.start("cat")
    session = process.session.wait()
    with contextlib.suppress(OSError):
        fd = os.open(session.path / "stdin", os.O_WRONLY | os.O_NONBLOCK)
        os.write(fd, b"through the fifo\n")
        os.close(fd)
    (session.path / "stdin").unlink()
    with session.client() as client:
        client.type(b"still served\n")
        session.wait_output("still served\r\n")
    process.signal(signal.SIGTERM)
    assert process.wait().code == 143


def test_bad_input_the_socket_is_removed(home: Home) -> None:
    process = home.start("cat", stdin=subprocess.PIPE)
    session = process.session.wait()
    (session.path / "ipc.sock").unlink()
    assert process.popen.stdin is not None
    process.popen.stdin.write(b"on\n")
    process.popen.stdin.flush()
    eventually(lambda: session.wait_output("on\r\non"))
    process.signal(signal.SIGTERM)
    assert process.wait().code == 143


def test_bad_input_a_warning_on_a_raw_terminal_starts_its_own_line(home: Home) -> None:
    def limit() -> None:
        Terminal._controlling_terminal()
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    terminal = home.terminal("seq", "1", "20000", preexec_fn=limit)
    assert terminal.wait() == 0
    assert b"\r\n20000\r\n" in terminal.output, "the terminal goes on"
    lines = terminal.output.split(b"\n")
    warnings = [line for line in lines if b"recording stopped" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith(b"\r")
    assert terminal.restored()
