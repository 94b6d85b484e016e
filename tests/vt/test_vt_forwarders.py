"""`vt` and its forwarders: which one is used, that a command never runs twice, nothing left over.

The Node forwarder is a script here that writes down how it was called; the real one is in
tests/interop.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vt.harness import Home, Result, eventually

NATIVE = """\
#!/bin/sh
[ -z "${VIBETUNNEL_FWD_STARTED_FILE-}" ] || : >"$VIBETUNNEL_FWD_STARTED_FILE"
[ "$1" != --version ] || exit 0
echo "$*" >>"$HOME/native"
"""
NODE = '#!/bin/sh\necho "$*" >>"$HOME/node"\nexit 42\n'


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def home(need: Callable[[str], str]) -> Iterator[Home]:
    """A home with a folder for temporary files, and a `vibetunnel` that is called as Node's is."""
    home = Home([need("vt")])
    (home.path / "tmp").mkdir()
    home.env["TMPDIR"] = str(home.path / "tmp")
    home.env["VIBETUNNEL_BIN"] = str(script(home.path / "npm/vibetunnel", NODE))
    yield home
    assert os.listdir(home.path / "tmp") == []
    home.close()


def vt(home: Home, *argv: str | bytes, **env: str) -> Result:
    return home.cli(*argv, env=env)


def alone(home: Home) -> Path:
    """A folder with vt and without vibetunnel-fwd, to be used with a PATH that has none either."""
    folder = home.path / "alone"
    folder.mkdir()
    shutil.copy(home.command[0], folder / "vt")
    for program in ("sh", "mktemp", "rm", "readlink", "true"):
        (folder / program).symlink_to(shutil.which(program) or "")
    home.command = [str(folder / "vt")]
    home.env["PATH"] = str(folder)
    return folder


# ---- the native one -----------------------------------------------------------------------------


def test_vt_becomes_the_forwarder(home: Home) -> None:
    process = home.start("sleep", "60")
    process.session.wait()
    assert os.readlink(f"/proc/{process.pid}/exe").endswith("/vibetunnel-fwd")
    process.signal(signal.SIGTERM)
    assert process.wait().code == 143
    assert process.session.info["exitCode"] == 143


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_signals_reach_the_command(home: Home, number: int) -> None:
    process = home.start("sleep", "60")
    process.session.wait()
    process.signal(number)
    assert process.wait().code == 128 + number


def test_a_session_through_vt_is_the_forwarders_own(home: Home) -> None:
    done = home.run("sh", "-c", "printf hello; exit 7")
    assert (done.code, done.out, done.err) == (7, b"hello", b"")
    info = home.last.info
    assert info["command"] == ["sh", "-c", "printf hello; exit 7"]
    assert home.last.recording().exit == (7, home.last.id)


def test_through_a_symbolic_link_it_finds_what_is_beside_itself(home: Home) -> None:
    folder = alone(home)
    (folder / "vt").unlink()
    (folder / "links").mkdir()
    (folder / "links/vt").symlink_to("../real-vt")
    native = Path(shutil.which("vt") or "").resolve()
    (folder / "real-vt").symlink_to(native)
    home.command = [str(folder / "links/vt")]
    assert home.run("true").code == 0
    home.command = ["vt"]
    home.env["PATH"] = f"{folder / 'links'}:{folder}"
    assert home.run("true").code == 0


def test_the_one_on_path(home: Home, need) -> None:
    (alone(home) / "vibetunnel-fwd").symlink_to(need("vibetunnel-fwd"))
    assert home.run("true").code == 0


def test_the_one_that_is_named(home: Home) -> None:
    script(home.path / "native-fwd", NATIVE + "exit 5\n")
    env = {"VIBETUNNEL_FWD_BIN": str(home.path / "native-fwd")}
    assert vt(home, "true", **env).code == 5
    assert vt(home, "true", **{**env, "VIBETUNNEL_FWD_BIN": "../native-fwd"}).code == 5
    home.env["PATH"] += f":{home.path}"
    assert vt(home, "true", VIBETUNNEL_FWD_BIN="native-fwd").code == 5
    assert lines(home.path / "native") == ["-- true"] * 3


def test_its_options_reach_the_forwarder(home: Home) -> None:
    script(home.path / "native-fwd", NATIVE)
    env = {"VIBETUNNEL_FWD_BIN": str(home.path / "native-fwd")}
    for given in (
        "--session-id ID --title-mode static --verbosity info --log-file FILE",
        "--detach --name NAME --no-record-input --size 80x24",
        "-q -S",
        "--quiet",
        "-v",
        "--verbose",
        "-vv",
        "-vvv",
    ):
        vt(home, *given.split(), "--", "true", "-q", **env)
    assert lines(home.path / "native") == [
        "--session-id ID --title-mode static --verbosity info --log-file FILE -- true -q",
        "--detach --name NAME --no-record-input --size 80x24 -- true -q",
        "--verbosity silent -- true -q",
        "--verbosity silent -- true -q",
        "--verbosity info -- true -q",
        "--verbosity info -- true -q",
        "--verbosity verbose -- true -q",
        "--verbosity debug -- true -q",
    ]


def test_anothers_forwarder_gets_no_option_that_was_not_asked_for(home: Home) -> None:
    """VibeTunnel has a vibetunnel-fwd of its own, with fewer options."""
    script(home.path / "native-fwd", NATIVE)
    vt(home, "no-program", VIBETUNNEL_FWD_BIN=str(home.path / "native-fwd"))
    [called] = lines(home.path / "native")
    assert called.startswith("-- /bin/sh -ic ")


def test_the_commands_environment_is_what_vt_was_given(home: Home) -> None:
    names = ["file", "found", "link", "text", "word", "why", "here", "PS4", "_x"]
    given = dict.fromkeys(names, "mine") | {"VIBETUNNEL_FWD_STARTED_FILE": "/nowhere"}
    # Names that a shell cannot have, and values that a careless one would run.
    given |= {"A.B": "it's\n'quoted'\n$(touch pwned)\n", "x-y": "", "1": "a=b", "é": "\n'"}
    given |= {"BASH_FUNC_f%%": "() {  echo f;\nA=1\n}"}
    done = home.run("env", "-0", env=given)
    seen = dict(item.split("=", 1) for item in done.out.decode().split("\0") if item)
    for name in ("PWD", "OLDPWD", "SHLVL", "_"):  # of any sh
        seen.pop(name, None)
    expected = {**home.env, **given, "VIBETUNNEL_SESSION_ID": home.last.id}
    del expected["VIBETUNNEL_FWD_STARTED_FILE"]
    seen = {name: value.replace("\r\n", "\n") for name, value in seen.items()}  # a terminal's
    assert seen == expected
    assert os.listdir(home.work) == []


@pytest.mark.parametrize("sh", ["dash", "bash", "bash --posix", "ksh", "zsh --emulate sh"])
def test_other_shells_can_run_the_script(home: Home, need, sh: str) -> None:
    show = script(home.path / "show", '#!/bin/sh\nprintf \'%s\\0\' "$@" >"$HOME/shown"\n')
    program, *flags = sh.split()
    home.command = [need(program), *flags, *home.command]
    odd = [b"", b"a b", b"new\nline\n", b"*", b"\xff\xe9", b"--", b"$(x)", b"\\n"]
    assert home.run(show, *odd).code == 0
    assert (home.path / "shown").read_bytes().split(b"\0")[:-1] == odd


# ---- started, or not ----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["kill -9 $$", "exit 137", "exit 127", "exit 126", "exit 1"])
def test_what_has_started_is_never_run_again(home: Home, ending: str) -> None:
    native = script(home.path / "native-fwd", f"{NATIVE}{ending}\n")
    done = vt(home, "true", VIBETUNNEL_FWD_BIN=str(native))
    assert done.code == (-9 if "kill" in ending else int(ending.split()[1]))
    assert lines(home.path / "native") == ["-- true"]
    assert lines(home.path / "node") == []


def not_executable(path: Path, native: Path) -> None:
    shutil.copy(native, path)
    path.chmod(0o644)


def of_another_machine(path: Path, native: Path) -> None:
    """An ELF file for the IBM z: every kernel that runs these tests refuses it."""
    data = bytearray(native.read_bytes())
    data[18:20] = (22).to_bytes(2, "little")
    path.write_bytes(data)
    path.chmod(0o755)


def cut_off(path: Path, native: Path) -> None:
    path.write_bytes(native.read_bytes()[:40])
    path.chmod(0o755)


BROKEN: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "missing": (lambda path, native: None, "no such file"),
    "a folder": (lambda path, native: path.mkdir(), "it is a folder"),
    "not executable": (not_executable, "it is not executable: chmod +x"),
    "of another machine": (of_another_machine, "it is for another machine, or damaged"),
    "cut off": (cut_off, "cannot start"),
    "empty": (lambda path, native: script(path, ""), "it is no vibetunnel-fwd"),
    "killed": (lambda path, native: script(path, "#!/bin/sh\nkill -9 $$\n"), "signal 9 ends it"),
    "another program": (
        lambda path, native: script(path, "#!/bin/sh\nexit 0\n"),
        "it is no vibetunnel-fwd: it exits with 0 and creates no started file",
    ),
    "without its interpreter": (
        lambda path, native: script(path, "#!/no/such/interpreter\n"),
        "cannot start",
    ),
    "text that is no program": (
        lambda path, native: script(path, 'echo ran >>"$HOME/native"; touch here\n'),
        "it is no vibetunnel-fwd",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_cannot_start_gives_way_once(home: Home, need, how: str) -> None:
    make, why = BROKEN[how]
    native = home.path / "native-fwd"
    make(native, Path(need("vibetunnel-fwd")))
    done = vt(home, "--session-id", "x", "true", "a b", VIBETUNNEL_FWD_BIN=str(native))
    assert done.code == 42
    assert lines(home.path / "node") == ["fwd --session-id x -- true a b"]
    assert done.out == b""
    assert f"vt: vibetunnel-fwd: {native} cannot start: ".encode() in done.err
    assert why in done.err.decode()
    assert f"using Node's {home.env['VIBETUNNEL_BIN']}".encode() in done.err
    assert os.listdir(home.work) == []
    assert vt(home, "-q", "true", VIBETUNNEL_FWD_BIN=str(native)).err == b""


def test_where_there_is_none_it_is_nodes_without_a_word(home: Home) -> None:
    alone(home)
    done = vt(home, "true")
    assert (done.code, done.err) == (42, b"")
    assert lines(home.path / "node") == ["fwd -- true"]


def test_asked_for_the_native_one_it_says_that_there_is_none(home: Home) -> None:
    alone(home)
    done = vt(home, "true", VIBETUNNEL_USE_ZIG_FWD="1")
    assert done.code == 42
    assert b"vt: vibetunnel-fwd: not found beside vt or on PATH; using Node's" in done.err


@pytest.mark.parametrize("value", ["", "1"])
def test_the_native_one_turned_on(home: Home, value: str) -> None:
    assert vt(home, "true", VIBETUNNEL_USE_ZIG_FWD=value).code == 0
    assert lines(home.path / "node") == []


def test_the_native_one_turned_off(home: Home) -> None:
    native = script(home.path / "native-fwd", 'echo ran >>"$HOME/native"\n')
    done = vt(home, "true", VIBETUNNEL_USE_ZIG_FWD="0", VIBETUNNEL_FWD_BIN=str(native))
    assert (done.code, done.err) == (42, b"")
    assert lines(home.path / "native") == []


def test_turned_on_or_off_with_another_word(home: Home) -> None:
    done = vt(home, "true", VIBETUNNEL_USE_ZIG_FWD="yes")
    assert done.code == 1
    assert b"VIBETUNNEL_USE_ZIG_FWD is yes: set it to 1 or 0" in done.err


@pytest.mark.parametrize("off", [False, True])
def test_with_no_forwarder_at_all_it_says_what_to_install(home: Home, off: bool) -> None:
    alone(home)
    del home.env["VIBETUNNEL_BIN"]
    done = vt(home, "true", VIBETUNNEL_USE_ZIG_FWD="0" if off else "1")
    assert done.code == 1
    assert b"pip install pyplue, or npm install -g vibetunnel" in done.err
    assert (b"turned off by VIBETUNNEL_USE_ZIG_FWD=0" in done.err) == off


def test_a_vibetunnel_that_is_not_there(home: Home) -> None:
    done = vt(home, "true", VIBETUNNEL_USE_ZIG_FWD="0", VIBETUNNEL_BIN="/no/vibetunnel")
    assert (done.code, done.err) == (
        1,
        b"vt: VIBETUNNEL_BIN is /no/vibetunnel: no program is there\n",
    )


def test_without_node_it_says_so(home: Home) -> None:
    script(home.path / "bin/vibetunnel", NODE)
    (home.path / "dist").mkdir()
    (home.path / "dist/vibetunnel-cli").touch()
    alone(home)
    done = vt(home, "true", VIBETUNNEL_BIN=str(home.path / "bin/vibetunnel"))
    assert done.code == 1
    assert b"needs node, and none is on PATH: install Node.js 20 or later" in done.err


@pytest.mark.parametrize("flag", ["--no-record-input", "--detach", "--size", "--name"])
def test_what_only_the_native_one_can_do_is_not_left_out_silently(home: Home, flag: str) -> None:
    words = [flag, "80x24"] if flag in ("--size", "--name") else [flag]
    done = vt(home, *words, "true", VIBETUNNEL_USE_ZIG_FWD="0")
    assert done.code == 1
    assert f"vt: {flag} needs vibetunnel-fwd (turned off".encode() in done.err
    assert lines(home.path / "node") == []


def test_input_is_not_recorded_by_node_against_the_users_wish(home: Home) -> None:
    done = vt(home, "true", VIBETUNNEL_USE_ZIG_FWD="0", VIBETUNNEL_RECORD_INPUT="0")
    assert done.code == 1
    assert b"--no-record-input needs vibetunnel-fwd" in done.err


@pytest.mark.parametrize("flags", [(), ("-S",)])
def test_a_path_where_nothing_is_does_not_become_nodes_shell_text(
    home: Home, flags: tuple[str, ...]
) -> None:
    done = vt(home, *flags, "./no; touch pwned", VIBETUNNEL_USE_ZIG_FWD="0")
    assert (done.code, done.err) == (127, b"vt: ./no; touch pwned: command not found\n")
    assert lines(home.path / "node") == []


# ---- nothing left over --------------------------------------------------------------------------


def test_interrupted_while_it_asks_the_forwarder(home: Home) -> None:
    """The `home` fixture looks for what is left in TMPDIR."""
    native = script(home.path / "native-fwd", '#!/bin/sh\n: >"$HOME/asked"\nexec sleep 30\n')
    terminal = home.terminal("true", env={"VIBETUNNEL_FWD_BIN": str(native)})
    eventually((home.path / "asked").exists)
    time.sleep(0.1)  # sh may lose a signal while it starts something
    terminal.send(b"\x03")
    assert terminal.wait(5) == 130
    assert lines(home.path / "node") == []


@pytest.mark.parametrize(("number", "code"), [(15, 143), (1, 129)])
def test_ended_while_it_asks_the_forwarder(home: Home, number: int, code: int) -> None:
    native = script(home.path / "native-fwd", '#!/bin/sh\n: >"$HOME/asked"\nexec sleep 30\n')
    terminal = home.terminal("true", env={"VIBETUNNEL_FWD_BIN": str(native)})
    eventually((home.path / "asked").exists)
    time.sleep(0.1)  # sh may lose a signal while it starts something
    os.killpg(terminal.pid, number)
    assert terminal.wait(5) == code
    assert lines(home.path / "node") == []


def test_a_temporary_folder_that_is_not_there(home: Home) -> None:
    done = vt(home, "true", TMPDIR="/no/such/folder")
    assert done.code == 1
    assert b"cannot make a temporary folder in /no/such/folder: set TMPDIR" in done.err


@pytest.mark.parametrize("folder", [".", "tmp", "../work/-x", "-x", "a b'\"$x*"])
def test_a_temporary_folder_with_an_odd_name(home: Home, folder: str) -> None:
    (home.work / folder).mkdir(exist_ok=True)
    done = vt(home, "sh", "-c", "exit 7", TMPDIR=folder)
    assert (done.code, done.err) == (7, b"")
    assert lines(home.path / "node") == []
    assert os.listdir(home.work / folder) == []


def test_fifty_at_once(home: Home) -> None:
    processes = [home.start("sh", "-c", f"exit {number}") for number in range(50)]
    assert [process.wait(30).code for process in processes] == list(range(50))


def test_in_a_pipeline(home: Home) -> None:
    text = f'printf "one\\n" | "{home.command[0]}" -S head -n1 | tr a-z A-Z'
    done = subprocess.run(
        ["sh", "-c", text], env=home.env, cwd=home.work, capture_output=True, timeout=20
    )
    assert b"ONE" in done.stdout
