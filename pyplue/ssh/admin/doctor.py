"""python -m pyplue.ssh doctor"""

from __future__ import annotations

import argparse
from dataclasses import asdict

from pyplue.ssh.admin.parser import Answer, Commands, add_command
from pyplue.ssh.admin.serve import add_server_options, settings_of
from pyplue.ssh.admin.state import state_of
from pyplue.ssh.admin.text import plain
from pyplue.ssh.doctor.checks import Check, Place, all_checks


def add_commands(commands: Commands) -> None:
    doctor = add_command(
        commands,
        "doctor",
        _doctor,
        "check whether the server can work, and how safe it is",
        "Checks libssh, algorithms, host keys, repositories, git, database and port; changes\n"
        "nothing. Give it the options of serve.\n"
        "Exit status 1 when something is broken; warnings do not count.",
    )
    add_server_options(doctor)


def _doctor(options: argparse.Namespace) -> Answer:
    state = state_of(options)
    place = Place(
        state, options.host, options.port, options.host_key or state.host_key, settings_of(options)
    )
    checks = list(all_checks(place))
    broken = sum(check.status == "broken" for check in checks)
    document = {"healthy": not broken, "checks": [asdict(check) for check in checks]}
    error = f"{broken} of {len(checks)} checks found something broken: see above" if broken else ""
    return Answer(document, "\n".join(map(_line, checks)), error)


def _line(check: Check) -> str:
    line = f"{check.status:8} {check.area:13} {plain(check.text)}"
    return f"{line}\n{'':23}{plain(check.cure)}" if check.cure else line
