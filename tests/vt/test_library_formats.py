"""libvt_fwd's formats: frames, recordings, titles and session.json, held against plain models and
against what vibetunnel-fwd itself does with the same bytes.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import struct
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyplue import ffi
from vt.harness import (
    CONTROL,
    HEARTBEAT,
    STDIN_DATA,
    Home,
    Recording,
    decode,
    eventually,
    frame,
)

vt = ffi.vt

EXAMPLES = int(os.environ.get("VT_LIBRARY_EXAMPLES", "150"))
quick = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


def name_of(code: int) -> str:
    return str(vt.vt_fwd_error_name(code), "ascii")


# ---- frames --------------------------------------------------------------------------------------

FRAME = struct.Struct("<IIQQ")  # vt_fwd_frame


class Decoder:
    """The library's decoder: `feed` gives (type, payload) of the frames that are whole."""

    def __init__(self, room: int = 4096) -> None:
        self.handle = vt.vt_fwd_decoder_create()
        self.room = room
        self.frame = ffi.buffer(FRAME.size)
        self.out = ffi.buffer(max(1, room))
        self.text = b""
        self.oversized = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        found = []
        while True:
            cap = len(self.out)
            code = vt.vt_fwd_decoder_next(self.handle, data, len(data), self.out, cap, self.frame)
            kind, last, used, length = FRAME.unpack(self.frame.raw)
            assert used <= len(data)
            data = data[used:]
            if name_of(code) == "buffer_too_small":
                assert vt.vt_fwd_needed() > cap
                self.out = ffi.buffer(vt.vt_fwd_needed())
                continue
            if name_of(code) == "oversized":
                self.oversized = True
                return found
            assert code == 0
            if kind == 0:
                assert not data
                return found
            payload = self.out.raw[:length]
            if kind == STDIN_DATA:
                assert length > 0
                self.text += payload
                if last:
                    found.append((kind, self.text))
                    self.text = b""
            else:
                found.append((kind, payload))

    def close(self) -> None:
        assert vt.vt_fwd_decoder_destroy(self.handle)


def expected_frames(data: bytes) -> tuple[list[tuple[int, bytes]], bytes, bool]:
    """Whole frames, the beginning of typed text that is not, and whether a length was absurd."""
    found = []
    while len(data) >= 5:
        kind, length = struct.unpack(">BI", data[:5])
        if length > (16 << 20 if kind == STDIN_DATA else 1 << 20):
            return found, b"", True
        payload, complete = data[5 : 5 + length], len(data) >= 5 + length
        if not complete:
            return found, payload if kind == STDIN_DATA else b"", False
        if kind == HEARTBEAT:
            found.append((kind, b""))
        elif kind == CONTROL or (kind == STDIN_DATA and payload):
            found.append((kind, payload))
        data = data[5 + length :]
    return found, b"", False


frames = st.one_of(
    st.builds(frame, st.sampled_from([STDIN_DATA, CONTROL, HEARTBEAT]), st.binary(max_size=40)),
    st.builds(frame, st.integers(0, 255), st.binary(max_size=40)),
    st.builds(frame, st.just(CONTROL), st.binary(min_size=1000, max_size=3000)),
)
streams = st.builds(
    lambda parts, tail: b"".join(parts) + tail, st.lists(frames, max_size=8), st.binary(max_size=9)
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


@quick
@given(streams, st.lists(st.integers(0, 10_000), max_size=8), st.integers(1, 64))
def test_the_decoder_agrees_with_a_plain_model_at_every_split(data, cuts, room):
    decoder = Decoder(room)
    found: list[tuple[int, bytes]] = []
    for piece in pieces(data, cuts):
        if not decoder.oversized:
            found += decoder.feed(piece)
    assert (found, decoder.text, decoder.oversized) == expected_frames(data)
    decoder.close()


@quick
@given(st.integers(0, 255), st.binary(max_size=3000))
def test_what_is_encoded_is_decoded(kind, payload):
    size = 5 + len(payload)
    out = ffi.buffer(size)
    short = vt.vt_fwd_frame_encode(kind, payload, len(payload), out, size - 1)
    assert name_of(short) == "buffer_too_small"
    assert vt.vt_fwd_needed() == size
    assert vt.vt_fwd_frame_encode(kind, payload, len(payload), out, size) == size
    assert out.raw == frame(kind, payload)


@pytest.mark.parametrize(("kind", "limit"), [(1, 16 << 20), (2, 1 << 20), (4, 1 << 20)])
def test_frames_beyond_the_limit_are_not_encoded(kind: int, limit: int):
    payload = ffi.buffer(limit + 1)
    out = ffi.buffer(limit + 6)
    assert vt.vt_fwd_frame_encode(kind, payload, limit, out, limit + 6) == limit + 5
    code = vt.vt_fwd_frame_encode(kind, payload, limit + 1, out, limit + 6)
    assert name_of(code) == "too_long"
    assert name_of(vt.vt_fwd_frame_encode(256, None, 0, out, 5)) == "argument"


def test_the_decoder_and_a_session_take_the_same_bytes_for_the_same(home: Home):
    """Random streams into a session's socket: its command reads what the decoder calls input, and
    its connection ends where the decoder calls a length absurd."""
    rng = random.Random(7)
    process = home.start(
        "sh", "-c", "stty raw -echo; exec > typed; echo ready > /dev/tty; cat", flags=("-q",)
    )
    process.session.wait_output("ready")
    typed, seen_oversized = b"", 0
    for number in range(40):
        parts = [
            frame(rng.choice([1, 1, 1, 2, 3, 4, 5, 9, 255]), rng.randbytes(rng.randrange(60)))
            for _ in range(rng.randrange(6))
        ]
        absurd = rng.random() < 0.3
        stream = b"".join(parts) + (rng.choice([b"\2\0\x10\0\1", b"\xff" * 5]) if absurd else b"")
        decoder = Decoder(rng.randrange(1, 50))
        found = decoder.feed(stream)
        assert decoder.oversized == absurd
        typed += b"".join(payload for kind, payload in found if kind == STDIN_DATA)
        with process.session.client() as client:
            # Not commands: JSON of random bytes is none.
            client.raw(stream)
            if absurd:
                assert client.closed(), number
                seen_oversized += 1
            else:
                end = b"<%d>" % number
                client.type(end)
                typed += end
        decoder.close()
        # One connection after the other: the order is theirs.
        expected = len(typed)
        eventually(lambda: (home.work / "typed").stat().st_size >= expected)  # noqa: B023
    assert seen_oversized > 3
    assert (home.work / "typed").read_bytes() == typed


# ---- window titles -------------------------------------------------------------------------------


class Filter:
    def __init__(self) -> None:
        self.handle = vt.vt_fwd_filter_create()

    def write(self, data: bytes) -> bytes:
        out = ffi.buffer(len(data) + 3)
        length = vt.vt_fwd_filter_write(self.handle, data, len(data), out, len(out))
        assert 0 <= length <= len(out)
        return bytes(out.raw[:length])

    def end(self) -> bytes:
        out = ffi.buffer(3)
        length = vt.vt_fwd_filter_end(self.handle, out, 3)
        return bytes(out.raw[:length])

    def close(self) -> None:
        assert vt.vt_fwd_filter_destroy(self.handle)


def filtered(parts: list[bytes]) -> bytes:
    title_filter = Filter()
    result = b"".join(map(title_filter.write, parts)) + title_filter.end()
    title_filter.close()
    return result


# Titles up to their end, CAN, SUB, or the escape that begins something else.
TITLE = re.compile(rb"\x1b\][012];[^\x07\x18\x1a\x1b]*(?:[\x07\x18\x1a]|\x1b\\|\x1b?\Z|(?=\x1b))")

# Text and sequences that have ended, be it at the ESC of the next one.
FINISHED = re.compile(
    rb"(?:[^\x1b]|\x1b[\x00-\x17\x19\x1c-\x1f]*(?:"
    rb"\[[^@-~\x80-\xff\x18\x1a\x1b]*(?:[@-~\x80-\xff\x18\x1a]|(?=\x1b))"
    rb"|\][^\x07\x18\x1a\x1b]*(?:[\x07\x18\x1a]|\x1b\\|(?=\x1b))"
    rb"|[PX^_][^\x18\x1a\x1b]*(?:[\x18\x1a]|\x1b\\|(?=\x1b))"
    rb"|[0-OQ-WYZ\\`-\xff\x18\x1a]|(?=\x1b)))*"
)


def without_titles(data: bytes) -> bytes:
    """ST stands for a title that interrupts another sequence."""
    left = b""
    end = 0
    for title in TITLE.finditer(data):
        left += data[end : title.start()]
        if not FINISHED.fullmatch(left):
            left += b"\x1b\\"
        end = title.end()
    return left + data[end:]


def terminal_bytes(rng: random.Random, size: int) -> bytes:
    parts = [b"\x1b]0;", b"\x1b]2;t\x07", b"\x1b]1", b"\x1b", b"\x1b\\", b"\x07", b"\x18", b"a\xc3"]
    parts += [
        b"\x1b]52;c;aGk=\x07",
        b"\x1b[31m",
        b"text",
        b"\xe2\x82\xac",
        b"\r\n",
        b"\x1b]",
        b"0;",
    ]
    return b"".join(rng.choice(parts) for _ in range(size))


@quick
@given(st.integers(0, 2**32), st.lists(st.integers(0, 10_000), max_size=8))
def test_the_filter_agrees_with_a_plain_model_at_every_split(seed, cuts):
    data = terminal_bytes(random.Random(seed), 40)
    assert filtered(pieces(data, cuts)) == without_titles(data)


def test_the_filter_leaves_what_a_session_records(home: Home):
    rng = random.Random(3)
    data = b"".join(terminal_bytes(rng, 400) + b"\x1b\\\x18\n" for _ in range(10))
    (home.work / "data").write_bytes(data)
    command = ("sh", "-c", "stty raw; cat data")
    home.run(*command, flags=("--title-mode", "filter"))
    assert home.last.recording().text() == decode(filtered([data]))


# ---- recordings ----------------------------------------------------------------------------------


def cast_of(path: Path, cols: int = 80, rows: int = 24, **options: Any) -> int:
    handle = vt.vt_fwd_cast_create(
        os.fsencode(path),
        cols,
        rows,
        options.get("timestamp", 1700000000),
        options.get("command"),
        options.get("title"),
        options.get("max_bytes", 0),
    )
    return int(handle)


def test_a_recording_is_written_event_by_event(tmp_path: Path):
    path = tmp_path / "cast"
    handle = cast_of(path, command=b'sh -c "x"', title="tité".encode())
    assert path.stat().st_mode & 0o777 == 0o600
    assert vt.vt_fwd_cast_output(handle, 500_000, b"one\xe2\x82", 5) == 0
    assert json.loads(path.read_text().splitlines()[-1]) == [0.5, "o", "one"]  # readable at once
    assert vt.vt_fwd_cast_output(handle, 600_000, b"\xac\x1b[2Jtwo", 8) == 0
    assert vt.vt_fwd_cast_input(handle, 700_000, b"k\xc3", 2) == 0
    assert vt.vt_fwd_cast_resize(handle, 650_000, 100, 40) == 0
    assert vt.vt_fwd_cast_marker(handle, 800_000, b'a "label"') == 0
    offset = vt.vt_fwd_cast_clear_offset(handle)
    assert path.read_bytes()[:offset].endswith(b'\\u001b[2J"]\n')
    assert vt.vt_fwd_cast_end(handle, 900_000, 7, b"id-1") == 0
    assert name_of(vt.vt_fwd_cast_end(handle, 0, 0, None)) == "no_handle"
    recording = Recording(path)
    assert recording.header == {
        "version": 2,
        "width": 80,
        "height": 24,
        "timestamp": 1700000000,
        "command": 'sh -c "x"',
        "title": "tité",
    }
    assert recording.events == [
        (0.5, "o", "one"),
        (0.6, "o", "€\x1b[2J"),
        (0.6, "o", "two"),
        (0.7, "i", "k"),
        (0.7, "r", "100x40"),
        (0.8, "m", 'a "label"'),
        (0.9, "i", "\ufffd"),
    ]
    assert recording.exit == (7, "id-1")


@quick
@given(st.integers(0, 2**32), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_recording_decodes_to_its_output_whatever_the_split(tmp_path_factory, seed, cuts):
    data = terminal_bytes(random.Random(seed), 40)
    path = tmp_path_factory.getbasetemp() / "split.cast"
    handle = cast_of(path)
    for piece in pieces(data, cuts):
        assert vt.vt_fwd_cast_output(handle, 0, piece, len(piece)) == 0
    assert vt.vt_fwd_cast_end(handle, 0, 0, None) == 0
    recording = Recording(path, finished=False)
    assert recording.text() == decode(data)
    assert recording.exit is None


def test_the_clock_may_be_the_librarys(tmp_path: Path):
    handle = cast_of(tmp_path / "cast")
    now = 2**64 - 1
    assert vt.vt_fwd_cast_output(handle, now, b"x", 1) == 0
    assert vt.vt_fwd_cast_end(handle, now, 0, b"id") == 0
    [(time_s, _, _)] = Recording(tmp_path / "cast").events
    assert 0 <= time_s < 5


def test_what_cannot_be_recorded_to_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "no" / "such", Path("/dev/null")):
        assert cast_of(path) == 0
        assert name_of(vt.vt_fwd_last_error()) == "system"
        assert str(path).encode() in vt.vt_fwd_last_message()
    for size in ((0, 24), (80, 0), (65536, 24)):
        assert cast_of(tmp_path / "x", *size) == 0
        assert name_of(vt.vt_fwd_last_error()) == "argument"
    handle = cast_of(tmp_path / "x")
    assert name_of(vt.vt_fwd_cast_resize(handle, 0, 0, 1)) == "argument"
    assert name_of(vt.vt_fwd_cast_end(handle, 0, 0, b"../id")) == "argument"
    assert name_of(vt.vt_fwd_cast_output(handle, 0, b"x", 1)) == "no_handle"


def test_a_full_disk_leaves_whole_lines_and_an_error(tmp_path: Path):
    script = f"""
        import resource
        from pyplue import ffi
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # Python ignores SIGXFSZ
        vt = ffi.vt
        handle = vt.vt_fwd_cast_create({os.fsencode(tmp_path / "cast")!r}, 80, 24, 0, None, None, 0)
        codes = [vt.vt_fwd_cast_output(handle, n, b"x" * 100, 100) for n in range(40)]
        print(codes.index(-8), codes[-1], vt.vt_fwd_cast_end(handle, 0, 3, b"id"))
        print(vt.vt_fwd_last_message().decode())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    first, message = done.stdout.splitlines()
    assert first.split()[1:] == ["-8", "-8"]
    assert message.startswith("the recording has stopped: ")
    text = (tmp_path / "cast").read_text()
    assert text.endswith("\n")
    assert len(text.splitlines()) == int(first.split()[0]) + 1 + text.count('["exit"')


# ---- session.json --------------------------------------------------------------------------------

MEMBERS = [
    "id",
    "name",
    "command",
    "workingDir",
    "status",
    "startedAt",
    "pid",
    "exitCode",
    "initialCols",
    "initialRows",
    "lastClearOffset",
    "version",
    "attachedViaVT",
    "gitRepoPath",
    "gitBranch",
    "gitMainRepoPath",
    "gitAheadCount",
    "gitBehindCount",
    "gitHasChanges",
    "gitIsWorktree",
]


def parse(text: bytes, session_id: bytes = b"dir") -> Any:
    out = ffi.buffer(1 << 16)
    length = vt.vt_fwd_session_parse(session_id, text, len(text), out, len(out))
    return json.loads(out.raw[:length]) if length > 0 else name_of(length)


def test_a_session_json_has_all_members_and_the_right_types():
    assert parse(b"{}") == {**dict.fromkeys(MEMBERS), "id": "dir"}
    assert list(parse(b"{}")) == MEMBERS
    given_members = {
        "id": "other",
        "name": "na\x07me\x1b]52;c;x",
        "command": ["a", "\u20ac", '"'],
        "status": "exited",
        "exitCode": 0,
        "pid": 1,
        "gitHasChanges": False,
        "extra": {"x": [1]},
    }
    assert parse(json.dumps(given_members).encode()) == {
        **dict.fromkeys(MEMBERS),
        **{key: value for key, value in given_members.items() if key != "extra"},
        "id": "dir",
        "name": "name]52;c;x",
    }


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"{}x", b'{"a":\xff}', b"[" * 9000])
def test_what_is_no_session_json_is_an_error(text: bytes):
    assert parse(text) == "json"


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-10, 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
TYPES = {
    "command": lambda v: isinstance(v, list) and all(isinstance(item, str) for item in v),
    "status": lambda v: v in ("starting", "running", "exited"),
    **dict.fromkeys(["attachedViaVT", "gitHasChanges", "gitIsWorktree"], lambda v: v in (0, 1)),
}
COUNTS = {name for name in MEMBERS if name.endswith(("Count", "Cols", "Rows", "Offset", "Code"))}


@quick
@given(st.dictionaries(st.sampled_from(MEMBERS) | st.text(), json_values, max_size=8))
def test_any_object_is_read_member_by_member(members):
    text = json.dumps(members, ensure_ascii=False).encode("utf-8", "surrogatepass")
    result = parse(text)
    assert list(result) == MEMBERS
    for name, value in result.items():
        if name in ("id", "name") or value is None:
            continue
        assert value == members[name]
        if name in COUNTS | {"pid"}:
            assert isinstance(value, int)
            assert value >= 0
        else:
            assert TYPES.get(name, lambda v: isinstance(v, str))(value)


def test_reading_needs_a_directory_with_a_readable_session_json(tmp_path: Path):
    def read(path: Path) -> str:
        out = ffi.buffer(64)
        return name_of(vt.vt_fwd_session_read(os.fsencode(path), out, 64))

    session = tmp_path / "s"
    assert read(session) == "no_session"
    session.mkdir()
    assert read(session) == "no_session"
    os.mkfifo(session / "session.json")
    assert read(session) == "no_session"  # and it does not wait for a writer
    (session / "session.json").unlink()
    (session / "session.json").write_bytes(b" " * (1 << 20) + b"{}")
    assert read(session) == "no_session"
    (session / "session.json").write_text("{}")
    assert read(session) == "buffer_too_small"
    assert vt.vt_fwd_needed() > 300
    (tmp_path / "link").symlink_to(session)
    assert read(tmp_path / "link") == "no_session"


# ---- all of them ---------------------------------------------------------------------------------


def test_handles_run_out_with_an_error_and_come_back():
    handles = []
    while handle := vt.vt_fwd_filter_create():
        handles.append(handle)
    assert name_of(vt.vt_fwd_last_error()) == "too_many_handles"
    assert len(handles) == len(set(handles)) == 4096
    for handle in handles:
        assert vt.vt_fwd_filter_destroy(handle)
    again = vt.vt_fwd_filter_create()
    assert again not in handles
    assert vt.vt_fwd_filter_destroy(again)


def test_a_handle_is_of_one_kind_only():
    decoder, title_filter = vt.vt_fwd_decoder_create(), vt.vt_fwd_filter_create()
    for handle in (decoder, title_filter):
        assert name_of(vt.vt_fwd_wait(handle, 0)) == "no_handle"
        assert name_of(vt.vt_fwd_cast_clear_offset(handle)) == "no_handle"
    assert vt.vt_fwd_decoder_destroy(decoder)
    assert vt.vt_fwd_filter_destroy(title_filter)


def test_threads_share_one_filter_decoder_and_recording(tmp_path: Path):
    decoder, title_filter = vt.vt_fwd_decoder_create(), vt.vt_fwd_filter_create()
    cast = cast_of(tmp_path / "cast")
    errors: list[BaseException] = []

    def work() -> None:
        out, info = ffi.buffer(64), ffi.buffer(FRAME.size)
        try:
            for _ in range(400):
                assert vt.vt_fwd_filter_write(title_filter, b"plain", 5, out, 64) == 5
                assert vt.vt_fwd_decoder_next(decoder, b"\4\0\0\0\0", 5, out, 64, info) == 0
                assert vt.vt_fwd_cast_output(cast, 0, b"line\n", 5) == 0
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert vt.vt_fwd_cast_end(cast, 0, 0, b"id") == 0
    assert Recording(tmp_path / "cast").text() == "line\n" * 2400
    assert vt.vt_fwd_decoder_destroy(decoder)
    assert vt.vt_fwd_filter_destroy(title_filter)
