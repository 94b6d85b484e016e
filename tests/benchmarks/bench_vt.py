"""vibetunnel-fwd beside the Node forwarder, script, asciinema, a bare pty pump and plain exec.

    ./dev bench vt

All of them run the same commands on the same kind of terminal, in turns, in one run, so that the
ratios hold wherever it runs, and the best of many rounds counts, as other work on the machine only
ever adds. The pump is pty_pump.c: what passing a terminal through costs when
nothing is recorded. A recording counts as whole when its text is what the command wrote, byte for
byte.
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
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import bench_vt_python

HERE = Path(__file__).resolve().parent
NODE_CLI = HERE.parent / "interop/vibetunnel/node_modules/vibetunnel/dist/vibetunnel-cli"
TEXT_MB = int(os.environ.get("VT_BENCH_MB", "50"))


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


def runners(folder: Path) -> list[Runner]:
    """Those that are installed here; plain exec first, the pump next."""
    pump = build_pump(folder)
    found = [
        Runner("plain exec", lambda _, command: command, 20, None),
        Runner("pty pump", lambda _, command: [pump, *command], 20, None),
    ]
    control = folder / ".vibetunnel" / "control"
    if shutil.which("vibetunnel-fwd"):
        found.append(
            Runner(
                "vibetunnel-fwd",
                lambda name, command: ["vibetunnel-fwd", "--session-id", name, "--", *command],
                20,
                lambda name: cast_text(str(control / name / "stdout")),
            )
        )
    if shutil.which("script") and sys.platform == "linux":
        found.append(
            Runner(
                "script",
                lambda name, command: ["script", "-qec", shell_words(command), str(folder / name)],
                20,
                lambda name: typescript_text(str(folder / name)),
            )
        )
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
    if NODE_CLI.exists():
        found.append(
            Runner(
                "Node vibetunnel fwd",
                lambda name, command: [
                    *["node", str(NODE_CLI), "fwd", "--session-id", name, "--"],
                    *command,
                ],
                3,
                lambda name: cast_text(str(control / name / "stdout")),
            )
        )
    return found


def wrappers() -> list[Runner]:
    """The commands that people type. Once they have started, the forwarders above do the work."""
    found = []
    if shutil.which("vt"):
        vt = Runner("vt", lambda name, command: ["vt", "--session-id", name, *command], 20, None)
        found.append(vt)
    if NODE_CLI.exists() and shutil.which("bash"):
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
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.outer = Outer()
        self.runners = runners(folder)
        self.count = 0

    def argv(self, runner: Runner, command: list[str]) -> tuple[str, list[str]]:
        self.count += 1
        name = f"b{self.count}"
        return name, runner.argv(name, command)

    # ---- start ----------------------------------------------------------------------------------

    def start(self) -> dict[str, tuple[float, float]]:
        """Seconds to the first byte and to the end of `/bin/echo`."""
        started = self.runners + wrappers()
        taken: dict[str, list[tuple[float, float]]] = {runner.name: [] for runner in started}
        for turn in range(max(runner.rounds for runner in started) * 2):
            for runner in started:
                if turn >= runner.rounds * 2:
                    continue
                _, argv = self.argv(runner, ["/bin/echo", "MARK"])
                begin = time.perf_counter()
                process = self.outer.spawn(argv, self.folder)
                self.outer.read_until(b"MARK")
                first = time.perf_counter()
                process.wait()
                taken[runner.name].append((first - begin, time.perf_counter() - begin))
                self.outer.drain()
        return {
            name: (min(first for first, _ in times), min(end for _, end in times))
            for name, times in taken.items()
        }

    # ---- idle -----------------------------------------------------------------------------------

    def idle_kib(self) -> dict[str, int]:
        """Resident memory of all processes but the command's own, while nothing happens."""
        found = {}
        for runner in self.runners[1:]:
            _, argv = self.argv(runner, ["/bin/sleep", "77"])
            process = self.outer.spawn(argv, self.folder)
            time.sleep(4 if "Node" in runner.name else 1)
            tree = descendants(process.pid)
            found[runner.name] = sum(
                resident_kib(pid) for pid in tree if command_line(pid) != "/bin/sleep 77"
            )
            for pid in tree:
                if command_line(pid) == "/bin/sleep 77":
                    os.kill(pid, signal.SIGTERM)
            process.wait()
            self.outer.drain()
        return found

    # ---- throughput -----------------------------------------------------------------------------

    def throughput(self) -> dict[str, tuple[float, str]]:
        """Best MB/s of text through to a pipe, or for asciinema to its terminal, and how much of
        it the recording has."""
        line = "a line of %09d text as a compiler prints it, with a path/to/file.zig:12:34\n"
        text = "".join(line % number for number in range(TEXT_MB * 1_000_000 // (len(line) + 6)))
        file = self.folder / "text"
        file.write_text(text)
        expected = text.replace("\n", "\r\n")
        best: dict[str, float] = {}
        whole: dict[str, str] = {runner.name: "-" for runner in self.runners}
        for turn in range(5):
            for runner in self.runners[1:]:
                if turn > 0 and runner.rounds < 20:
                    continue  # they take long
                name, argv = self.argv(runner, ["/bin/cat", str(file)])
                rate = self._pass(argv, len(expected), piped="asciinema" not in runner.name)
                best[runner.name] = max(best.get(runner.name, 0), rate)
                if runner.recorded is not None:
                    time.sleep(0.2)
                    recorded = runner.recorded(name)
                    share = min(len(recorded) / len(expected), 0.999)
                    whole[runner.name] = "whole" if recorded == expected else f"{share:.1%}"
        return {name: (rate, whole[name]) for name, rate in best.items()}

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
        return count / (last - begin) / 1e6

    # ---- keys -----------------------------------------------------------------------------------

    def keys(self) -> dict[str, tuple[float, float]]:
        """Median and 99th percentile, in us, from a typed byte to its echo by a raw `cat`: of the
        best of many rounds, short enough for some to miss what else the machine does."""
        command = ["/bin/sh", "-c", "stty raw -echo; echo READY; exec cat"]
        taken: dict[str, list[tuple[float, float]]] = {}
        count = 400
        for turn in range(20):
            for runner in self.runners:
                if turn >= runner.rounds:
                    continue
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
                    times.append((time.perf_counter() - begin) * 1e6)
                    time.sleep(0.0005)
                for pid in descendants(process.pid):
                    if command_line(pid) == "cat":
                        os.kill(pid, signal.SIGKILL)
                process.wait()
                self.outer.drain()
                times.sort()
                taken.setdefault(runner.name, []).append(
                    (times[count // 2], times[count * 99 // 100])
                )
        return {
            name: (min(t[0] for t in rounds), min(t[1] for t in rounds))
            for name, rounds in taken.items()
        }


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


def resident_kib(pid: int) -> int:
    return int(ps(pid, "rss") or 0)


def main() -> None:
    sys.setswitchinterval(1e-4)
    with tempfile.TemporaryDirectory(prefix="vt.", dir="/tmp") as folder:
        bench = Bench(Path(folder))
        start, idle = bench.start(), bench.idle_kib()
        through, keys = bench.throughput(), bench.keys()
        plain_first, plain_end = start["plain exec"]
        pump_rate = through["pty pump"][0]
        bare_p50, bare_p99 = keys["plain exec"]
        print(
            f"All in one run, in turns, the best of many rounds. Throughput: {TEXT_MB} MB of text."
        )
        head = f"{'':20} {'first byte':>18} {'end to end':>18} {'idle':>8}"
        print(f"{head} {'throughput':>16} {'recording':>9} {'key p50':>14} {'key p99':>14}")
        for runner in bench.runners:
            name = runner.name
            first, end = start[name]
            rate, whole = through.get(name, (0.0, "-"))
            p50, p99 = keys[name]
            memory = f"{idle[name] / 1024:.2f} MB" if name in idle else "-"
            shown_rate = f"{rate:.0f} MB/s {rate / pump_rate:4.0%}" if rate else "-"
            print(
                f"{name:20}"
                f" {first * 1e3:7.1f} ms {(first - plain_first) * 1e3:+7.1f}"
                f" {end * 1e3:7.1f} ms {(end - plain_end) * 1e3:+7.1f}"
                f" {memory:>8} {shown_rate:>16} {whole:>9}"
                f" {p50:5.0f} us {p50 - bare_p50:+5.0f} {p99:5.0f} us {p99 - bare_p99:+5.0f}"
            )
        for runner in wrappers():
            first, end = start[runner.name]
            print(
                f"{runner.name:20}"
                f" {first * 1e3:7.1f} ms {(first - plain_first) * 1e3:+7.1f}"
                f" {end * 1e3:7.1f} ms {(end - plain_end) * 1e3:+7.1f}"
            )
        fwd, node = "vibetunnel-fwd", "Node vibetunnel fwd"
        if fwd in start and node in start:
            print(
                f"Node / vibetunnel-fwd: end to end {start[node][1] / start[fwd][1]:.0f}x,"
                f" memory {idle[node] / idle[fwd]:.0f}x,"
                f" key p50 {keys[node][0] / keys[fwd][0]:.1f}x;"
                f" throughput {through[fwd][0] / through[node][0]:.1f}x the other way"
            )


if __name__ == "__main__":
    main()
    bench_vt_python.main()
