"""`python -m pyplue.ssh`: finds the command, runs it, prints what it says."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence

from pyplue.errors import PlueError
from pyplue.ssh import libssh_version, version
from pyplue.ssh.admin import access, doctor, host_key, keys, log, repositories, serve, users
from pyplue.ssh.admin.parser import PROGRAM, Answer, Parser, UsageError, add_shared_options
from pyplue.ssh.admin.text import plain
from pyplue.ssh.errors import SshConfigError

# Each has a function add_commands(commands).
COMMANDS = (serve, users, keys, repositories, access, host_key, doctor, log)

_EPILOG = """\
a first team:
  python -m pyplue.ssh user add alice
  python -m pyplue.ssh key add alice ~/.ssh/id_ed25519.pub
  python -m pyplue.ssh repo create alice/project
  python -m pyplue.ssh user add bob
  python -m pyplue.ssh key add bob bob.pub
  python -m pyplue.ssh access grant alice/project bob read
  python -m pyplue.ssh serve --host 0.0.0.0

exit status: 0 done; 1 refused or failed; 2 wrong usage. Errors are one line on standard error.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        answer = options.run(options)
        return answer if isinstance(answer, int) else _print(answer, options.json)
    except (UsageError, SshConfigError) as error:
        return _fail(str(error), 2)
    except PlueError as error:
        return _fail(str(error), 1)
    except ModuleNotFoundError as error:
        return _fail(f"{error.name} is not installed: pip install 'pyplue[ssh]'", 1)
    except BrokenPipeError:
        # Whoever read our output has seen enough; nor may Python complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(error.strerror or str(error), 1)
    except KeyboardInterrupt:
        return 130


def _parser() -> Parser:
    parser = Parser(
        prog="python -m pyplue.ssh",
        description="A Git server over SSH for a team: its users, keys and repositories.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_shared_options(parser)
    about = f"pyplue.ssh {version()} on libssh {libssh_version()}"
    parser.add_argument("--version", action="version", version=about)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add_commands(commands)
    return parser


def _print(answer: Answer, as_json: bool) -> int:
    if as_json:
        print(json.dumps(answer.document, indent=2, ensure_ascii=True))
    elif answer.text:
        print(answer.text)
    sys.stdout.flush()
    return _fail(answer.error, 1) if answer.error else 0


def _fail(message: str, status: int) -> int:
    print(f"{PROGRAM}: {plain(message)}", file=sys.stderr)
    return status
