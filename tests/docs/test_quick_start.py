"""The eleven lines for a team in pyplue/ssh/README.md, run as they stand there."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from source_tree import ROOT

PORT = "2222"


def quick_start() -> str:
    text = (ROOT / "pyplue" / "ssh" / "README.md").read_text()
    found = re.search(r"^## A team in eleven lines\n.*?^```sh\n(.*?)^```", text, re.M | re.S)
    assert found, "the README has no quick start"
    return found[1]


def own_network() -> list[str]:
    """A command before the shell that gives it a loopback of its own, where every port is free."""
    here = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    try:
        done = subprocess.run([*here, "true"], capture_output=True)
    except FileNotFoundError:
        return []
    return here if done.returncode == 0 else []


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def test_the_eleven_lines_for_a_team_do_what_they_say(tmp_path: Path, need: Callable[[str], str]):
    lines = quick_start()
    assert len(lines.splitlines()) == 11
    network = own_network()
    if not network:  # the port may be somebody else's
        port = free_port()
        lines = re.sub("serve|host-key show", rf"\g<0> --port {port}", lines.replace(PORT, port))
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    for key in (home / ".ssh" / "id_ed25519", tmp_path / "bob"):
        words = [need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(words, check=True)
    # ssh takes a home from the system, not from HOME.
    ssh = f"ssh -F none -i {home}/.ssh/id_ed25519 -o UserKnownHostsFile={home}/.ssh/known_hosts"
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "PLUE_", "XDG_"))},
        "HOME": str(home),
        "GIT_SSH_COMMAND": f"{ssh} -o StrictHostKeyChecking=yes -o BatchMode=yes",
        **{f"GIT_{who}_NAME": "Alice" for who in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{who}_EMAIL": "alice@example.org" for who in ("AUTHOR", "COMMITTER")},
    }
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "First"]):
        subprocess.run(["git", *words], cwd=tmp_path, env=environment, check=True)
    with subprocess.Popen(
        [*network, "sh", "-ec", lines],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            # Its end, not that of its output, which the server in the background holds.
            assert wait(shell) == 0, stop(shell)
        finally:
            said = stop(shell)
    assert "nobody was refused" in said
    assert "git clone ssh://git@127.0.0.1:" in said
    log = subprocess.check_output(["git", "log", "--format=%s"], cwd=tmp_path / "project")
    assert log == b"First\n"


def wait(shell: subprocess.Popen[str]) -> int:
    deadline = time.monotonic() + 60
    while (status := shell.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return -1 if status is None else status


def stop(shell: subprocess.Popen[str]) -> str:
    """Ends the server and returns everything that was said."""
    if shell.stdout is None or shell.stdout.closed:
        return ""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(shell.pid, signal.SIGTERM)
    return shell.stdout.read()
