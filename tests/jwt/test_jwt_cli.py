"""python -m pyplue.jwt: sign, verify, inspect, secret."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pyplue import jwt
from pyplue.jwt.base64url import base64url_decode

SECRET = "a secret of more than 32 bytes, for real"


def run(
    *arguments: str, secret: str | None = SECRET, stdin: str | bytes = ""
) -> subprocess.CompletedProcess[str]:
    """Runs the command with a secret in its environment, or without one."""
    environment = {name: value for name, value in os.environ.items() if name != "JWT_SECRET"}
    if secret is not None:
        environment["JWT_SECRET"] = secret
    done = subprocess.run(
        [sys.executable, "-m", "pyplue.jwt", *arguments],
        env=environment,
        input=stdin if isinstance(stdin, bytes) else stdin.encode(),
        capture_output=True,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def signed(*arguments: str, stdin: str = "") -> str:
    done = run("sign", *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_sign_signs_the_claims_as_they_are() -> None:
    token = signed('{"sub":"ann","admin":false}')
    assert jwt.decode(token, jwt.Key(SECRET)) == {"sub": "ann", "admin": False}
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}


def test_sign_sets_times_and_names_the_key() -> None:
    token = signed("-", "--expires-in", "2 hours", "--kid", "2026", stdin='{"sub":"ann","exp":1}')
    claims = jwt.decode(token, jwt.Key(SECRET))
    assert abs(claims["iat"] - time.time()) < 60
    assert claims["exp"] - claims["iat"] == 7200
    assert jwt.get_unverified_header(token)["kid"] == "2026"


def test_verify_prints_the_claims() -> None:
    token = signed('{"sub":"änn","iss":"i","aud":["a","b"]}')
    for text, stdin in ((token, ""), ("-", token + "\n")):
        done = run(
            "verify", text, "--audience", "b", "--issuer", "i", "--subject", "änn", stdin=stdin
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == '{"sub":"änn","iss":"i","aud":["a","b"]}\n'


@pytest.mark.parametrize(
    ("claims", "arguments", "why"),
    [
        ('{"exp":1}', [], "expired"),
        ('{"nbf":99999999999}', [], "not yet valid"),
        ('{"aud":"a"}', ["--audience", "b"], "Audience"),
        ('{"aud":"a"}', [], "audience"),
        ('{"iss":"a"}', ["--issuer", "b"], "issuer"),
        ('{"sub":"a"}', ["--subject", "b"], "subject"),
        ('{"iss":"a"}', ["--subject", "b"], "sub"),
    ],
)
def test_verify_refuses_and_says_why(claims: str, arguments: list[str], why: str) -> None:
    done = run("verify", signed(claims), *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr
    assert done.stderr.startswith("pyplue.jwt: ")
    assert "Traceback" not in done.stderr


def test_leeway() -> None:
    token = signed(json.dumps({"exp": int(time.time()) - 5}))
    assert run("verify", token).returncode == 1
    assert run("verify", token, "--leeway", "1 hour").returncode == 0


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "ssh-rsa", '{"a":1}'])
@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_what_is_no_token(command: str, token: str) -> None:
    done = run(command, token)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_forged_token_is_refused_but_inspected() -> None:
    token = jwt.encode({"sub": "ann"}, "another secret of 32 bytes or more", headers={"kid": "k"})
    done = run("verify", token)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Signature verification failed" in done.stderr
    done = run("inspect", token, secret=None)
    assert done.returncode == 0
    assert done.stdout == ('header  {"alg":"HS256","kid":"k","typ":"JWT"}\npayload {"sub":"ann"}\n')
    assert "UNVERIFIED" in done.stderr


def test_inspect_shows_a_payload_that_is_not_json() -> None:
    done = run("inspect", jwt.PyJWS().encode(b"\x1b[31m\xff", SECRET))
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert "not JSON" in done.stdout


def test_inspect_sends_no_control_characters_to_the_terminal() -> None:
    done = run("inspect", jwt.encode({"x": "\x1b[31m\x9b"}, SECRET, headers={"y": "\x1b]0;\x07"}))
    assert done.returncode == 0
    assert not any(character in done.stdout for character in "\x1b\x07\x9b")


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_refusal_sends_no_control_characters_of_the_token(command: str) -> None:
    name = "\x1b]0;title\x07\x9b31m\x7f\r\nforged line"
    header = {"crit": [name], name: 1}
    done = run(command, jwt.PyJWS().encode(b"{}", SECRET, headers=header))
    assert (done.returncode, done.stdout) == (1, "")
    assert "\\u001b]0;title" in done.stderr
    assert not any(character in done.stderr for character in "\x1b\x07\x9b\x7f\r")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ("", "JSON"),
        ("[]", "object"),
        ('{"sub":5}', "Subject"),
        ('{"exp":"x"}', "exp"),
        ('{"x":NaN}', "JSON"),
        ("[" * 100000, "JSON"),
        ('{"x":"\udcff"}', "UTF-8"),
    ],
)
def test_claims_that_are_not_signed(claims: str, why: str) -> None:
    done = run("sign", "-", stdin=claims.encode(errors="surrogateescape"))
    assert (done.returncode, done.stdout) == (1, "")
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_the_secret_comes_from_a_file_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for content in (b"the secret in a file, of 32 bytes", b"the secret in a file, of 32 bytes\n"):
        file.write_bytes(content)
        done = run("sign", '{"a":1}', "--secret-file", str(file))
        assert jwt.decode(done.stdout.strip(), jwt.Key("the secret in a file, of 32 bytes"))
    done = run("sign", "{}", "--secret-file", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "cannot read the secret" in done.stderr


@pytest.mark.parametrize(
    ("secret", "why"),
    [(None, "JWT_SECRET"), ("", "empty"), ("ssh-rsa AAAA", "asymmetric"), ("short", "warning")],
)
def test_secrets_that_are_missing_or_bad(secret: str | None, why: str) -> None:
    done = run("sign", "{}", secret=secret)
    assert done.returncode == (0 if secret == "short" else 1)
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_the_secret_is_asked_for_on_a_terminal() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "JWT_SECRET"}
    child, terminal = pty.fork()
    if child == 0:
        os.execve(sys.executable, [sys.executable, "-m", "pyplue.jwt", "sign", "{}"], environment)
    shown = b""
    while b"secret: " not in shown:
        shown += os.read(terminal, 1024)
    os.write(terminal, SECRET.encode() + b"\n")
    try:
        while chunk := os.read(terminal, 1024):
            shown += chunk
    except OSError:  # Linux ends a terminal with EIO
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    text = shown.decode()
    assert SECRET not in text
    assert jwt.decode(text.split()[-1], jwt.Key(SECRET)) == {}


def test_secret_makes_new_secrets_of_at_least_32_bytes() -> None:
    first, second = run("secret").stdout.strip(), run("secret").stdout.strip()
    assert first != second
    assert len(base64url_decode(first)) == 32
    assert len(base64url_decode(run("secret", "--bytes", "64").stdout.strip())) == 64
    done = run("secret", "--bytes", "31")
    assert (done.returncode, done.stdout) == (1, "")


def test_help_and_wrong_usage() -> None:
    done = run("--help")
    assert done.returncode == 0
    for word in (
        "sign",
        "verify",
        "inspect",
        "secret",
        "JWT_SECRET",
        "--secret-file",
        "exit status",
    ):
        assert word in done.stdout
    for wrong in (
        [],
        ["x"],
        ["sign"],
        ["verify", "a", "--secret", "x"],
        ["secret", "--bytes", "x"],
    ):
        assert run(*wrong).returncode == 2
