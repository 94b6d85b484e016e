"""A2 of the contract: session.json, its fields, its sequence and its races."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from vt.harness import Home, alive, eventually


def test_a2_fields_of_a_running_session(home: Home) -> None:
    terminal = home.terminal("sh", "-c", "echo pid=$$; exec cat", size=(91, 27))
    shown = terminal.expect(b"\n")
    info = terminal.session.wait().info
    assert info["id"] == terminal.session.id
    assert info["name"] == "sh (~/work)"
    assert info["command"] == ["sh", "-c", "echo pid=$$; exec cat"]
    assert info["workingDir"] == str(home.work)
    assert info["status"] == "running"
    assert info["pid"] == int(shown.split(b"pid=")[1].split()[0]), (
        "the child's, not the forwarder's"
    )
    assert (info["initialCols"], info["initialRows"]) == (91, 27)
    assert info["lastClearOffset"] == 0
    assert info["version"]
    assert info.get("attachedViaVT", False) is False
    assert "exitCode" not in info
    assert not any(key.startswith("git") for key in info)
    started = datetime.datetime.fromisoformat(info["startedAt"].replace("Z", "+00:00"))
    assert info["startedAt"].endswith("Z")
    age = datetime.datetime.now(datetime.timezone.utc) - started
    assert datetime.timedelta(0) <= age < datetime.timedelta(seconds=20)
    terminal.send(b"\x04")
    terminal.wait()
    ended = terminal.session.info
    assert ended["status"] == "exited"
    assert ended["exitCode"] == 0
    same = set(info) - {"status", "lastClearOffset"}
    assert {key: ended[key] for key in same} == {key: info[key] for key in same}


def test_a2_format_is_two_spaces_and_a_newline(home: Home) -> None:
    home.run("true")
    text = (home.last.path / "session.json").read_text("utf-8")
    assert text == json.dumps(home.last.info, indent=2, ensure_ascii=False) + "\n"


def test_a2_the_size_without_a_terminal_is_120x40(home: Home) -> None:
    home.run("true")
    assert (home.last.info["initialCols"], home.last.info["initialRows"]) == (120, 40)


def test_a2_a_nested_session_of_unknown_size_leaves_the_size_out(home: Home) -> None:
    home.run("true", env={"VIBETUNNEL_SESSION_ID": "outer"})
    info = home.last.info
    assert "initialCols" not in info
    assert "initialRows" not in info
    assert info["attachedViaVT"] is True
    header = home.last.recording().header
    assert (header["width"], header["height"]) == (80, 24)


def test_a2_what_is_not_utf8_becomes_replacement_characters(home: Home) -> None:
    directory = os.fsencode(home.work) + b"/d\xff"
    os.mkdir(directory)
    home.run("printf", b"a\xffb", cwd=directory)
    assert home.last.info["command"] == ["printf", "a\ufffdb"]
    assert home.last.info["workingDir"].endswith("d\ufffd")


@pytest.mark.parametrize(
    ("script", "code"),
    [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -TERM $$", 143), ("kill -9 $$", 137)],
)
def test_a2_one_exit_code_everywhere(home: Home, script: str, code: int) -> None:
    assert home.run("sh", "-c", script).code == code
    assert home.last.info["exitCode"] == code
    assert home.last.recording().exit == (code, home.last.id)


def test_a2_statuses_in_order_and_never_half_a_file(home: Home) -> None:
    seen: list[str] = []
    for _ in range(20):
        process = home.start("sleep", "0.03")
        statuses: list[str] = []
        path = process.session.path / "session.json"
        while process.popen.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                status = json.loads(path.read_bytes())["status"]
                if not statuses or statuses[-1] != status:
                    statuses.append(status)
        statuses.append(process.session.info["status"])
        order = ["starting", "running", "exited"]
        ranks = [order.index(status) for status in statuses]
        assert ranks == sorted(ranks)
        seen += statuses
        assert not [name for name in os.listdir(process.session.path) if "tmp" in name]
    assert {"running", "exited"} <= set(seen)


def test_a2_running_means_connectable(home: Home) -> None:
    for _ in range(30):
        process = home.start("sleep", "60")
        while process.session.status() != "running":
            pass
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(process.session.path / "ipc.sock"))
        process.signal(signal.SIGTERM)
    assert [process.wait().code for process in home.running] == [143] * 30  # type: ignore[union-attr]


def test_a2_exited_is_on_disk_before_the_pid_is_gone(home: Home) -> None:
    """A listing that finds a running session with a dead pid writes exit code 1 into it."""
    for code in range(30):
        process = home.start("sh", "-c", f"sleep 0.02; exit {code}")
        pid = process.session.wait().info["pid"]
        while alive(pid):
            pass
        assert process.session.info["status"] == "exited"
        assert process.wait().code == process.session.info["exitCode"] == code


def test_a2_later_updates_keep_what_others_wrote(home: Home) -> None:
    process = home.start("cat")
    session = process.session.wait()
    path = session.path / "session.json"
    changed: dict[str, Any] = {
        **session.info,
        "name": "renamed ü",
        "lastClearOffset": 12345,
        "gitRepoPath": "/from/the/server",
        "unknown": {"deep": [1, 2.5, None, "é"], "big": 9007199254740993},
    }
    staged = session.path / "session.json.tmp"
    staged.write_text(json.dumps(changed), "utf-8")
    staged.rename(path)
    with session.client() as client:
        client.control(cmd="kill", signal="SIGKILL")
        assert process.wait().code == 137
    ended = session.info
    assert ended.pop("exitCode") == 137
    assert ended == {**changed, "status": "exited"}


def test_a2_the_servers_temporary_file_is_not_ours(home: Home) -> None:
    process = home.start("cat")
    session = process.session.wait()
    (session.path / "session.json.tmp").write_text("the server is writing this")
    with session.client() as client:
        client.control(cmd="update-title", title="new")
        eventually(lambda: session.info["name"] == "new")
        client.control(cmd="kill")
        process.wait()
    assert (session.path / "session.json.tmp").read_text() == "the server is writing this"


@pytest.mark.parametrize(
    "content", [b"", b"not json", b"[1]", b'{"status":', b"\xff\xfe", b"[" * 9999]
)
def test_a2_a_session_json_broken_while_it_runs(home: Home, content: bytes) -> None:
    process = home.start("cat")
    session = process.session.wait()
    (session.path / "session.json").write_bytes(content)
    with session.client() as client:
        client.control(cmd="kill")
        assert process.wait().code == 143
    info = session.info
    assert info["id"] == session.id
    assert info["status"] == "exited"
    assert info["exitCode"] == 143


def test_a2_a_session_json_over_1_mib_is_not_read(home: Home) -> None:
    process = home.start("cat")
    session = process.session.wait()
    (session.path / "session.json").write_text(json.dumps({**session.info, "x": "y" * (1 << 20)}))
    with session.client() as client:
        client.control(cmd="kill")
        assert process.wait().code == 143
    assert session.info["status"] == "exited"


# ---- git ----------------------------------------------------------------------------------------


def git(where: Path, *argv: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    subprocess.run(
        ["git", *identity, *argv], cwd=where, check=True, capture_output=True, env=environment
    )


def repository(path: Path) -> Path:
    path.mkdir()
    git(path, "init", "-q", "-b", "trunk")
    (path / "file").write_text("1\n")
    git(path, "add", ".")
    git(path, "commit", "-qm", "one")
    return path


def git_fields(home: Home, where: Path) -> dict[str, Any]:
    process = home.start("cat", cwd=where)
    session = process.session.wait()
    eventually(lambda: "gitHasChanges" in session.info, what="git fields")
    info = session.info
    process.signal(signal.SIGTERM)
    process.wait()
    assert session.info["gitBranch"] == info["gitBranch"], "and kept at the end"
    return {key: value for key, value in info.items() if key.startswith("git")}


def test_a2_git_fields_of_a_repository(home: Home) -> None:
    path = repository(home.path / "repo")
    assert git_fields(home, path) == {
        "gitRepoPath": str(path),
        "gitBranch": "trunk",
        "gitMainRepoPath": str(path),
        "gitHasChanges": False,
        "gitIsWorktree": False,
    }


def test_a2_git_fields_of_changes_and_an_upstream(home: Home) -> None:
    upstream = repository(home.path / "up")
    git(home.path, "clone", "-q", str(upstream), "down")
    path = home.path / "down"
    for text in ("2\n", "3\n"):
        (path / "file").write_text(text)
        git(path, "commit", "-qam", "more")
    (upstream / "other").write_text("x")
    git(upstream, "add", ".")
    git(upstream, "commit", "-qm", "theirs")
    git(path, "fetch", "-q")
    (path / "file").write_text("4\n")
    subdirectory = path / "sub"
    subdirectory.mkdir()
    found = git_fields(home, subdirectory)
    assert (found["gitAheadCount"], found["gitBehindCount"]) == (2, 1)
    assert found["gitHasChanges"] is True
    assert found["gitRepoPath"] == str(path)


def test_a2_git_fields_of_a_worktree(home: Home) -> None:
    path = repository(home.path / "repo")
    git(path, "worktree", "add", "-q", "-b", "side", str(home.path / "tree"))
    found = git_fields(home, home.path / "tree")
    assert found["gitIsWorktree"] is True
    assert found["gitBranch"] == "side"
    assert found["gitMainRepoPath"] == str(path)
    assert found["gitRepoPath"] == str(home.path / "tree")


def test_a2_a_git_that_hangs_holds_nothing_up(home: Home) -> None:
    path = repository(home.path / "repo")
    fake = home.path / "bin"
    fake.mkdir()
    (fake / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (fake / "git").chmod(0o755)
    home.env["PATH"] = f"{fake}:{home.env['PATH']}"
    start = time.monotonic()
    assert home.run("printf", "done", cwd=path).code == 0
    assert time.monotonic() - start < 3
    assert home.last.info["status"] == "exited"
    assert home.last.recording().text() == "done"


def test_a2_a_detached_head_has_no_branch(home: Home) -> None:
    path = repository(home.path / "repo")
    git(path, "checkout", "-q", "--detach")
    process = home.start("cat", cwd=path)
    session = process.session.wait()
    eventually(lambda: "gitHasChanges" in session.info, what="git fields")
    assert session.info.get("gitBranch", "") == ""
    assert session.info["gitRepoPath"] == str(path)


def test_a2_a_repository_without_a_commit(home: Home) -> None:
    path = home.path / "empty"
    path.mkdir()
    git(path, "init", "-q", "-b", "trunk")
    process = home.start("cat", cwd=path)
    session = process.session.wait()
    eventually(lambda: session.info.get("gitRepoPath") == str(path), what="git fields")
    process.signal(signal.SIGTERM)
    assert process.wait().code == 143
