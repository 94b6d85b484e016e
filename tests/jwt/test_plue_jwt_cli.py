"""plue-jwt, the command line in Zig: it does what `python -m pyplue.jwt` does, without Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

SECRET = "a secret of at least thirty-two bytes"
CLAIMS = '{"sub":"ann","name":"Ωmega","big":12345678901234567890.125}'

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def plue_jwt(need: Callable[[str], str]) -> Run:
    program = need("plue-jwt")

    def run(
        *arguments: str, secret: str | None = SECRET, stdin: str = "", python: bool = False
    ) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "JWT_SECRET"}
        if secret is not None:
            environment["JWT_SECRET"] = secret
        command = [sys.executable, "-m", "pyplue.jwt"] if python else [program]
        return subprocess.run(
            [*command, *arguments],
            env=environment,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=60,
        )

    return run


def signed(plue_jwt: Run, *arguments: str, **more: str) -> str:
    answer = plue_jwt("sign", *arguments, **more)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def refused(answer: subprocess.CompletedProcess[str], reason: str) -> None:
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr.startswith("plue-jwt: ")
    assert reason in answer.stderr


def misused(answer: subprocess.CompletedProcess[str], reason: str) -> None:
    assert (answer.returncode, answer.stdout) == (2, "")
    assert reason in answer.stderr
    assert "plue-jwt --help" in answer.stderr


def test_what_is_signed_verifies_to_the_same_text(plue_jwt: Run):
    token = signed(plue_jwt, CLAIMS)
    answer = plue_jwt("verify", token)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, CLAIMS + "\n", "")


def test_claims_and_tokens_come_from_standard_input(plue_jwt: Run):
    token = signed(plue_jwt, "-", stdin=CLAIMS + "\n")
    assert plue_jwt("verify", "-", stdin=token + "\n").stdout == CLAIMS + "\n"


def test_both_command_lines_read_each_other(plue_jwt: Run):
    claims = '{"sub":"ann"}'
    for signer, reader in ((False, True), (True, False)):
        answer = plue_jwt("sign", claims, "--expires-in", "2 hours", "--kid", "k", python=signer)
        read = plue_jwt("verify", answer.stdout.strip(), python=reader)
        assert read.returncode == 0, read.stderr
        assert json.loads(read.stdout)["sub"] == "ann"


def test_expires_in_sets_iat_and_exp_and_keeps_every_digit(plue_jwt: Run):
    before = int(time.time())
    token = signed(plue_jwt, CLAIMS, "--expires-in=30m")
    text = plue_jwt("verify", token).stdout
    claims = json.loads(text)
    assert before <= claims["iat"] <= time.time()
    assert claims["exp"] == claims["iat"] + 1800
    assert '"big":12345678901234567890.125' in text


def test_kid_stands_in_the_header(plue_jwt: Run):
    answer = plue_jwt("inspect", signed(plue_jwt, CLAIMS, "--kid", 'a"b'))
    assert answer.returncode == 0
    assert "UNVERIFIED" in answer.stderr
    header, payload = answer.stdout.splitlines()
    assert json.loads(header.removeprefix("header ")) == {
        "alg": "HS256",
        "kid": 'a"b',
        "typ": "JWT",
    }
    assert payload.removeprefix("payload ") == CLAIMS


def test_tokens_that_do_not_hold_are_refused_with_the_reason(plue_jwt: Run):
    token = signed(plue_jwt, CLAIMS)
    refused(plue_jwt("verify", token, secret=SECRET + "!"), "signature does not match")
    refused(plue_jwt("verify", "a.b"), "three parts")
    refused(plue_jwt("verify", signed(plue_jwt, '{"exp":1}')), "expired")
    refused(plue_jwt("verify", signed(plue_jwt, '{"nbf":99999999999}')), "not valid yet")
    refused(plue_jwt("verify", "eyJhbGciOiJub25lIn0.e30."), "not HS256")
    soon = signed(plue_jwt, "{}", "--expires-in", "1s ago")
    refused(plue_jwt("verify", soon), "expired")
    assert plue_jwt("verify", soon, "--leeway", "1 hour").returncode == 0


def test_names_are_checked_as_in_pyjwt(plue_jwt: Run):
    token = signed(plue_jwt, '{"iss":"me","sub":"ann","aud":["a","b"]}')
    good = ("--audience", "b", "--issuer", "me", "--subject", "ann")
    assert plue_jwt("verify", token, *good).returncode == 0
    refused(plue_jwt("verify", token), "--audience")
    refused(plue_jwt("verify", token, "--audience", "c"), "aud")
    refused(plue_jwt("verify", token, "--audience", "a", "--issuer", "you"), "iss")
    refused(plue_jwt("verify", token, "--audience", "a", "--subject", "bob"), "sub")
    refused(plue_jwt("verify", signed(plue_jwt, "{}"), "--audience", "a"), "aud")


@pytest.mark.parametrize("claims", ["", "[]", "{", '{"exp":"1"}', '{"exp":1,"exp":2}', "1"])
@pytest.mark.parametrize("options", [(), ("--kid", "k")], ids=["plain", "kid"])
def test_claims_that_verify_would_refuse_are_not_signed(
    plue_jwt: Run, claims: str, options: tuple[str, ...]
):
    answer = plue_jwt("sign", claims, *options)
    assert (answer.returncode, answer.stdout) == (1, "")


def test_the_secret_is_never_an_argument_and_has_no_default(plue_jwt: Run):
    refused(plue_jwt("sign", "{}", secret=None), "JWT_SECRET")
    misused(plue_jwt("sign", "{}", "--secret", "x"), "--secret")
    refused(plue_jwt("sign", "{}", secret=""), "empty")
    pem = "-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----\n"
    refused(plue_jwt("sign", "{}", secret=pem), "HMAC")
    short = plue_jwt("sign", "{}", secret="short")
    assert short.returncode == 0
    assert "warning" in short.stderr


@pytest.mark.parametrize("line_end", ["", "\n", "\r\n"], ids=["bare", "lf", "crlf"])
def test_a_secret_file_may_end_its_line(plue_jwt: Run, tmp_path: Path, line_end: str):
    file = tmp_path / "secret"
    file.write_bytes((SECRET + line_end).encode())
    token = signed(plue_jwt, CLAIMS, "--secret-file", str(file), secret="another secret")
    assert plue_jwt("verify", token).returncode == 0


def test_a_secret_file_that_is_not_there_is_named(plue_jwt: Run, tmp_path: Path):
    missing = tmp_path / "missing"
    refused(plue_jwt("sign", "{}", "--secret-file", str(missing)), str(missing))


def test_a_new_secret_is_long_random_and_usable(plue_jwt: Run):
    first, second = (plue_jwt("secret").stdout.strip() for _ in range(2))
    assert first != second
    assert len(first) == 43
    assert len(plue_jwt("secret", "--bytes", "64").stdout.strip()) == 86
    assert signed(plue_jwt, "{}", secret=first)
    refused(plue_jwt("secret", "--bytes", "31"), "32 bytes")
    misused(plue_jwt("secret", "--bytes", "many"), "many")


def test_inspect_shows_what_is_there_without_harming_the_terminal(plue_jwt: Run):
    # DEL and the 8-bit CSI are legal in JSON and control a terminal.
    token = signed(plue_jwt, '{"a":"\x7f\x9b2J"}')
    shown = plue_jwt("inspect", token).stdout
    assert r'{"a":"\u007f\u009b2J"}' in shown
    # So is a carriage return between its words, which lets a line begin anew.
    shown = plue_jwt("inspect", signed(plue_jwt, '{"a":1}').replace("eyJhIjoxfQ", "eyJhIjoxDX0"))
    assert shown.stdout.endswith('payload {"a":1 }\n')
    raw = "eyJhbGciOiJIUzI1NiJ9.G1sySg.AAAA"  # the payload is ESC [2J
    shown = plue_jwt("inspect", raw).stdout
    assert "\x1b" not in shown
    assert "not JSON" in shown
    refused(plue_jwt("inspect", "no token"), "three parts")


def test_wrong_usage_says_so(plue_jwt: Run):
    misused(plue_jwt(), "command is missing")
    misused(plue_jwt("frobnicate"), "frobnicate")
    misused(plue_jwt("verify"), "needs an argument")
    misused(plue_jwt("verify", "a", "b"), "'b'")
    misused(plue_jwt("verify", "a", "--leeway"), "needs a value")
    misused(plue_jwt("verify", "a", "--leeway", "-5s"), "negative")
    misused(plue_jwt("inspect", "a", "--kid", "k"), "--kid")
    misused(plue_jwt("secret", "x"), "takes no argument")
    refused(plue_jwt("sign", "{}", "--expires-in", "soon"), "span of time")


@pytest.mark.parametrize("words", [("--help",), ("sign", "--help"), ("-h",)])
def test_help_names_every_command_and_option(plue_jwt: Run, words: tuple[str, ...]):
    answer = plue_jwt(*words)
    assert answer.returncode == 0
    for word in ("sign", "verify", "inspect", "secret", "--secret-file", "JWT_SECRET"):
        assert word in answer.stdout
    assert max(map(len, answer.stdout.splitlines())) <= 100


def test_a_full_disk_is_an_error(plue_jwt: Run, need: Callable[[str], str]):
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is Linux's")
    with Path("/dev/full").open("w") as full:
        answer = subprocess.run(
            [need("plue-jwt"), "secret"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert answer.returncode == 1
    assert "standard output" in answer.stderr
