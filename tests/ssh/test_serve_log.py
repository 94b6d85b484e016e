"""Refusals: kept by `serve`, explained afterwards by `python -m pyplue.ssh log`."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import pytest
from source_tree import ROOT

from pyplue.ssh.admin.log import moment
from pyplue.ssh.service import reasons, refusals
from pyplue.ssh.service.activity import Activity

from .forge import Client
from .serving import Team, serving, wait_until


def test_who_was_refused_is_told_afterwards_with_the_cure(team: Team):
    with serving(team) as server:
        Client(server, "mallory").ssh("x")
        Client(server, "bob").ssh("git-upload-pack 'alice/project'")
        Client(server, "bob").ssh("git-upload-pack 'bob/no\x1bthing'")
        Client(server).ssh("sftp-server")
        Client(server, user="root").ssh("x")
        server.wait_for_line("connection", verdict="refused: wrong_user")
        answer = team.run("log")
    assert answer.returncode == 0
    head, *rows = answer.stdout.partition("\n\n")[0].splitlines()
    assert head.split() == ["TIME", "ADDRESS", "USER", "REASON", "WHAT", "KEY"]
    assert [row.split()[1:4] for row in rows] == [
        ["127.0.0.1", "git", "unknown_key"],
        ["127.0.0.1", "bob", "denied"],
        ["127.0.0.1", "bob", "path"],
        ["127.0.0.1", "alice", "service"],
        ["127.0.0.1", "root", "wrong_user"],
    ]
    assert rows[0].endswith(team.fingerprint("mallory"))
    assert rows[1].split()[4:] == ["alice/project", team.fingerprint("bob")]
    assert "unknown_key: nobody has this key." in answer.stdout
    assert "Add it with key add USER" in answer.stdout
    assert "access grant REPOSITORY USER" in answer.stdout
    assert "\x1b" not in answer.stdout
    path = team.state / "refusals.jsonl"
    assert path.stat().st_mode & 0o777 == 0o600
    kept = path.read_text()
    for name in ("alice", "bob", "mallory"):
        assert team.forge.keys[name].line.split()[1] not in kept

    def found(*words: str) -> list[str]:
        return [row["reason"] for row in json.loads(team.ask("log", "--json", *words).stdout)]

    assert found() == ["unknown_key", "denied", "path", "service", "wrong_user"]
    assert found("--last", "2") == ["service", "wrong_user"]
    assert found("--reason", "denied") == ["denied"]
    assert found("--fingerprint", team.fingerprint("mallory")) == ["unknown_key"]
    assert found("--user", "bob") == ["denied", "path"]
    assert found("--user", "root") == ["wrong_user"]
    assert found("--user", "bob", "--repository", "alice/project.git") == ["denied"]
    assert found("--address", "127.0.0.1", "--since", "1h", "--last", "0") == found()
    assert found("--address", "192.0.2.1") == []
    assert found("--since", "2999-01-01") == []
    shown = json.loads(team.ask("log", "--json", "--reason", "denied").stdout)[0]
    assert shown["cure"].endswith("access grant REPOSITORY USER read|write")
    assert shown["event"] == "command_refused"


def test_nobody_was_refused(team: Team):
    assert team.ask("log").stdout == "nobody was refused\n"
    assert json.loads(team.ask("log", "--json").stdout) == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--since", "yesterday"], "'yesterday' is no time"),
        (["--since", "99999999999999h"], "is no time"),
        (["--last", "-1"], "is no number of refusals"),
        (["--reason", "bad_mood"], "no reason is called 'bad_mood'"),
        (["--colour"], "--colour"),
    ],
)
def test_wrong_words_are_one_line(team: Team, words: list[str], says: str):
    answer = team.ask("log", *words)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_file_that_cannot_be_read_is_one_line(team: Team):
    (team.state / "refusals.jsonl").mkdir()
    answer = team.ask("log")
    assert answer.returncode == 1
    assert "refusals.jsonl: Is a directory" in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_hostile_and_damaged_records_do_no_harm(team: Team):
    evil = "\x1b]0;owned\x07\u202eevil"
    records = [
        json.dumps({"time": 1e9, "event": evil, "reason": evil, "user": evil, "address": evil}),
        json.dumps({"time": 2e9, "event": ["x"], "reason": 7, "fingerprint": {"a": 1}}),
        json.dumps({"time": 2e9, "event": {}, "reason": [evil]}),
        json.dumps({"time": 1e300, "reason": "denied"}),
        json.dumps({"time": "now", "reason": "denied"}),
        '{"time": NaN, "reason": "denied"}',
        "[]",
        "\xff",
        '{"time": 1, "reason": "den',
        "x" * 200_000,
        json.dumps({"time": 2e9 + 1, "event": "auth_failed", "reason": "denied"}),
    ]
    (team.state / "refusals.jsonl").write_text("\n".join(records), encoding="latin-1")
    answer = team.ask("log")
    assert answer.returncode == 0, answer.stderr
    assert len(answer.stdout.partition("\n\n")[0].splitlines()) == 5
    assert not set(answer.stdout) & {"\x1b", "\x07", "\u202e"}
    assert [row["reason"] for row in json.loads(team.ask("log", "--json").stdout)] == [
        evil,
        7,
        [evil],
        "denied",
    ]


def test_files_follow_each_other_and_none_grows_for_ever(tmp_path: Path):
    path = tmp_path / "refusals.jsonl"
    keeper = refusals.RefusalFile(path, max_bytes=1000, files=3)
    for number in range(100):
        keeper.add({"time": number, "reason": "100% denied"})
    keeper.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == [
        "refusals.jsonl",
        "refusals.jsonl.1",
        "refusals.jsonl.2",
    ]
    assert all(file.stat().st_size <= 1000 for file in files)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    times = [record["time"] for record in refusals.read(path)]
    assert times == list(range(times[0], 100))
    assert len(times) > 40


def test_reading_while_files_follow_each_other_shows_none_twice(tmp_path: Path):
    path = tmp_path / "refusals.jsonl"
    keeper = refusals.RefusalFile(path, max_bytes=500, files=50)

    def add() -> None:
        for number in range(600):
            keeper.add({"time": number, "reason": "denied"})

    adding = threading.Thread(target=add)
    adding.start()
    while adding.is_alive():
        times = [record["time"] for record in refusals.read(path)]
        assert len(times) == len(set(times))
        assert times == sorted(times)
    adding.join()
    keeper.close()


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path):
    target = tmp_path / "precious"
    target.write_text("a poem\n")
    (tmp_path / "refusals.jsonl").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        refusals.RefusalFile(tmp_path / "refusals.jsonl").add({"time": 1})
    assert target.read_text() == "a poem\n"


def test_the_server_goes_on_when_refusals_cannot_be_kept(team: Team):
    (team.state / "refusals.jsonl").mkdir()
    with serving(team) as server:
        for _ in range(3):
            assert Client(server, "mallory").ssh("x").returncode == 255
        server.wait_for_line("server", "cannot keep refusals for later")
        assert Client(server).ssh("x").returncode == 128
        (team.state / "refusals.jsonl").rmdir()
        Client(server, "mallory").ssh("x")
        wait_until((team.state / "refusals.jsonl").is_file)
    assert len([line for line in server.lines("server") if "cannot keep" in line["message"]]) == 1


def test_every_reason_of_the_header_is_explained():
    header = (ROOT / "zig/ssh/include/plue_ssh.h").read_text()
    text = header[header.index(" *   listening ") : header.index("void plue_ssh_set_event_notify")]
    documented = {}
    for name, rest in re.findall(r"^ \*   (\w+) +reason: ((?:.*\n(?! \*   \w))*.*)", text, re.M):
        codes = re.sub(r"\([^)]*\)|;.*", " ", rest.replace("\n *", " "), flags=re.S)
        documented[name] = set(re.findall(r"\b[a-z_]+\b", codes.partition("or what")[0]))
    assert set(documented) == {"refused", "auth_failed", "command_refused", "disconnected"}
    documented["disconnected"] -= {"client", "stopping"}  # nobody's fault
    documented["request_refused"] = {"request"}
    explained = {event: set(known) for event, known in reasons._REASONS.items()}
    assert explained == documented


def test_lost_events_leave_no_trace_behind():
    """Connections whose end was dropped from the queue of events do not pile up."""
    activity = Activity()
    for number in range(200_000):
        activity.record({"event": "accepted", "connection": number, "time": 1})
    assert len(activity._clients) <= 1 << 17


def test_what_a_git_does_after_its_client_has_left_is_told_and_leaves_no_trace_behind():
    """In the order of the server: it says "disconnected" before it lets the channels go."""
    activity = Activity()
    push = {"service": "receive-pack", "principal": "alice", "repository": "alice/project"}
    events: list[dict[str, object]] = [
        {"event": "accepted"},
        {"event": "authenticated", "principal": "alice", "fingerprint": "SHA256:x"},
        {"event": "command", **push},
        {"event": "disconnected", "reason": "client", "duration_ms": 9},
        {"event": "abandoned", **push, "duration_ms": 8, "bytes_in": 7, "bytes_out": 6},
        {"event": "pushed", **push, "references": 2},
    ]
    lines = [activity.record({"connection": 1, "time": 1, **event}) for event in events]
    told = [(line["log"], line["user"], line["verdict"]) for line in lines if line]
    assert told == [
        ("connection", "alice", "ok"),
        ("command", "alice", "abandoned"),
        ("command", "alice", "ok"),
    ]
    assert lines[-1] and lines[-1]["updated"] == 2
    assert not activity._clients


def test_times_are_utc_whatever_the_zone_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(os.environ, "TZ", "America/New_York")
    assert moment("2026-02-27") == moment("2026-02-27T00:00:00Z") == 1772150400
    assert moment("2026-02-27T01:00+01:00") == 1772150400
