"""Fuzzes what reads untrusted bytes, led by coverage. `./dev fuzz` runs it; --help says how.

The Zig targets are one program with LLVM's libFuzzer (libfuzzer.zig), the Python ones are
cast_reader.py and screen.py on atheris, which is libFuzzer too. What a target has learnt stays in
build/fuzz, and goes into corpus/, kept small, with --keep. Inputs there with a name of their own
stay: what was found once, and what coverage does not tell apart.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = ROOT / "tests" / "fuzz" / "corpus"
WORK = ROOT / "build" / "fuzz"
PROGRAM = WORK / "bin" / "pyplue-fuzz"

# The longest input of each target, in bytes.
TARGETS = {
    "token": 1024,
    "signed": 1024,
    "base64": 256,
    "json_scan": 1024,
    "git_command_line": 512,
    "push_list": 2048,
    "push_answer": 1024,
    "proxy_header": 600,
    "public_key_line": 1200,
    "keys_table": 1200,
    "network": 64,
    "frame_stream": 2048,
    "control_message": 512,
    "titles": 1024,
    "scan": 1024,
    "recorder": 512,
    "session_file": 1024,
    "config": 1024,
    "cast_reader": 2048,
    "screen": 512,
}
PYTHON_TARGETS = {"cast_reader", "screen"}
# That a target's corpus has.
MOST_INPUTS = 200


class Result(NamedTuple):
    """What libFuzzer said at the end of a run."""

    minutes: float
    executions: int
    per_second: int
    edges: int
    corpus: int
    added: int
    # Inputs that broke something.
    findings: list[Path]
    log: str


def libfuzzer() -> Path:
    """LLVM's library, the newest one that is installed."""
    machine = platform.machine()
    found = [
        path
        for name in (f"libclang_rt.fuzzer-{machine}.a", "libclang_rt.fuzzer.a")
        for path in Path("/usr/lib").glob(f"llvm-*/lib/clang/*/lib/*/{name}")
        if name != "libclang_rt.fuzzer.a" or machine in path.parent.name
    ]
    if not found:
        raise SystemExit(
            "no libFuzzer of LLVM in /usr/lib/llvm-*: ./dev fuzz is for Debian and Ubuntu, "
            "where it installs libclang-rt-dev"
        )
    return max(found, key=lambda path: int(re.search(r"llvm-(\d+)", str(path))[1]))


def libstdcxx() -> Path:
    return next(Path("/usr/lib").glob(f"{platform.machine()}-linux-gnu/libstdc++.so.6"))


def build() -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "ziglang", "build", "fuzz", "--prefix", WORK),
            *(f"-Dlibfuzzer={libfuzzer()}", f"-Dlibstdcxx={libstdcxx()}"),
        ],
        cwd=ROOT,
        check=True,
    )


def targets_here() -> list[str]:
    """All targets; without the Python ones where there is no atheris."""
    python = importlib.util.find_spec("atheris") is not None
    return [target for target in TARGETS if python or target not in PYTHON_TARGETS]


def start(target: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs libFuzzer and takes what it says."""
    program = [PROGRAM]
    if target in PYTHON_TARGETS:
        program = [sys.executable, ROOT / "tests" / "fuzz" / f"{target}.py"]
    environment = {
        **os.environ,
        "FUZZ_TARGET": target,
        "PYTHONPATH": str(ROOT),
        # A merge starts the program again, by its first line.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        [*program, *arguments, "-timeout=10", "-rss_limit_mb=2048", "-print_final_stats=1"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def number(pattern: str, log: str) -> int:
    found = re.findall(pattern, log)
    return int(found[-1]) if found else 0


def fuzz(target: str, seconds: float, learnt: Path, findings: Path) -> Result:
    """Fuzzes from the kept corpus on; new inputs go to `learnt`, those that break to `findings`."""
    learnt.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    kept = [CORPUS / target] if (CORPUS / target).is_dir() else []
    begin = time.monotonic()
    answer = start(
        target,
        *(learnt, *kept, f"-max_total_time={max(1, round(seconds))}"),
        *(f"-max_len={TARGETS.get(target, 64)}", f"-artifact_prefix={findings}/{target}-"),
    )
    log = answer.stdout
    found = sorted(set(findings.iterdir()) - before)
    if answer.returncode != 0 and not found:
        raise SystemExit(f"{target} ended with {answer.returncode}:\n{log[-4000:]}")
    return Result(
        minutes=(time.monotonic() - begin) / 60,
        executions=number(r"stat::number_of_executed_units:\s*(\d+)", log),
        per_second=number(r"stat::average_exec_per_sec:\s*(\d+)", log),
        edges=number(r"cov: (\d+)", log),
        corpus=number(r"corp: (\d+)", log),
        added=number(r"stat::new_units_added:\s*(\d+)", log),
        findings=found,
        log=log,
    )


def replay(target: str, files: list[Path]) -> subprocess.CompletedProcess[str]:
    """Runs the target once over each file; fails when one breaks something."""
    with tempfile.TemporaryDirectory() as folder:
        return start(target, *files, f"-artifact_prefix={folder}/")


def keep(target: str) -> None:
    """Makes the corpus a small set of inputs that reaches all that it and build/fuzz reach."""
    corpus = CORPUS / target
    corpus.mkdir(parents=True, exist_ok=True)
    (WORK / "learnt" / target).mkdir(parents=True, exist_ok=True)
    # First with how often a place is reached; where that makes too many, whether.
    for how in ("-use_counters=1", "-use_counters=0"):
        with tempfile.TemporaryDirectory() as folder:
            answer = start(
                target,
                *("-merge=1", "-set_cover_merge=1", how, f"-max_len={TARGETS[target]}"),
                *(folder, corpus, WORK / "learnt" / target),
            )
            merged = {path.name[:16]: path.read_bytes() for path in Path(folder).iterdir()}
        if answer.returncode != 0 or not merged:
            raise SystemExit(f"{target} was not merged:\n{answer.stdout[-4000:]}")
        if len(merged) <= MOST_INPUTS:
            break
    for old in corpus.iterdir():
        if "-" not in old.name:
            old.unlink()
    for name, data in merged.items():
        (corpus / name).write_bytes(data)
    files = list(corpus.iterdir())
    size = sum(path.stat().st_size for path in files)
    print(f"{target}: {len(files)} inputs of {size} bytes are kept")


def self_check() -> bool:
    """Whether coverage leads: four bytes and a number of eight are found in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        result = fuzz("self_check", 60, Path(folder) / "learnt", Path(folder) / "findings")
    word = "found" if result.findings else "not found"
    print(f"the planted 12 bytes were {word} in {result.executions} executions", flush=True)
    return bool(result.findings)


def report(target: str, minutes: float) -> bool:
    """Fuzzes and says what came of it. True when nothing was found."""
    result = fuzz(target, 60 * minutes, WORK / "learnt" / target, WORK / "findings")
    print(
        f"{target:<17} {result.minutes:>5.1f} {result.executions:>12,} {result.per_second:>9,} "
        f"{result.edges:>6} {result.corpus:>7} {result.added:>6} {len(result.findings):>9}",
        flush=True,
    )
    for path in result.findings:
        lines = re.findall(r".*(?:FINDING|panic:|Error|ERROR|zig:\d+|py\", line).*", result.log)
        print("\n".join(f"    {line}" for line in lines[:12]))
        print(f"    again: ./dev fuzz {target} {path.relative_to(ROOT)}", flush=True)
    return not result.findings


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="./dev fuzz",
        description="Fuzz the targets, all in turn when none is named.",
        epilog=f"Targets: {', '.join(TARGETS)}. With a target and files: run it over those once.",
    )
    parser.add_argument("names", nargs="*", metavar="TARGET", help="a target; files may follow")
    parser.add_argument("--minutes", type=float, default=1, help="for each target (default: 1)")
    parser.add_argument("--keep", action="store_true", help="then keep what is new in the corpus")
    parser.add_argument("--self-check", action="store_true", help="only find a planted mistake")
    args = parser.parse_args()
    targets = [name for name in args.names if name in TARGETS]
    files = [Path(name).resolve() for name in args.names if name not in TARGETS]
    if missing := [path for path in files if not path.is_file()]:
        parser.error(f"neither a target nor a file: {missing[0].name}")
    if files and len(targets) != 1:
        parser.error("files need one target before them")
    build()
    if args.self_check:
        return 0 if self_check() else 1
    if files:
        answer = replay(targets[0], files)
        print(answer.stdout)
        return min(answer.returncode, 1)
    targets = targets or targets_here()
    print("target            minutes   executions  a second  edges  corpus    new  findings")
    clean = [report(target, args.minutes) for target in targets]
    if args.keep:
        for target in targets:
            keep(target)
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
