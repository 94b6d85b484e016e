"""`python -m pyplue.ratelimit`: how fast the limiter is here, and what is in a shared file."""

from __future__ import annotations

import argparse
import sys
import time

from pyplue.ratelimit import RateLimiter, RateLimitError

_EPILOG = """\
examples:
  python -m pyplue.ratelimit replay --limit 100 --window 1m < keys.txt
  python -m pyplue.ratelimit peek --shared /run/app/limits --limit 100 --window 1m 192.0.2.1
  python -m pyplue.ratelimit speed

exit status: 0 done; 1 the limiter cannot be made, or a peeked key is over its limit; 2 wrong usage
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (RateLimitError, TypeError) as error:
        print(f"pyplue.ratelimit: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyplue.ratelimit",
        description="Rate limits in memory: try a rule, look into a shared file, measure.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    replay = commands.add_parser("replay", help="check the keys on stdin, one a line, at once")
    peek = commands.add_parser("peek", help="say what is left for a key; counts nothing")
    speed = commands.add_parser("speed", help="measure checks a second on this machine")
    for command in (replay, peek):
        command.add_argument("--limit", type=int, required=True, help="requests per window")
        command.add_argument("--window", required=True, help="for example 15m or 1.5h")
        command.add_argument("--algorithm", default="sliding-window", help="see RateLimiter")
        command.add_argument("--shared", metavar="FILE", help="a table shared by processes")
        command.add_argument("--max-keys", type=int, default=1_000_000, metavar="N")
    peek.add_argument("key")
    replay.set_defaults(command=_replay)
    peek.set_defaults(command=_peek)
    speed.set_defaults(command=_speed)
    return parser


def _limiter(options: argparse.Namespace) -> RateLimiter:
    return RateLimiter(
        options.limit,
        options.window,
        algorithm=options.algorithm,
        shared=options.shared,
        max_keys=options.max_keys,
    )


def _replay(options: argparse.Namespace) -> int:
    limiter = _limiter(options)
    passed = refused = 0
    for line in sys.stdin.buffer:
        if limiter.check(line.rstrip(b"\r\n")):
            passed += 1
        else:
            refused += 1
    print(f"{passed} passed, {refused} refused, {len(limiter)} keys, {limiter.memory} bytes")
    return 0


def _peek(options: argparse.Namespace) -> int:
    decision = _limiter(options).peek(options.key)
    print(
        f"{'passes' if decision.allowed else 'over the limit'}: {decision.remaining} of "
        f"{decision.limit} left, full again in {decision.reset_after:g} s"
    )
    return 0 if decision.allowed else 1


def _speed(options: argparse.Namespace) -> int:
    limiter = RateLimiter(2**32 - 1, "1h")
    count = 200_000
    start = time.perf_counter()
    for _ in range(count):
        limiter.check("192.0.2.1")
    single = count / (time.perf_counter() - start)
    keys = [f"user:{i}" for i in range(1000)]
    start = time.perf_counter()
    for _ in range(count // 1000):
        limiter.check_many(keys)
    batch = count / (time.perf_counter() - start)
    print(f"{single:,.0f} checks/s one by one, {batch:,.0f} checks/s in batches of 1000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
