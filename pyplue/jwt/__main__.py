"""python -m pyplue.jwt: sign, verify and look into tokens on the command line."""

from __future__ import annotations

import argparse
import getpass
import io
import json
import os
import re
import secrets
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyplue import jwt
from pyplue.jwt.base64url import base64url_decode
from pyplue.jwt.duration import seconds
from pyplue.jwt.key import RECOMMENDED_BYTES

_EPILOG = """\
The secret comes from the file named by --secret-file (one line feed at its end does not count),
else from the environment variable JWT_SECRET, else it is asked for on the terminal. It is never
an argument, where every user of the machine could read it.

examples:
  export JWT_SECRET="$(python -m pyplue.jwt secret)"
  python -m pyplue.jwt sign '{"sub":"ann"}' --expires-in "2 hours" > token
  python -m pyplue.jwt verify - < token
  python -m pyplue.jwt inspect "$(cat token)"

exit status: 0 done or valid; 1 the token, payload or secret is refused; 2 wrong usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.simplefilter("always", jwt.InsecureKeyLengthWarning)
    warnings.showwarning = _show_warning
    try:
        print(options.command(options))
    except (jwt.PyJWTError, _RefusedError) as error:
        # Such as the name of an extension that a token wants to be critical.
        print(f"pyplue.jwt: {_without_controls(str(error))}", file=sys.stderr)
        return 1
    return 0


class _RefusedError(Exception):
    """Something that the user gave cannot be used; the text says what and why."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pyplue.jwt",
        description="HS256 JSON Web Tokens: sign, verify, look inside, make a secret.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    sign = commands.add_parser("sign", allow_abbrev=False, help="sign claims, print the token")
    sign.set_defaults(command=_sign)
    sign.add_argument("claims", help="a JSON object; - reads it from standard input")
    sign.add_argument(
        "--expires-in",
        metavar="TIME",
        help="set iat to now and exp to this much later, for example 7d, '2 hours' or 30m;"
        " without it the claims are signed as they are",
    )
    sign.add_argument("--kid", help="name the key in the token's header")

    verify = commands.add_parser(
        "verify", allow_abbrev=False, help="print the claims of a valid token"
    )
    verify.set_defaults(command=_verify)
    verify.add_argument("--audience", help="what the claim aud must be or contain")
    verify.add_argument("--issuer", help="what the claim iss must be")
    verify.add_argument("--subject", help="what the claim sub must be")
    verify.add_argument(
        "--leeway", metavar="TIME", default="0s", help="tolerance for exp, nbf and iat: 30s"
    )

    inspect = commands.add_parser(
        "inspect", allow_abbrev=False, help="print header and claims WITHOUT verifying them"
    )
    inspect.set_defaults(command=_inspect)
    for command in (verify, inspect):
        command.add_argument("token", help="the token; - reads it from standard input")
    for command in (sign, verify):
        command.add_argument("--secret-file", type=Path, metavar="FILE", help="holds the secret")

    secret = commands.add_parser("secret", allow_abbrev=False, help="print a new random secret")
    secret.set_defaults(command=_secret)
    secret.add_argument(
        "--bytes",
        type=int,
        default=RECOMMENDED_BYTES,
        metavar="N",
        help=f"of randomness, written as base64url; at least {RECOMMENDED_BYTES}, the default",
    )
    return parser


def _sign(options: argparse.Namespace) -> str:
    try:
        claims: Any = json.loads(_text(options.claims))
    except (ValueError, RecursionError) as error:
        raise _RefusedError(f"the claims are no JSON: {error}") from error
    if not isinstance(claims, dict):
        raise _RefusedError("the claims must be a JSON object")
    if options.expires_in is not None:
        now = int(time.time())
        claims.update(iat=now, exp=now + _span(options.expires_in))
    headers = None if options.kid is None else {"kid": options.kid}
    try:
        return jwt.encode(claims, _read_secret(options), headers=headers)
    except (TypeError, ValueError) as error:
        raise _RefusedError(str(error)) from error


def _verify(options: argparse.Namespace) -> str:
    claims = jwt.decode(
        _text(options.token),
        _read_secret(options),
        algorithms=["HS256"],
        audience=options.audience,
        issuer=options.issuer,
        subject=options.subject,
        leeway=_span(options.leeway),
    )
    return _json(claims)


def _inspect(options: argparse.Namespace) -> str:
    token = _text(options.token)
    header = jwt.get_unverified_header(token)
    payload = base64url_decode(token.split(".")[1])
    try:
        claims = _json(json.loads(payload.decode()))
    except (ValueError, RecursionError):
        claims = f"(not JSON) {payload!r}"
    print("UNVERIFIED: anybody can write such a token.", file=sys.stderr)
    return f"header  {_json(header)}\npayload {claims}"


def _secret(options: argparse.Namespace) -> str:
    if options.bytes < RECOMMENDED_BYTES:
        raise _RefusedError(f"a secret needs {RECOMMENDED_BYTES} bytes or more (RFC 7518, 3.2)")
    return secrets.token_urlsafe(options.bytes)


def _read_secret(options: argparse.Namespace) -> bytes:
    if options.secret_file is not None:
        try:
            return _without_line_end(options.secret_file.read_bytes())
        except OSError as error:
            raise _RefusedError(f"cannot read the secret: {error}") from error
    from_environment = os.environb.get(b"JWT_SECRET")
    if from_environment is not None:
        return from_environment
    if sys.stdin.isatty():
        return getpass.getpass("secret: ").encode()
    raise _RefusedError("no secret: set JWT_SECRET or give --secret-file")


def _text(argument: str) -> str:
    given = sys.stdin.buffer.read() if argument == "-" else os.fsencode(argument)
    try:
        return given.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _RefusedError(f"the input is not UTF-8: {error}") from error


def _without_line_end(secret: bytes) -> bytes:
    return secret[:-1].removesuffix(b"\r") if secret.endswith(b"\n") else secret


def _span(text: str) -> int:
    try:
        return seconds(text)
    except ValueError as error:
        raise _RefusedError(str(error)) from error


def _json(value: object) -> str:
    # JSON leaves some control characters as they are.
    return _without_controls(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _without_controls(text: str) -> str:
    """The text with control characters as JSON's escapes: a terminal must not obey a token."""
    return re.sub("[\0-\x1f\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"pyplue.jwt: warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
