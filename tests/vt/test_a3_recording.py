"""A3 of the contract: the recording, asciicast v2, whole and exact."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable

import pytest

from vt.harness import Home, Session, decode, eventually


def octal(data: bytes) -> str:
    return "".join(f"\\{byte:03o}" for byte in data)


def printed(home: Home, *parts: bytes, pause_s: float = 0.1) -> Session:
    """Records a program that writes `parts` unprocessed, with a pause between them."""
    script = f"; sleep {pause_s}; ".join(f"printf '{octal(part)}'" for part in parts)
    assert home.run("sh", "-c", f"stty raw; {script}").code == 0
    return home.last


def test_a3_header(home: Home) -> None:
    before = int(time.time())
    home.run("sh", "-c", "exit 0")
    header = home.last.recording().header
    assert header["version"] == 2
    assert (header["width"], header["height"]) == (120, 40)
    assert before <= header["timestamp"] <= time.time()
    assert header["command"] == "sh -c exit 0"
    assert header["title"] == home.last.info["name"]
    assert set(header) <= {"version", "width", "height", "timestamp", "command", "title", "env"}
    assert set(header.get("env", {})) <= {"TERM", "SHELL"}, "PATH and HOME are nobody's business"


def test_a3_output_then_the_exit_line(home: Home) -> None:
    home.run("sh", "-c", "printf hello; exit 7")
    recording = home.last.recording()
    assert recording.text() == "hello"
    assert recording.exit == (7, home.last.id)


def test_a3_times_are_microseconds_that_never_run_back(home: Home) -> None:
    home.run("sh", "-c", "echo a; sleep 0.2; echo b")
    lines = home.last.recording().raw.decode().splitlines()[1:-1]
    times = [re.match(r"\[(\d+\.\d{6}),", line) for line in lines]
    assert all(times), lines
    seconds = [float(match[1]) for match in times if match]
    assert 0.15 < seconds[-1] - seconds[0] < 5


# ---- UTF-8 --------------------------------------------------------------------------------------

MALFORMED = {
    "a lone continuation": b"a\x80b",
    "C0 and C1": b"\xc0\x80\xc1\xbf",
    "a surrogate": b"\xed\xa0\x80",
    "over U+10FFFF": b"\xf4\x90\x80\x80",
    "F5 to FF": b"\xf5\x80\x80\x80\xf8\xfe\xff",
    "overlong three": b"\xe0\x80\xaf",
    "overlong four": b"\xf0\x80\x80\xaf",
    "cut by ASCII": b"\xf0\x9fA\xe2\x82B\xc3C",
    "cut by a lead": b"\xe2\xe2\x82\xac\xc3\xc3\xa9",
    "at the very end": b"ok\xf0\x9f",
    "every byte": bytes(range(256)),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_a3_each_malformed_byte_is_one_replacement_character(home: Home, data: bytes) -> None:
    assert printed(home, data).recording().text() == decode(data)


@pytest.mark.parametrize("text", ["é", "€", "😀", "日本"])
def test_a3_a_character_split_over_writes_is_whole(home: Home, text: str) -> None:
    data = text.encode()
    for cut in range(1, len(data)):
        session = printed(home, b"<" + data[:cut], data[cut:] + b">", pause_s=0.03)
        assert session.recording().text() == f"<{text}>"


def test_a3_the_outer_terminal_gets_each_byte_at_once(home: Home) -> None:
    """What the recording holds back for a whole character or sequence, the terminal shows."""
    script = r"stty raw; printf 'A\342'; sleep 1; printf '\202\254\033['; sleep 1; printf '1mB'"
    terminal = home.terminal("sh", "-c", script)
    terminal.expect(b"A\xe2", timeout=5)
    assert b"\x82" not in terminal.output
    terminal.expect(b"\xe2\x82\xac\x1b[", timeout=5)
    assert b"1m" not in terminal.output
    assert terminal.wait() == 0
    assert terminal.output == "A€\x1b[1mB".encode()
    assert terminal.session.recording().text() == "A€\x1b[1mB"


# ---- escape sequences ---------------------------------------------------------------------------

SEQUENCES = {
    "CSI": b"\x1b[38;5;196m",
    "OSC ended by BEL": b"\x1b]52;c;aGVsbG8=\x07",
    "OSC ended by ST": b"\x1b]8;;http://example.org/\x1b\\",
    "OSC with UTF-8": "\x1b]2;títle €\x07".encode(),
    "DCS": b"\x1bP1$r0m\x1b\\",
    "APC": b"\x1b_Gi=1;AAAA\x1b\\",
    "PM": b"\x1b^private\x1b\\",
    "ESC and a letter": b"\x1b7",
}


@pytest.mark.parametrize("sequence", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_a3_a_sequence_split_over_writes_stays_in_one_event(home: Home, sequence: bytes) -> None:
    halves = ", ".join(repr(part) for part in (b"<" + sequence[:-1], sequence[-1:] + b">"))
    script = (
        "import os, time, tty; tty.setraw(1)\n"
        f"for part in ({halves}): os.write(1, part); time.sleep(0.005)"
    )
    for attempt in range(5):  # the halves may come too far apart on a machine that is busy
        home.run(sys.executable, "-c", script, session_id=f"try{attempt}")
        recording = home.last.recording()
        assert recording.text() == f"<{sequence.decode()}>"
        if any(sequence.decode() in text for text in recording.of_kind("o")):
            return
    pytest.fail(f"split: {recording.of_kind('o')}")


@pytest.mark.parametrize("opening", [b"\x1b[", b"\x1b]52;c;", b"\x1bPq", b"\x1b"])
def test_a3_a_sequence_without_an_end_is_not_held_for_ever(home: Home, opening: bytes) -> None:
    process = home.start("sh", "-c", f"stty raw; printf 'x{octal(opening)}'; sleep 30")
    process.session.wait_output("x" + opening.decode(), timeout=3)
    process.signal(signal.SIGTERM)
    process.wait()
    assert process.session.recording().text() == "x" + opening.decode()


def test_a3_a_sequence_longer_than_the_cap_is_recorded(home: Home) -> None:
    data = b"\x1b]52;c;" + b"A" * 100_000 + b"\x07end"
    home.run(
        "sh",
        "-c",
        "stty raw; printf '\\033]52;c;'; head -c 100000 /dev/zero | tr '\\0' A;"
        r"printf '\007end'",
    )
    assert home.last.recording().text() == data.decode()


# ---- lines, whole and at once -------------------------------------------------------------------


def test_a3_every_write_ends_with_a_whole_line_and_none_is_synced(
    home: Home, need: Callable[[str], str]
) -> None:
    trace = home.path / "trace"
    watched = [
        need("strace"),
        "-y",
        "-s",
        "100000",
        "-e",
        "trace=write,writev,pwrite64,fsync,fdatasync",
    ]
    home.command = [*watched, "-o", str(trace), *home.command]
    home.run("sh", "-c", "yes 'some text é' | head -c 3000000; sleep 0.1; echo end")
    cast = re.escape(str(home.last.path / "stdout"))
    writes = re.findall(rf'^write\(\d+<{cast}>, "(.*)", (\d+)\) += (\d+)$', trace.read_text(), re.M)
    assert len(writes) > 10
    for text, length, written in writes:
        assert written == length
        assert text.endswith(r"\n"), text[-80:]
    calls = {line.split("(")[0] for line in trace.read_text().splitlines() if "(" in line}
    assert calls == {"write"}


def test_a3_each_event_is_on_disk_right_after_it_happened(home: Home) -> None:
    terminal = home.terminal("cat")
    session = terminal.session.wait()
    for number in range(10):
        word = f"word{number}"
        terminal.send(word.encode() + b"\r")
        terminal.expect(f"{word}\r\n{word}".encode())
        time.sleep(0.05)
        assert f"{word}\r\n{word}" in session.recording(finished=False).text()
        assert session.recording(finished=False).text("i").endswith(f"{word}\r")
    terminal.send(b"\x04")
    terminal.wait()


def test_a3_finalised_in_order_session_json_then_the_exit_line(home: Home) -> None:
    """The web interface lists sessions again when it sees the exit line."""
    for _ in range(20):
        process = home.start("sleep", "0.03")
        path = process.session.wait().path / "stdout"
        while b'["exit"' not in path.read_bytes():
            pass
        assert process.session.info["status"] == "exited"
        process.wait()


# ---- clears -------------------------------------------------------------------------------------

CLEARS = {
    "scrollback": "\x1b[3J",
    "reset": "\x1bc",
    "screen": "\x1b[2J",
    "home, below": "\x1b[H\x1b[J",
    "home, screen": "\x1b[H\x1b[2J",
    "alternate screen": "\x1b[?1049h",
    "back from it": "\x1b[?1049l",
    "old alternate screen": "\x1b[?47h",
    "back from the old one": "\x1b[?47l",
}


@pytest.mark.parametrize("clear", CLEARS.values(), ids=CLEARS.keys())
def test_a3_a_clear_ends_its_event_and_is_remembered(home: Home, clear: str) -> None:
    session = printed(home, f"before{clear}after".encode())
    recording = session.recording()
    assert recording.text() == f"before{clear}after"
    last = max(i for i, (_, kind, text) in enumerate(recording.events) if clear in text)
    assert recording.events[last][2].endswith(clear), "what follows would be lost to new viewers"
    assert recording.events[last + 1][2] == "after"
    assert session.info["lastClearOffset"] == recording.offsets[last]


def test_a3_the_last_clear_counts(home: Home) -> None:
    session = printed(home, b"a\x1b[2Jb\x1b[3Jc", b"d\x1bcend")
    recording = session.recording()
    after = recording.raw[session.info["lastClearOffset"] :].decode()
    assert [json.loads(line)[2] for line in after.splitlines()[:-1]] == ["end"]


def test_a3_after_a_clear_the_size_comes_first_when_it_has_changed(home: Home) -> None:
    process = home.start("sh", "-c", r"read x; printf '\033[2Jafter'; sleep 30")
    session = process.session.wait()
    with session.client() as client:
        client.control(cmd="resize", cols=77, rows=33).type(b"\n")
        session.wait_output("after")
        client.control(cmd="kill")
    process.wait()
    after = session.recording().raw[session.info["lastClearOffset"] :].decode().splitlines()
    assert [json.loads(line)[1:] for line in after[:2]] == [["r", "77x33"], ["o", "after"]]


def test_a3_the_clears_offset_is_written_while_it_runs(home: Home) -> None:
    process = home.start("sh", "-c", r"printf 'x\033[2J'; sleep 30")
    session = process.session.wait()
    eventually(lambda: session.info["lastClearOffset"] > 0, timeout=4)
    process.signal(signal.SIGTERM)
    process.wait()


def test_a3_many_clears_do_not_rewrite_session_json_each_time(home: Home) -> None:
    process = home.start(
        "sh", "-c", r"i=0; while [ $i -lt 300 ]; do printf '\033[2J'; sleep 0.005; i=$((i+1)); done"
    )
    path = process.session.wait().path / "session.json"
    seen = set()
    while process.popen.poll() is None:
        seen.add(path.stat().st_ino)
        time.sleep(0.001)
    assert len(seen) <= 6, "at most once a second, and at the end"
    recording = process.session.recording()
    assert process.session.info["lastClearOffset"] == recording.offsets[-1]
