"""pyplue.vt reads recordings: cut, broken, hostile, long, and the screen that they show."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from pyplue import vt
from pyplue.vt import frames
from pyplue.vt.replay import find_start
from pyplue.vt.sequences import SequenceBuffer, without_queries
from pyplue.vt.transcript import Transcript
from vt.harness import Home

HEADER: dict[str, Any] = {"version": 2, "width": 40, "height": 5, "timestamp": 1}


def made(home: Home, *lines: Any, session_id: str = "made", **members: Any) -> vt.Session:
    """A session that somebody left behind, with these lines in its recording."""
    directory = home.control / session_id
    directory.mkdir(parents=True, exist_ok=True)
    info = {
        "id": session_id,
        "name": session_id,
        "command": ["x"],
        "status": "exited",
        "exitCode": 0,
    }
    (directory / "session.json").write_text(json.dumps({**info, **members}))
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (directory / "stdout").write_text(text + "\n")
    return vt.Session.open(session_id, control_dir=home.control)


def output(*texts: str) -> list[Any]:
    return [[number / 10, "o", text] for number, text in enumerate(texts)]


# ---- cut and broken -----------------------------------------------------------------------------


def test_a_recording_cut_anywhere_gives_what_is_whole_and_ends(home: Home) -> None:
    session = made(home, HEADER, *output("one\r\n", "zwö\r\n", "three"), ["exit", 3, "made"])
    whole = session.cast_path.read_bytes()
    events = list(session.events())
    assert [event.data for event in events] == ["one\r\n", "zwö\r\n", "three", "3"]
    ends = [0] + [n + 1 for n, byte in enumerate(whole) if byte == 10]
    for length in range(ends[1], len(whole)):
        session.cast_path.write_bytes(whole[:length])
        lines = sum(1 for end in ends[2:] if end <= length)
        reader = session.events(follow=False)
        assert list(reader) == events[:lines]
        assert reader.cut == length - max(end for end in ends if end <= length)
        reader.close()
        assert session.text().startswith("one"[: 3 * min(lines, 1)])
    # Followed: the session is over, so the rest will not come.
    session.cast_path.write_bytes(whole[: ends[3] + 5])
    assert list(session.events()) == events[:2]


def test_a_line_that_is_no_event_is_an_error_and_the_next_one_is_read(home: Home) -> None:
    bad = ["nonsense", "[1]", '[1,"o"]', "[]", "null", '["x","o","y"]', '[NaN,"o","y"]',
           '[1,2,"y"]', '[1,"o",2]', "[" * 100_000, '{"version":2}x' * 0 + '"text"', "[1,2",
           '["exit","x","y"]', '[5,"x","a"]']  # fmt: skip
    for line in bad:
        session = made(home, HEADER, *output("a"), line, *output("b"), "", ["exit", 0, "made"])
        events = session.events()
        assert next(events).data == "a"
        with pytest.raises(
            vt.CastError, match=r"has a line at byte \d+ that is no asciicast event"
        ):
            next(events)
        assert [event.data for event in events] == ["b", "0"], line
        assert session.text() == "ab", "the screen shows what can be shown"


@pytest.mark.parametrize(
    "line",
    [
        '["exit", Infinity, "made"]',
        '["exit", NaN, "made"]',
        f'[1{"0" * 400}, "o", "x"]',
        '[1e308, "o", "x"]',
        '[NaN, "o", "x"]',
        '["1", "o", "x"]',
        '[[], "o", "x"]',
        f'[1{"0" * 5000}, "o", "x"]',
    ],
    ids=lambda line: str(line)[:24],
)
def test_numbers_that_nobody_can_mean(home: Home, line: str) -> None:
    session = made(home, HEADER, *output("one"), line, ["exit", 3, "made"])
    events = session.events(follow=False)
    assert next(events).data == "one"
    with pytest.raises(vt.CastError):
        next(events)
    assert [event.data for event in events] == ["3"]
    assert session.text() == "one"


@pytest.mark.parametrize("final", "hlCmn@GtHr")
def test_a_number_of_thousands_of_digits_in_a_sequence(final: str) -> None:
    digits = "9" * 5000
    for text in (f"\x1b[?{digits}{final}x\r\nafter", f"\x1b[{digits}{final}x\r\nafter"):
        screen = vt.Screen(40, 5)
        screen.feed(text)
        assert screen.text().endswith("after")
        lines = list(Transcript().feed([vt.Event(0, "o", f"{text}\n")]))
        assert lines[-1] == "after"


def test_hostile_lines_are_edited_in_little_time_and_space() -> None:
    for text in (
        "\x1b[1000C" * 100_000,
        "\b\x1b[1000@" * 100_000,
        "x" * 500_000 + "\r\x1b[P" * 9999,
    ):
        begin = time.monotonic()
        (line,) = Transcript().feed([vt.Event(0, "o", f"ab{text}x\n")])
        assert len(line) < 600_000
        assert time.monotonic() - begin < 10


def test_a_spinner_is_edited_in_little_time() -> None:
    events = [vt.Event(0, "o", f"\r{n % 100:3} %\x1b[K") for n in range(40_000)]
    begin = time.monotonic()
    lines = list(Transcript().feed([*events, vt.Event(0, "o", "\rdone\x1b[K\n")]))
    assert time.monotonic() - begin < 5
    assert lines[-1] == "done"
    assert len(lines) == 1
    transcript = Transcript()
    pieces = ("a", "b\nc", "\n\nd\x1b[?1049hx\ny", "z\x1b[?1049le\n", "f")
    assert [line for text in pieces for line in transcript.feed([vt.Event(0, "o", text)])] == [
        *("ab", "c", "", "de"),
    ]
    assert list(transcript.flush()) == ["f"]
    assert list(transcript.flush()) == []


def test_what_is_no_recording_is_said(home: Home) -> None:
    for text in ("", "x", "\n", "[]\n", "{}\n", "1\n", "{" * 200_000, '{"version":3}\n'):
        session = made(home, HEADER)
        session.cast_path.write_text(text)
        with pytest.raises(vt.CastError, match=r"stdout"):
            session.text()
    session.cast_path.unlink()
    for look in (session.events, session.text, lambda: session.wait(quiet=0.1)):
        with pytest.raises(vt.CastError, match="is missing"):
            look()
    (home.path / "target").write_text("secret")
    session.cast_path.symlink_to(home.path / "target")
    with pytest.raises(vt.SessionDataError, match="cannot be read"):
        session.events()
    session.cast_path.unlink()
    os.mkfifo(session.cast_path)
    with pytest.raises(vt.SessionDataError, match="no regular file"):
        session.events()


def test_the_end_of_a_session_whose_recording_is_a_fifo(home: Home) -> None:
    session = made(home, HEADER)
    session.cast_path.unlink()
    os.mkfifo(session.cast_path)
    codes: list[int] = []
    waiter = threading.Thread(target=lambda: codes.append(session.wait(timeout=2)), daemon=True)
    waiter.start()
    waiter.join(5)
    assert codes == [0]


def test_many_bad_lines_take_little_time(home: Home) -> None:
    bad = "no event " * 6
    session = made(home, HEADER, *output("a"), *[bad] * 10_000, *output("b", "c"), "[1", "{")
    begin = time.monotonic()
    assert session.text() == "abc"
    events = session.events(follow=False)
    assert next(events).data == "a"
    offset = session.cast_path.read_bytes().index(bad.encode())
    for number in range(10_000):
        with pytest.raises(vt.CastError) as error:
            next(events)
        assert f"at byte {offset + number * (len(bad) + 1)} " in str(error.value)
    assert [next(events).data, next(events).data] == ["b", "c"]
    with pytest.raises(vt.CastError, match="no asciicast event: b'\\[1'"):
        next(events)
    assert list(events) == []
    assert time.monotonic() - begin < 5


def test_what_is_appended_after_a_bad_line_is_read(home: Home) -> None:
    session = made(home, HEADER, *output("a"), "bad", *output("b"))
    reader = session.events(follow=False)
    assert next(reader).data == "a"
    with session.cast_path.open("a") as file:
        file.write('[1,"o","c"]\n[2,"o","cut')
    with pytest.raises(vt.CastError):
        next(reader)
    assert [event.data for event in reader] == ["b", "c"]
    assert reader.cut == len('[2,"o","cut')


def test_many_clears_in_a_line_that_is_no_output_take_little_time(home: Home) -> None:
    clears = "\x1b[2J" * 20_000
    shown = [*output("one\x1b[2J"), *output("two")]
    for lines in ([[1, "i", clears]], [], ['[1,"o","' + json.dumps(clears)[1:-1]]):
        session = made(home, HEADER, *shown, *lines, *output("three"))
        size = session.cast_path.stat().st_size
        begin = time.monotonic()
        start = find_start(session.cast_path, whole=size - 1)
        assert time.monotonic() - begin < 1
        assert start.offset == len(json.dumps(HEADER)) + 1


def test_a_line_without_end_is_no_reason_to_fill_the_memory(home: Home) -> None:
    session = made(home, HEADER, '[1,"o","' + "x" * (17 << 20), '[1,"o","b"]')
    with pytest.raises(vt.CastError, match="a line of over"):
        list(session.events())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"x"', "[" * 200_000, '{"a":' * 1000, "\xff\xfe", "{}" + " " * 2**20],
    ids=lambda text: text[:8],
)  # fmt: skip
def test_a_session_json_that_is_none(home: Home, text: str) -> None:
    session = made(home, HEADER)
    made(home, HEADER, session_id="good")
    (session.path / "session.json").write_text(text, "latin-1")
    with pytest.raises(vt.SessionDataError, match=r"session\.json is"):
        vt.Session.open("made", control_dir=home.control)
    assert [s.id for s in vt.sessions(control_dir=home.control)] == ["good"]
    (session.path / "session.json").unlink()


def test_a_session_json_with_members_of_any_kind(home: Home) -> None:
    values: list[Any] = [None, 0, -1, 1.5, True, "x", [], {}, [[1]], 10**30, "\ud800", "é" * 9000]
    members = ["name", "command", "status", "pid", "exitCode", "startedAt", "lastClearOffset",
               "initialCols", "workingDir", "id"]  # fmt: skip
    for value in values:
        session = made(home, HEADER, *output("shown"), **dict.fromkeys(members, value))
        info = session.info
        assert info.id == "made", "the directory's name counts"
        assert info.status in ("starting", "running", "exited")
        vt.printable(info.name).encode()
        assert session.text() == "shown"
    empty = made(home, HEADER)
    (empty.path / "session.json").write_text("{}")
    assert empty.info.status == "exited"
    assert empty.info.started_at is None


def test_what_is_no_session_is_refused(home: Home) -> None:
    made(home, HEADER, session_id="real")
    (home.control / "link").symlink_to(home.control / "real")
    (home.control / "file").write_text("")
    (home.control / "empty").mkdir()
    (home.control / ".version").write_text("1")
    (home.control / "json-link").mkdir()
    (home.control / "json-link" / "session.json").symlink_to(home.control / "real" / "session.json")
    assert [s.id for s in vt.sessions(control_dir=home.control)] == ["real"]
    for name, why in [
        ("link", "is a symbolic link"),
        ("file", "is no directory"),
        ("json-link", "cannot be read"),
    ]:
        with pytest.raises(vt.SessionDataError, match=why):
            vt.Session.open(name, control_dir=home.control)
    for name in ("empty", "nobody"):
        with pytest.raises(vt.SessionNotFoundError):
            vt.Session.open(name, control_dir=home.control)


def test_nobody_listens(home: Home) -> None:
    session = made(home, HEADER, status="running", pid=os.getpid())
    with pytest.raises(vt.SessionUnreachableError, match="nobody listens at") as error:
        session.send("x")
    assert not isinstance(error.value, vt.SessionExitedError)
    (session.path / "ipc.sock").write_text("")
    with pytest.raises(vt.SessionUnreachableError, match="is no socket"):
        session.send("x")
    (session.path / "ipc.sock").unlink()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(session.path / "ipc.sock"))
    with pytest.raises(vt.SessionUnreachableError, match="nobody listens at"):
        session.send("x")
    deep = home.control / ("d" * 100)
    deep.mkdir()
    (session.path).rename(deep / "made")
    with pytest.raises(vt.SessionUnreachableError, match="VIBETUNNEL_CONTROL_DIR"):
        vt.Session.open("made", control_dir=deep).send("x")


def test_a_frame_beyond_the_cap_is_refused_before_it_is_sent(home: Home) -> None:
    assert len(frames.encode(frames.STDIN_DATA, b"x" * (16 << 20))) == (16 << 20) + 5
    for kind, size in [(1, (16 << 20) + 1), (2, (1 << 20) + 1), (4, (1 << 20) + 1)]:
        with pytest.raises(vt.FrameTooLongError, match="split it"):
            frames.encode(kind, b"x" * size)
    text = "é€😀" * 200_000
    pieces = list(frames.typed(text.encode()))
    assert "".join(piece[5:].decode() for piece in pieces) == text, "no character is cut"
    assert list(frames.typed(b"")) == []
    assert b"".join(piece[5:] for piece in frames.typed(b"\x80" * 600_000)) == b"\x80" * 600_000


# ---- the screen ---------------------------------------------------------------------------------


def shown(*texts: str, cols: int = 40, rows: int = 5) -> str:
    screen = vt.Screen(cols, rows)
    for text in texts:
        screen.feed(text)
    return screen.text()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a\r\nb", "a\nb"),
        ("before\x1b[?1049h\x1b[Hinside\x1b[?1049l after", "before after"),
        ("before\x1b[?1049hinside", "      inside"),
        ("before\x1b[?47h\x1b[2J\x1b[?47l", "before"),
        ("\x1b[38:2::1:2:3mred\x1b[0m", "red"),
        ("\x1b[4:3mcurly\x1b[4:0m\x1b[58;5;9m!", "curly!"),
        ("=\x1b[9b", "=========="),
        ("=\x1b[9999b", "=" * 40 + "\n="),
        ("ab\x1b[2;3r\x1b#8\x1b[31mc", "c" + "E" * 39 + ("\n" + "E" * 40) * 4),
        ("\x1bP+q544e\x1b\\x", "x"),
        ("\x1b_Gi=31,a=q;AAAA\x1b\\x", "x"),
        ("\x1b^private\x1b\\x\x1bXstring\x1b\\y", "xy"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b[>4;2m\x1b[?4m\x1b[>1u\x1b[?u\x1b[<u\x1b[=0cx", "x"),
        ("\x1b[!p\x1b[2 q\x1b[?2026$px", "x"),
        ("\x9b31mx\x9d0;title\x9cy", "xy"),
        ("\x1b(0lqk\x1b(B", "┌─┐"),
        ("e\u0301 👩‍💻! ❤️!", "é 👩💻! ❤!"),
        ("日本\b\bx", "日x"),
        ("\x1b[1;40H日本", "\n日本"),
        ("\x1b[4;6r\x1b[Hx\x1b[5A\x1b[Dy\x1b[r!", "!"),
        ("1\r\n2\r\n3\x1b[S", "2\n3"),
        ("1\r\n2\x1b[T", "\n1\n2"),
        ("\x1b7a\x1b8b\x1b8c", "c"),
        ("ab\x1b[s\x1b[Hx\x1b[uc", "xbc"),
        ("\x1bEx", "\nx"),
        ("a\tb\tc\x1b[2ZX", "a       X       c"),
        ("\x1b[?3hx", "x"),
        ("\x1b[9999;9999Hx\x1b[9999Ay", " " * 39 + "y\n\n\n\n" + " " * 39 + "x"),
    ],
)
def test_the_screen_shows_what_a_terminal_shows(text: str, wanted: str) -> None:
    assert shown(text) == wanted
    assert shown(*text) == wanted, "wherever the output is cut"


@pytest.mark.parametrize("sequence", ["[9999b", "#8", "[?5h\x1b[?5l", "[2J", "[9999S", "[9999Z"])
def test_a_few_bytes_do_not_cost_a_screen_each(sequence: str) -> None:
    screen = vt.Screen(80, 24)
    screen.feed("x" * 80 * 24)
    begin = time.monotonic()
    screen.feed(f"\x1b{sequence}" * (7000 // (len(sequence) + 1)))
    assert time.monotonic() - begin < 2


def test_the_whole_screen_in_reverse() -> None:
    screen = vt.Screen(3, 1)
    screen.feed("a\x1b[7mb\x1b[?5h\x1b[m")
    assert [cell.reverse for cell in screen.cells()[0]] == [True, False, True]
    screen.feed("\x1b[?5l")
    assert [cell.reverse for cell in screen.cells()[0]] == [False, True, False]
    screen.feed("\x1b[?5h\x1bc")
    assert not any(cell.reverse for cell in screen.cells()[0])


def test_a_resize_keeps_the_lines_at_the_cursor() -> None:
    screen = vt.Screen(10, 6)
    screen.feed("1\r\n2\r\n3")
    screen.resize(10, 3)
    assert screen.lines == ["1", "2", "3"]
    screen.resize(1, 2)
    assert screen.lines == ["2", "3"]
    screen.resize(10**9, 10**9)
    assert (screen.cols, screen.rows) == (1000, 1000)
    screen.resize(-5, 0)
    assert (screen.cols, screen.rows) == (1, 1)


def test_long_output_is_shown_as_if_nothing_were_left_out() -> None:
    rng = random.Random(4)
    words = ["word ", "\x1b[31m", "\x1b[0m", "long " * 20, "\t", "é", "x\ry"]
    for _ in range(40):
        lines = ["".join(rng.choices(words, k=rng.randrange(6))) for _ in range(rng.randrange(60))]
        start = rng.choice(["", "\x1b[2;4r", "\x1b[3;3Hx", "x\r\n\x0e"])
        text = start + "\r\n".join(lines)
        at_once, slowly = vt.Screen(20, 5), vt.Screen(20, 5)
        at_once.feed(text)
        for line in text.splitlines(keepends=True):
            slowly.feed(line)
        assert at_once.lines == slowly.lines
        assert at_once.cursor == slowly.cursor
        assert at_once.cells() == slowly.cells()


def test_hostile_output_is_only_text() -> None:
    rng = random.Random(5)
    pieces = [
        *["\x1b", "\x1b[", "\x9b", "\x1b]", "\x1bP", ";", "?", ">", ":", "$", " ", "\\", "\x18"],
        *["0", "9", "99999999", "7", "8", "#8", "(0", "?1049", "?6", *"mhlJKbLM@PXrHcnsuTSZGd"],
        *["\x0e", "\x07", "\n", "\r", "\b", "\t", "x", "日", "\u200d", "\u0301", "\ud800"],
    ]
    for _ in range(400):
        screen = vt.Screen(rng.randrange(1, 30), rng.randrange(1, 10))
        for _ in range(20):
            screen.feed("".join(rng.choices(pieces, k=rng.randrange(30))))
            if rng.random() < 0.1:
                screen.resize(rng.randrange(0, 40), rng.randrange(0, 12))
            assert len(screen.lines) == screen.rows
            assert len(screen.cells()[0]) == screen.cols
        screen.feed("\x18\x1bc\x1b[2J\x1b[Hgood")
        assert screen.lines[0] == "good"[: max(screen.cols, 0)] or screen.cols < 4


def test_resizes_in_the_recording_count(home: Home) -> None:
    session = made(home, HEADER, *output("a"), [1, "r", "20x3"], [1, "r", "junk"], *output("b"))
    assert (session.screen().cols, session.screen().rows) == (20, 3)
    assert session.text() == "ab"


# ---- long recordings ----------------------------------------------------------------------------


def lines_of(count: int, text: str = "a line of a long build log, number ") -> list[Any]:
    return output(*(f"{text}{number}\r\n" for number in range(count)))


def test_a_long_recording_is_read_from_its_last_clear(home: Home) -> None:
    session = made(
        home,
        HEADER,
        [0, "o", "\x1b[?2004h\x1b[?25l"],
        *lines_of(20_000),
        [1, "r", "50x6"],
        [2, "i", "\x1b[2J"],
        *output("\x1b[H\x1b[2Jfresh\r\n", "screen"),
    )
    assert session.text() == "fresh\nscreen"
    start = find_start(session.cast_path)
    assert (start.cols, start.rows) == (50, 6)
    assert start.modes == {2004: True, 25: False}
    assert start.restore() == "\x1b[?2004h\x1b[?25l"
    assert session.cast_path.stat().st_size - start.offset < 100


def test_a_long_recording_without_a_clear_is_read_near_its_end(home: Home) -> None:
    session = made(home, HEADER, *lines_of(20_000))
    wanted = [f"a line of a long build log, number {n}"[:40] for n in range(19_996, 20_000)]
    assert session.text().split("\n") == wanted
    assert find_start(session.cast_path).offset > 0


def test_last_clear_offset_is_believed_where_it_can_be(home: Home) -> None:
    session = made(home, HEADER, *lines_of(20_000))
    size = session.cast_path.stat().st_size
    for offset, believed in [(size - 100, True), (5, False), (size + 1, False), (10**15, False)]:
        start = find_start(session.cast_path, offset)
        assert (start.offset == offset) == believed
        json_path = session.path / "session.json"
        json_path.write_text(json.dumps({**session.info.fields, "lastClearOffset": offset}))
        text = vt.Session.open("made", control_dir=home.control).text()
        assert text.endswith("number 19999")


def test_the_alternate_screen_is_known_without_its_beginning(home: Home) -> None:
    program = [[0, "o", f"\x1b[{n % 5 + 1};1Hrow {n}\x1b[K"] for n in range(30_000)]
    session = made(home, HEADER, [0, "o", "main"], [0, "o", "\x1b[?1049h"], *program)
    assert session.text().split("\n") == [f"row {n}" for n in range(29_995, 30_000)]
    with session.cast_path.open("a") as cast:
        cast.write(json.dumps([1, "o", "\x1b[?1049l$ "]) + "\n")
    assert "row" not in session.text()


def test_a_recording_that_is_replaced_is_read_anew(home: Home) -> None:
    first = vt.spawn(["echo", "a long first line"], control_dir=home.control, session_id="again")
    first.wait(timeout=5)
    events = first.events()
    next(events)
    assert first.text() == "a long first line"
    second = vt.spawn(["true"], control_dir=home.control, session_id="again")
    second.wait(timeout=5)
    assert first.text() == ""
    assert [event.code for event in events] == ["x"], "of the first: it was read already"


def test_a_recording_that_a_longer_one_replaces(home: Home) -> None:
    first = made(
        home, HEADER, *output("one"), session_id="again", status="running", pid=os.getpid()
    )
    events = first.events()
    assert next(events).data == "one"
    assert first.text() == "one"
    made(home, {**HEADER, "timestamp": 2}, *output("two\r\n", "three"), session_id="again")
    assert first.text() == "two\nthree"
    assert list(events) == []


# ---- what must not be replayed ------------------------------------------------------------------

QUERIES = [
    "\x1b[c", "\x1b[0c", "\x1b[>c", "\x1b[>0c", "\x1b[=c", "\x1bZ", "\x05",
    "\x1b[5n", "\x1b[6n", "\x1b[?6n", "\x1b[?996n", "\x1b[x", "\x1b[1x",
    "\x1b[18t", "\x1b[14t", "\x1b[21t", "\x1b[8;5;5t", "\x1b[22;0;0t", "\x1b[5i",
    "\x1b[?2026$p", "\x1b[4$p", "\x1b[>q", "\x1b[>0q", "\x1b[?u", "\x1b[?4m", "\x1b[1;1;1;1;1;1*y",
    "\x1b[1$w", "\x1b[?1;1;0S", "\x1b[#R", "\x1b[&u",
    "\x1bP+q544e\x1b\\", "\x1bP$qm\x1b\\", "\x1b_Ga=q;AA\x1b\\", "\x1bP0;0;0q#0~\x1b\\",
    "\x1b]4;1;?\x07", "\x1b]10;?\x1b\\", "\x1b]11;?\x07", "\x1b]12;?\x07", "\x1b]17;?\x07",
    "\x1b]52;c;?\x07", "\x1b]52;c;ZXZpbA==\x07", "\x1b]9;hello\x07", "\x1b]777;notify;a;b\x07",
    "\x1b]1337;File=:AAAA\x07", "\x1b]50;?\x07", "\x1b]4;0;#000000;1;?\x07", "\x1b]99;;x\x1b\\",
    "\x9bc", "\x9d11;?\x9c", "\x90$qm\x9c",
]  # fmt: skip
HARMLESS = [
    "\x1b[2J", "\x1b[1;31m", "\x1b[38:2::1:2:3m", "\x1b[H", "\x1b[?1049h", "\x1b[?25l", "\x1b[2 q",
    "\x1b]0;a title\x07", "\x1b]2;title? yes\x1b\\", "\x1b]8;;https://e.org/?q\x07",
    "\x1b]11;#000000\x07", "\x1b]104\x07", "\x1b]110;\x07", "\x1b(0", "\x1b7", "\x1b8", "\x1bM",
    "\x1b=", "\x1b[>4;2m", "\x1b[!p", "\x1b[3;9r", "\x1b[>1u", "\x1b[<u", "\x1b[s", "\x1b[u",
    "\x1b[>4n", "text?", "é\r\n\t\b",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\x1b\0]52;c;ZXZpbA==\x07", "\0"),
        ("\x1b\n\0]0;a\x07", "\n\0\x1b]0;a\x07"),
        ("\x1b[\n6n", "\n"),
        ("\x1b[6\x7fn", "\x7f"),
        ("\x1b[?\r2026\b$\0p", "\r\b\0"),
        ("\x1b\tZ", "\t"),
        ("\x1b[3\n1m", "\n\x1b[31m"),
    ],
    ids=ascii,
)
def test_control_characters_within_a_sequence_do_not_hide_it(text: str, kept: str) -> None:
    for cut in range(len(text)):
        buffer = SequenceBuffer()
        got = [without_queries(buffer.feed(part)) for part in (f"a{text[:cut]}", f"{text[cut:]}b")]
        assert "".join(got) == f"a{kept}b"


@pytest.mark.parametrize("query", ["\x1b]52;c;ZXZpbA==", "\x1b]11;?", "\x1bP+q544e"], ids=ascii)
def test_a_query_that_the_next_sequence_ends_is_not_replayed(query: str) -> None:
    text = f"a{query}\x1b[1mb"
    for cut in range(len(text)):
        buffer = SequenceBuffer()
        got = [without_queries(buffer.feed(part)) for part in (text[:cut], text[cut:])]
        assert "".join(got) == "a\x1b[1mb"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x01\x06b", "ab"),
        ("a\x1b[;d\rb", "b"),
        ("a\x1b/[b", "ab"),
        ("a\x1bPq\x1b\x1b[1mb", "ab"),
        ("a\x1b\x1b\x01b", "a"),
        ("a\x1b]\x1b[\x00mb", "ab"),
    ],
    ids=ascii,
)
def test_a_sequence_that_is_none_hides_nothing_else(text: str, shown: str) -> None:
    for cut in range(len(text)):
        screen = vt.Screen(10, 2)
        screen.feed(text[:cut])
        screen.feed(text[cut:])
        assert screen.text() == shown


@pytest.mark.parametrize("text", HARMLESS, ids=ascii)
def test_everything_else_is_replayed(text: str) -> None:
    assert without_queries(SequenceBuffer().feed(f"a{text}b")) == f"a{text}b"


def test_what_is_never_finished_is_not_waited_for() -> None:
    buffer = SequenceBuffer()
    assert buffer.feed("a\x1b]0;never") == "a"
    assert "shown" in buffer.feed("x" * 70_000 + "\x1b[31mshown")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\x1b[31mred\x1b[0m\r\n\x1b]0;t\x07x\x07\ty\n\x7f\x85z\x00", ["red", "x\ty", "z"]),
        ("10%\r 50%\r100%\n", ["100%"]),
        ("a long line\r\x1b[Kshort\r\n", ["short"]),
        ("one\x1b[2K\rtwo", ["two"]),
        ("abc\b\bX\x1b[1P\x1b[@Y\n", ["aXY"]),
        ("ab\x1b[3Cc\x1b[1Gx\x1b[5Dy", ["yb   c"]),
        ("abcdef\r\x1b[3X\x1b[9999999999999999999C|", ["   def" + " " * 994 + "|"]),
        ("before\n\x1b[?1049hpainted\n\n\x1b[?1049lafter\n", ["before", "after"]),
        ("\n\n", ["", ""]),
        ("\x1b[31", []),
    ],
)
def test_a_transcript_is_what_a_person_would_have_read(text: str, lines: list[str]) -> None:
    for size in (1, 2, 3, 1000):
        transcript = Transcript()
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        got = [*transcript.feed(vt.Event(0, "o", piece) for piece in pieces), *transcript.flush()]
        assert got == lines


def test_printable() -> None:
    assert (
        vt.printable("a\x1b]2;evil\x07\x9b31mb\r\n\u202egnp.exe\ud800é✓") == "a]2;evil31mbgnp.exeé✓"
    )
    assert vt.printable("x" * 1000) == "x" * 255 + "…"


def test_a_recording_is_read_while_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "growing"
    lines = [
        json.dumps(line) + "\n" for line in [HEADER, *output("a", "bé", "c"), ["exit", 1, "x"]]
    ]
    path.write_text("")
    reader = vt.CastReader(path)
    seen = []
    for byte in "".join(lines).encode():
        with path.open("ab") as file:
            file.write(bytes([byte]))
        seen += reader.read()
    assert [event.data for event in seen] == ["a", "bé", "c", "1"]
    reader.close()
