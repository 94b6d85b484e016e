"""plue_ssh beside OpenSSH's sshd for clients that are 50 and 170 ms of round trip away.

    ./dev bench ssh_far

In network namespaces, which need root, with packets held back by a program: see delayed_link.py.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent.parent)]

from report import Comparison, Goal, main, missing  # noqa: E402
from ssh.delayed_link import permitted  # noqa: E402
from ssh.forge import Forge  # noqa: E402
from ssh.test_network import FarClient, clone_and_push, far_servers  # noqa: E402

MB = 40
ROUND_TRIPS_MS = (50, 170)
WHAT = [f"{way} of {MB} MB at {ms} ms" for ms in ROUND_TRIPS_MS for way in ("clone", "push")]

GOALS = [Goal(what, at_least=1, than=("sshd",)) for what in WHAT]


def measure(quick: bool) -> list[Comparison]:
    names = ("plue_ssh", "sshd")
    found = [Comparison(what, "B/s", "higher", {name: [] for name in names}) for what in WHAT]
    if reason := permitted():
        missing(f"far clients: {reason}")
        return [Comparison(what, "B/s", "higher", {}) for what in WHAT]
    for _ in range(1 if quick else 3):
        for index, round_trip_ms in enumerate(ROUND_TRIPS_MS):
            # New repositories each time: git would find there what it pushes again.
            with tempfile.TemporaryDirectory() as directory:
                forge = Forge(Path(directory) / "forge")
                with far_servers(forge, round_trip_ms) as (link, servers):
                    for name, server in servers.items():
                        place = Path(directory) / name
                        place.mkdir()
                        client = FarClient(server, link, place)
                        taken = clone_and_push(client, f"alice/{name}", MB)
                        for comparison, seconds in zip(found[2 * index :], taken, strict=False):
                            comparison.samples[name].append(MB * 1e6 / seconds)
                        shutil.rmtree(place)
    return found


if __name__ == "__main__":
    main(measure, GOALS)
