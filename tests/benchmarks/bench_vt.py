"""vibetunnel-fwd beside the Node forwarder, script, asciinema, a bare pty pump and plain exec.

    ./dev bench vt

All of them run the same commands on the same kind of terminal, in turns. The pump is pty_pump.c:
what passing a terminal through costs when nothing is recorded. A recording counts as 100 % when its
text is what the command wrote, byte for byte.
"""

from __future__ import annotations

import json
import os
import platform
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import bench_vt_python
from report import Comparison, Goal, main, missing

HERE = Path(__file__).resolve().parent
NODE_CLI = HERE.parent / "interop/vibetunnel/node_modules/vibetunnel/dist/vibetunnel-cli"
TEXT_MB = 50


Samples = dict[str, list[float]]


class Runner(NamedTuple):
    """One way of running a command. `argv` gets the recording's path; "" where there is none."""

    name: str
    argv: Callable[[str, list[str]], list[str]]
    rounds: int
    recorded: Callable[[str], str] | None
    input: bool = True


def cast_text(path: str) -> str:
    """The output of an asciicast, as far as its lines are whole."""
    text = []
    for line in Path(path).read_text("utf-8", "replace").splitlines()[1:]:
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event[1] == "o":
            text.append(event[2])
    return "".join(text)


def typescript_text(path: str) -> str:
    data = Path(path).read_bytes().decode()
    return data[data.index("\n") + 1 : data.rindex("\nScript done")]


def build_pump(folder: Path) -> str:
    target = []
    if sys.platform == "linux":  # static, as vibetunnel-fwd is
        target = ["-target", f"{platform.machine()}-linux-musl", "-static"]
    pump = str(folder / "pty_pump")
    compiler = [sys.executable, "-m", "ziglang", "cc", "-O2", *target]
    subprocess.run([*compiler, "-o", pump, str(HERE / "pty_pump.c")], check=True)
    return pump


FORWARDER, NODE = "vibetunnel-fwd", "Node vibetunnel fwd"
PUMP = "pty pump, no recording"


def runners(folder: Path) -> list[Runner]:
    """Those that are installed here; vibetunnel-fwd first."""
    pump = build_pump(folder)
    control = folder / ".vibetunnel" / "control"
    found = [
        Runner(
            FORWARDER,
            lambda name, command: ["vibetunnel-fwd", "--session-id", name, "--", *command],
            20,
            lambda name: cast_text(str(control / name / "stdout")),
        ),
        Runner("plain exec", lambda _, command: command, 20, None),
        Runner(PUMP, lambda _, command: [pump, *command], 20, None),
    ]
    if shutil.which("script") and sys.platform == "linux":
        found.append(
            Runner(
                "script",
                lambda name, command: ["script", "-qec", shell_words(command), str(folder / name)],
                20,
                lambda name: typescript_text(str(folder / name)),
            )
        )
    else:
        missing("script of util-linux")
    if shutil.which("asciinema") and shutil.which("setsid"):
        # It writes to /dev/tty, so the terminal has to be its session's own.
        found.append(
            Runner(
                "asciinema rec",
                lambda name, command: [
                    *["setsid", "-cw", "asciinema", "rec", "-q", "-c", shell_words(command)],
                    str(folder / f"{name}.cast"),
                ],
                5,
                lambda name: cast_text(str(folder / f"{name}.cast")),
            )
        )
    else:
        missing("asciinema")
    if NODE_CLI.exists():
        found.append(
            Runner(
                NODE,
                lambda name, command: [
                    *["node", str(NODE_CLI), "fwd", "--session-id", name, "--"],
                    *command,
                ],
                3,
                lambda name: cast_text(str(control / name / "stdout")),
            )
        )
    else:
        missing("the vibetunnel package of npm")
    return found


def wrappers() -> list[Runner]:
    """The commands that people type. Once they have started, the forwarders above do the work."""
    found = [Runner("vt", lambda name, command: ["vt", "--session-id", name, *command], 20, None)]
    if NODE_CLI.exists():
        theirs = ["env", f"VIBETUNNEL_BIN={NODE_CLI}", "bash", str(NODE_CLI.parents[1] / "bin/vt")]
        found.append(Runner("VibeTunnel's vt", lambda _, command: [*theirs, *command], 3, None))
    return found


def shell_words(command: list[str]) -> str:
    import shlex

    return "exec " + shlex.join(command)


class Outer:
    """The terminal that everything runs on, in the modes of a login shell."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        self.modes = termios.tcgetattr(self.slave)
        self.env = os.environ | {"TERM": "xterm-256color", "PS1": "$ "}
        self.env.pop("VIBETUNNEL_SESSION_ID", None)

    def spawn(self, argv: list[str], folder: Path, stdout: int | None = None) -> subprocess.Popen:
        termios.tcsetattr(self.slave, termios.TCSANOW, self.modes)
        return subprocess.Popen(
            argv,
            stdin=self.slave,
            stdout=self.slave if stdout is None else stdout,
            stderr=self.slave,
            start_new_session=True,
            env=self.env | {"HOME": str(folder)},
            cwd=folder,
        )

    def read_until(self, mark: bytes, timeout: float = 30) -> bytes:
        data = b""
        while mark not in data:
            ready, _, _ = select.select([self.master], [], [], timeout)
            if not ready:
                raise TimeoutError(f"{mark!r} did not come: {data[-200:]!r}")
            data += os.read(self.master, 1 << 16)
        return data

    def drain(self) -> None:
        while select.select([self.master], [], [], 0.02)[0]:
            os.read(self.master, 1 << 16)


class Bench:
    """A figure or two of every runner and round; the slow ones have fewer rounds."""

    def __init__(self, folder: Path, quick: bool) -> None:
        self.folder = folder
        self.share = 5 if quick else 1
        self.outer = Outer()
        self.runners = runners(folder)
        self.count = 0

    def turns(self, runners: list[Runner], most: int) -> Iterator[Runner]:
        """Everybody in turns, each for its rounds, of which there are at most so many."""
        for turn in range(most):
            for runner in runners:
                if turn < max(min(runner.rounds, most) // self.share, 1):
                    yield runner

    def argv(self, runner: Runner, command: list[str]) -> tuple[str, list[str]]:
        self.count += 1
        name = f"b{self.count}"
        return name, runner.argv(name, command)

    # ---- start ----------------------------------------------------------------------------------

    def start(self) -> tuple[Samples, Samples]:
        """Seconds to the first byte and to the end of `/bin/echo`."""
        first_byte, ended = defaultdict(list), defaultdict(list)
        ours, *others = self.runners
        vt, *their_vt = wrappers()
        for runner in self.turns([ours, vt, *others, *their_vt], 20):
            _, argv = self.argv(runner, ["/bin/echo", "MARK"])
            begin = time.perf_counter()
            process = self.outer.spawn(argv, self.folder)
            self.outer.read_until(b"MARK")
            first_byte[runner.name].append(time.perf_counter() - begin)
            process.wait()
            ended[runner.name].append(time.perf_counter() - begin)
            self.outer.drain()
        return first_byte, ended

    # ---- idle -----------------------------------------------------------------------------------

    def idle(self) -> Samples:
        """Resident bytes of all processes but the command's own, while nothing happens."""
        found = defaultdict(list)
        for runner in self.turns([r for r in self.runners if r.name != "plain exec"], 3):
            _, argv = self.argv(runner, ["/bin/sleep", "77"])
            process = self.outer.spawn(argv, self.folder)
            time.sleep(4 if runner.name == NODE else 1)
            tree = descendants(process.pid)
            found[runner.name].append(
                sum(resident(pid) for pid in tree if command_line(pid) != "/bin/sleep 77")
            )
            for pid in tree:
                if command_line(pid) == "/bin/sleep 77":
                    os.kill(pid, signal.SIGTERM)
            process.wait()
            self.outer.drain()
        return found

    # ---- throughput -----------------------------------------------------------------------------

    def throughput(self) -> tuple[Samples, Samples]:
        """Bytes a second of text through to a pipe, or for asciinema to its terminal, and how many
        percent of it the recording has, in the worst round."""
        line = "a line of %09d text as a compiler prints it, with a path/to/file.zig:12:34\n"
        text = "".join(line % number for number in range(TEXT_MB * 1_000_000 // (len(line) + 6)))
        file = self.folder / "text"
        file.write_text(text)
        expected = text.replace("\n", "\r\n")
        rates, recorded = defaultdict(list), defaultdict(list)
        for runner in self.turns([r for r in self.runners if r.name != "plain exec"], 5):
            name, argv = self.argv(runner, ["/bin/cat", str(file)])
            piped = "asciinema" not in runner.name
            rates[runner.name].append(self._pass(argv, len(expected), piped))
            if runner.recorded is not None:
                time.sleep(0.2)
                has = runner.recorded(name)
                share = min(100 * len(has) / len(expected), 99.9)
                share = 100 if has == expected else share
                recorded[runner.name] = [min([share, *recorded[runner.name]])]
        return rates, recorded

    def _pass(self, argv: list[str], length: int, piped: bool) -> float:
        read, write = os.pipe() if piped else (self.outer.master, None)
        ended = threading.Event()
        begin = time.perf_counter()
        process = self.outer.spawn(argv, self.folder, write)
        if write is not None:
            os.close(write)
        threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
        count, last = 0, begin
        while count < length:
            if not select.select([read], [], [], 0.2)[0]:
                if ended.is_set():
                    break
                continue
            data = os.read(read, 1 << 18)
            if not data:
                break
            count += len(data)
            last = time.perf_counter()
        ended.wait(60)
        if piped:
            os.close(read)
        self.outer.drain()
        return count / (last - begin)

    # ---- keys -----------------------------------------------------------------------------------

    def keys(self) -> tuple[Samples, Samples]:
        """Median and 99th percentile of the seconds from a typed byte to its echo by a raw `cat`;
        the rounds are short enough for some to miss what else the machine does."""
        command = ["/bin/sh", "-c", "stty raw -echo; echo READY; exec cat"]
        median, slow = defaultdict(list), defaultdict(list)
        count = 400
        for runner in self.turns(self.runners, 20):
            _, argv = self.argv(runner, command)
            process = self.outer.spawn(argv, self.folder)
            self.outer.read_until(b"READY")
            time.sleep(0.3)
            self.outer.drain()
            times = []
            for _ in range(count):
                begin = time.perf_counter()
                os.write(self.outer.master, b"k")
                os.read(self.outer.master, 100)
                times.append(time.perf_counter() - begin)
                time.sleep(0.0005)
            for pid in descendants(process.pid):
                if command_line(pid) == "cat":
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            self.outer.drain()
            times.sort()
            median[runner.name].append(times[count // 2])
            slow[runner.name].append(times[count * 99 // 100])
        return median, slow


def descendants(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, listing.splitlines())}
    found = [pid]
    for candidate in found:
        found += [child for child, parent in parents.items() if parent == candidate]
    return found


def ps(pid: int, column: str) -> str:
    argv = ["ps", "-o", f"{column}=", "-p", str(pid)]
    return subprocess.run(argv, capture_output=True, text=True).stdout.strip()


def command_line(pid: int) -> str:
    return ps(pid, "args")


def resident(pid: int) -> int:
    return int(ps(pid, "rss") or 0) * 1024


FIRST_BYTE, ENDED = "first byte of a recorded echo", "a recorded echo, start to end"
IDLE = "memory of an idle recorder"
RATE, RECORDED = f"{TEXT_MB} MB of text recorded", f"share of {TEXT_MB} MB in the worst recording"
KEY_MEDIAN, KEY_SLOW = "a key and its echo, median", "a key and its echo, 99th percentile"

GOALS = [
    Goal(FIRST_BYTE, at_most=2e-3, over="plain exec"),
    Goal(ENDED, at_most=3e-3, over="plain exec"),
    Goal(IDLE, at_most=1e6),
    Goal(RATE, at_least=0.95, than=(PUMP,)),
    Goal(RECORDED, at_least=100),
    Goal(KEY_MEDIAN, at_most=40e-6, over="plain exec"),
    Goal(KEY_SLOW, at_most=150e-6, over="plain exec"),
]


def measure(quick: bool) -> list[Comparison]:
    sys.setswitchinterval(1e-4)
    with tempfile.TemporaryDirectory(prefix="vt.", dir="/tmp") as folder:
        bench = Bench(Path(folder), quick)
        first_byte, ended = bench.start()
        idle = bench.idle()
        rate, recorded = bench.throughput()
        median, slow = bench.keys()
    return [
        Comparison(FIRST_BYTE, "s", "lower", first_byte, ours=2),
        Comparison(ENDED, "s", "lower", ended, ours=2, summary=True),
        Comparison(IDLE, "B", "lower", idle, summary=True),
        Comparison(RATE, "B/s", "higher", rate, summary=True),
        Comparison(RECORDED, "%", "higher", recorded, summary=True),
        Comparison(KEY_MEDIAN, "s", "lower", median),
        Comparison(KEY_SLOW, "s", "lower", slow),
        *bench_vt_python.measure(quick),
    ]


if __name__ == "__main__":
    main(measure, [*GOALS, *bench_vt_python.GOALS])
