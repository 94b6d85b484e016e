"""`python -m pyplue.vt`: terminal sessions in a shell."""

from __future__ import annotations

import argparse
import os
import sys

from pyplue.vt import commands
from pyplue.vt.attach import DETACH_KEY
from pyplue.vt.errors import VtError

_EPILOG = """\
A session is named by its id, or by the beginning of it that no other id has. Sessions live in
VIBETUNNEL_CONTROL_DIR, else in ~/.vibetunnel/control; `vibetunnel-fwd` starts them.

examples:
  vibetunnel-fwd --detach --session-id build -- make -j8
  python -m pyplue.vt list
  python -m pyplue.vt tail -f build | grep --line-buffered error
  python -m pyplue.vt send build --key ctrl+c
  python -m pyplue.vt attach build            # ctrl+\\ leaves it
  python -m pyplue.vt export build -o build.txt
  python -m pyplue.vt export build -o build.svg --at 12.5

exit status: 0 done; 1 not possible, a line on standard error says why; 2 wrong usage
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        status = int(options.command(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # The reader has seen enough; nothing is to be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (VtError, OSError, ValueError) as error:
        print(f"pyplue.vt: {commands.one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyplue.vt",
        description="Lists, watches, drives and exports recorded terminal sessions.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--control-dir", metavar="DIR", help="where the sessions are")
    commands_of = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: object, text: str, session: bool = True) -> _Command:
        made = commands_of.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        made.set_defaults(command=function)
        if session:
            made.add_argument("session", metavar="ID", help="the session's id, or how it begins")
        return made

    listing = command("list", commands.list_sessions, "show all sessions", session=False)
    listing.add_argument("--json", action="store_true", help="all that is known, as JSON")

    tail = command("tail", commands.tail, "print the last lines of output, without colours")
    tail.add_argument("-n", "--lines", type=int, default=10, metavar="N", help="how many (10)")
    tail.add_argument("-f", "--follow", action="store_true", help="and what comes, to the end")

    send = command("send", commands.send, "type into a session")
    send.add_argument("text", nargs="?", default="", help="what to type; - is standard input")
    send.add_argument(
        "-k", "--key", action="append", default=[], metavar="KEY",
        help="then this key: enter, ctrl+c, arrow_up, f1, ...; may be given again",
    )  # fmt: skip

    attach = command("attach", commands.attach, "show a session here and type into it")
    attach.add_argument("--detach-key", default=DETACH_KEY, metavar="KEY", help=f"({DETACH_KEY})")
    attach.add_argument("-r", "--read-only", action="store_true", help="only watch")

    kill = command("kill", commands.kill, "send a signal to a session's program")
    kill.add_argument("-s", "--signal", default="TERM", help="its name or number (TERM)")
    kill.add_argument("-w", "--wait", type=float, metavar="SECONDS", help="wait for the end")

    rename = command("rename", commands.rename, "give a session another name")
    rename.add_argument("name")

    prune = command("prune", commands.prune, "remove ended sessions and their recordings", False)
    prune.add_argument("sessions", nargs="*", metavar="ID", help="only these (all that have ended)")
    prune.add_argument("-n", "--dry-run", action="store_true", help="only say which")

    export = command("export", commands.export, "turn a recording into another format", False)
    export.add_argument("recording", metavar="ID|FILE", help="a session, or an asciicast v2 file")
    export.add_argument("-o", "--output", metavar="FILE", help="where to (standard output)")
    export.add_argument(
        "-f", "--format", choices=commands.FORMATS,
        help="text, asciicast v3, a picture of the screen (the output's suffix, else text)",
    )  # fmt: skip
    export.add_argument("--at", type=float, metavar="SECONDS", help="svg: this moment (the end)")
    return parser


_Command = argparse.ArgumentParser


if __name__ == "__main__":
    sys.exit(main())
