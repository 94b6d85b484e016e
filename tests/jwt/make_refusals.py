"""Writes refusals.json, the table of what every layer of plue_jwt must refuse: C, Python and Bun.

The tokens are signed here with the standard library alone, so that the table does not depend on the
code that it tests. Nearly all of them carry a right signature: what is refused is what they say.

    python tests/jwt/make_refusals.py
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

SECRET = "correct horse battery staple, 1234567890"
OTHER = "another secret that is long enough, 0987"
HEADER = '{"alg":"HS256","typ":"JWT"}'
PAYLOAD = '{"sub":"ann","admin":false}'
NOW = 1_700_000_000

Case = dict[str, Any]


def b64(data: str | bytes) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signature(signed: str, secret: str = SECRET) -> str:
    return b64(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())


def token(
    header: str | bytes = HEADER,
    payload: str | bytes = PAYLOAD,
    secret: str = SECRET,
    *,
    head: str | None = None,
    body: str | None = None,
) -> str:
    """`head` and `body` replace the encoded segments, rightly signed all the same."""
    signed = f"{b64(header) if head is None else head}.{b64(payload) if body is None else body}"
    return f"{signed}.{signature(signed, secret)}"


def case(name: str, error: str, text: str, source: str, **more: Any) -> Case:
    return {"name": name, "error": error, "source": source, "token": text, **more}


def long_case(
    name: str, error: str, source: str, start: str, middle: str, times: int, end: str
) -> Case:
    """A token too long to print: the table says how often its middle part is repeated."""
    assert len(start) % 3 == 0
    assert len(middle) % 3 == 0
    before, between, after = f"{b64(HEADER)}.{b64(start)}", b64(middle), b64(end)
    mac = signature(before + between * times + after)
    parts = [[before, 1], [between, times], [f"{after}.{mac}", 1]]
    return {"name": name, "error": error, "source": source, "token_parts": parts}


RFC7515 = "RFC 7515"
RFC7519 = "RFC 7519"


def algorithm_cases() -> list[Case]:
    good = token().split(".")
    cases = [
        case("alg none without a signature", "algorithm",
             f'{b64(json.dumps({"alg": "none"}))}.{good[1]}.', "RFC 8725, 3.1; CVE-2015-9235"),
    ]  # fmt: skip
    for alg in ("none", "None", "NONE", "nOnE", "hs256", "HS384", "HS512", "RS256", "ES256",
                "EdDSA", "", "HS256 "):  # fmt: skip
        header = json.dumps({"alg": alg, "typ": "JWT"})
        cases.append(case(f"alg {alg!r}", "algorithm", token(header), "RFC 8725, 3.1"))
    return [
        *cases,
        case("alg is missing", "algorithm", token('{"typ":"JWT"}'),
             "RFC 7515, 4.1.1; the first public Zig version accepted it"),
        case("alg is null", "algorithm", token('{"alg":null}'), "RFC 7515, 4.1.1"),
        case("alg is an array", "algorithm", token('{"alg":["HS256"]}'), "RFC 7515, 4.1.1"),
        case("the header is empty", "algorithm", token("{}"), "RFC 7515, 4.1.1"),
        case("alg is given twice", "header_duplicate", token('{"alg":"none","alg":"HS256"}'),
             "RFC 7515, 4"),
        case("alg is given twice, once through an escape", "header_duplicate",
             token('{"alg":"HS256","\\u0061lg":"none"}'), "RFC 7515, 4"),
    ]  # fmt: skip


def header_cases() -> list[Case]:
    jwk = json.dumps({"alg": "HS256", "jwk": {"kty": "oct", "k": b64(OTHER)}})
    crit = "RFC 7515, 4.1.11; CVE-2026-32597 (PyJWT), also Authlib, fast-jwt"
    return [
        case("crit names an unknown extension", "crit",
             token('{"alg":"HS256","crit":["http://example.org/x"],"http://example.org/x":1}'),
             crit),
        case("crit names b64", "crit", token('{"alg":"HS256","b64":true,"crit":["b64"]}'), crit),
        case("crit is empty", "crit", token('{"alg":"HS256","crit":[]}'), crit),
        case("crit is null", "crit", token('{"alg":"HS256","crit":null}'), crit),
        case("crit hides behind an escape", "crit",
             token('{"alg":"HS256","cri\\u0074":["exp"]}'), crit),
        case("b64 is false", "b64", token('{"alg":"HS256","b64":false}'), "RFC 7797"),
        case("b64 is false and the payload bare", "b64",
             token('{"alg":"HS256","b64":false}', body='{"sub":"ann"}'), "RFC 7797"),
        case("kid is a number", "kid", token('{"alg":"HS256","kid":7}'), "RFC 7515, 4.1.4"),
        case("kid is null", "kid", token('{"alg":"HS256","kid":null}'), "RFC 7515, 4.1.4"),
        case("kid is an object", "kid", token('{"alg":"HS256","kid":{}}'), "RFC 7515, 4.1.4"),
        case("typ is a number", "typ", token('{"alg":"HS256","typ":1}'), "RFC 7515, 4.1.9"),
        case("the header is an array", "header_json", token('["HS256"]'), RFC7515),
        case("the header is a string", "header_json", token('"HS256"'), RFC7515),
        case("the header is null", "header_json", token("null"), RFC7515),
        case("the header is no JSON", "header_json", token("{alg:HS256}"), RFC7515),
        case("something follows the header", "header_json", token(HEADER + "{}"), RFC7515),
        case("the header is not UTF-8", "header_json",
             token(b'{"alg":"HS256","x":"\xff"}'), RFC7515),
        case("the header is nothing", "header_json", token(head=""), RFC7515),
        case("the signing key stands in the header", "signature", token(jwk, secret=OTHER),
             "CVE-2026-27962 (Authlib): a key from the token's own header"),
    ]  # fmt: skip


def encoding_cases() -> list[Case]:
    head, body, mac = token().split(".")
    rule = "RFC 7515, 2 and 7.1"
    other_last = {"A": "B", "Q": "R", "g": "h", "w": "x"}
    # The last of 43 characters carries 4 bits of the MAC: 16 characters are canonical.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    twin = mac[:-1] + alphabet[alphabet.index(mac[-1]) | 1]
    long_body = b64('{"a":1}')
    assert len(long_body) % 4 == 2
    assert long_body[-1] in other_last
    cases = [
        case("the empty text", "segments", "", rule),
        case("one segment", "segments", head, rule),
        case("two segments", "segments", f"{head}.{body}", rule),
        case("four segments", "segments", f"{head}.{body}.{mac}.", rule),
        case("five segments, as in a JWE", "segments", f"{head}.{body}.{mac}.{mac}.{mac}", rule),
        case("a token in the JSON serialization", "segments",
             json.dumps({"protected": head, "payload": body, "signature": mac}), "RFC 7515, 7.2"),
        case("no signature", "signature", f"{head}.{body}.", rule),
        case("half a signature", "signature", f"{head}.{body}.{mac[:40]}", rule),
        case("a longer signature", "signature", f"{head}.{body}.{mac}AAA", rule),
        case("a signature of zeros", "signature", f"{head}.{body}.{'A' * 43}", rule),
        case("a padded signature", "signature_encoding", f"{head}.{body}.{mac}=", rule),
        case("a signature with a non-canonical last character", "signature_encoding",
             f"{head}.{body}.{twin}", rule),
        case("a padded header", "header_encoding", token('{"alg":"HS256"}', head=b64(
            '{"alg":"HS256" }') + "=="), rule),
        case("a header with white space in its encoding", "header_encoding",
             token(head=head[:8] + " " + head[8:]), rule),
        case("a padded payload", "payload_encoding", token(body=long_body + "=="), rule),
        case("a payload with a non-canonical last character", "payload_encoding",
             token(body=long_body[:-1] + other_last[long_body[-1]]), rule),
        case("a payload in the plain base64 alphabet", "payload_encoding",
             token(body=b64('{"a":"???~~~"}').replace("_", "/").replace("-", "+")), rule),
        case("a payload of 4n + 1 characters", "payload_encoding", token(body=body[:33]), rule),
        case("a line break inside the payload", "payload_encoding",
             token(body=body[:4] + "\n" + body[4:]), rule),
        case("a space before the token", "header_encoding", " " + token(), rule),
        case("a space after the token", "signature_encoding", token() + " ", rule),
        case("Bearer before the token", "header_encoding", "Bearer " + token(), "RFC 6750"),
        case("a signature under another secret", "signature", token(secret=OTHER), RFC7515),
        case("a payload that was changed", "signature",
             f"{head}.{b64(PAYLOAD.replace('false', 'true'))}.{mac}", RFC7515),
        case("a header that was changed", "signature",
             f'{b64(json.dumps({"alg": "HS256", "kid": "x"}))}.{body}.{mac}', RFC7515),
        long_case("a token over 64 KiB", "too_large",
                  "CVE-2026-48525 (PyJWT), CVE-2025-61920 (Authlib): no bound before decoding",
                  '{"a":"', "aaa", 17_000, '"}'),
    ]  # fmt: skip
    return cases


def payload_cases() -> list[Case]:
    strict = "RFC 8259; RFC 7519, 7.2"
    cases = [
        case("the payload is an array", "payload_json", token(payload="[]"), strict),
        case("the payload is a string", "payload_json", token(payload='"ann"'), strict),
        case("the payload is a number", "payload_json", token(payload="1"), strict),
        case("the payload is null", "payload_json", token(payload="null"), strict),
        case("the payload is nothing", "payload_json", token(body=""), strict),
        case("the payload is text", "payload_json", token(payload="hello"), strict),
        case("the payload is cut", "payload_json", token(payload='{"a":1'), strict),
        case("something follows the payload", "payload_json", token(payload='{"a":1}{}'), strict),
        case("a comma too many", "payload_json", token(payload='{"a":1,}'), strict),
        case("NaN", "payload_json", token(payload='{"a":NaN}'), strict),
        case("the payload holds a raw NUL", "payload_json", token(payload='{"a":"\0"}'), strict),
        case("a raw NUL after the payload", "payload_json", token(payload='{"a":1}\0'), strict),
        case("a raw line break in a string", "payload_json", token(payload='{"a":"\n"}'), strict),
        case("the payload is not UTF-8", "payload_json",
             token(payload=b'{"a":"\xff\xfe"}'), strict),
        case("overlong UTF-8", "payload_json", token(payload=b'{"a":"\xc0\xaf"}'), strict),
        case("a surrogate in UTF-8", "payload_json",
             token(payload=b'{"a":"\xed\xa0\x80"}'), strict),
        case("a byte order mark", "payload_json", token(payload=b"\xef\xbb\xbf{}"), strict),
        case("exp is given twice", "duplicate_claim",
             token(payload='{"exp":1,"exp":99999999999}'), "RFC 7519, 4"),
        case("exp is given twice, once through an escape", "duplicate_claim",
             token(payload='{"exp":99999999999,"\\u0065xp":1}'), "RFC 7519, 4"),
        long_case("nesting without end", "payload_depth", "RFC 8259, 9", '{"a":1,"b": ', "[[[",
                  1000, '1'),
    ]  # fmt: skip
    for claim in ("iss", "sub", "aud", "nbf", "iat", "jti"):
        text = f'{{"{claim}":1,"x":2,"{claim}":1}}'
        cases.append(case(f"{claim} is given twice", "duplicate_claim", token(payload=text),
                          "RFC 7519, 4"))  # fmt: skip
    return cases


def time_cases() -> list[Case]:
    wrong_type = "RFC 7519, 2; CVE-2026-25537 (Rust jsonwebtoken): never as if absent"
    cases: list[Case] = []
    for claim in ("exp", "nbf", "iat"):
        for value in ('"1700000000"', '"soon"', "null", "true", "false", "[]", "{}", "1e999"):
            text = f'{{"sub":"ann","{claim}":{value}}}'
            cases.append(case(f"{claim} is {value}", f"{claim}_type", token(payload=text),
                              wrong_type))  # fmt: skip
        for value in ("NaN", "Infinity", "-Infinity", "0x10", "1_0", "01", ".5"):
            text = f'{{"{claim}":{value}}}'
            cases.append(case(f"{claim} is {value}", "payload_json", token(payload=text),
                              wrong_type))  # fmt: skip

    def at(name: str, error: str, payload: str, source: str, **more: Any) -> None:
        cases.append(case(name, error, token(payload=payload), source, **more))

    later = NOW + 1
    exp, nbf, iat = "RFC 7519, 4.1.4", "RFC 7519, 4.1.5", "RFC 7519, 4.1.6"
    at("expired long ago", "expired", '{"exp":1}', exp)
    at(
        "expired, and another claim follows",
        "expired",
        '{"exp":1,"sub":"ann"}',
        exp + "; the first public Zig version accepted it",
    )
    at(
        "expired, and another claim comes first",
        "expired",
        '{"sub":"ann","exp":1}',
        exp + "; the first public Zig version accepted it",
    )
    at("a fractional exp in the past", "expired", '{"exp":1.5}', exp)
    at("an exp with an exponent in the past", "expired", '{"exp":1e3}', exp)
    at("exp is 0", "expired", '{"exp":0}', exp)
    at("exp is negative", "expired", '{"exp":-1}', exp)
    at("exp is far below i64", "expired", '{"exp":-1e300}', exp)
    at("exp is just below i64", "expired", '{"exp":-9223372036854775809}', exp)
    at("the very second of exp", "expired", f'{{"exp":{NOW}}}', exp, now_s=NOW)
    at("half a second after the second of exp", "expired", f'{{"exp":{NOW}.5}}', exp, now_s=NOW)
    at(
        "the very second of exp plus the leeway",
        "expired",
        f'{{"exp":{NOW - 10}}}',
        exp,
        now_s=NOW,
        leeway_s=10,
    )
    at("one second before nbf", "not_yet_valid", f'{{"nbf":{later}}}', nbf, now_s=NOW)
    at(
        "one second before nbf less the leeway",
        "not_yet_valid",
        f'{{"nbf":{NOW + 11}}}',
        nbf,
        now_s=NOW,
        leeway_s=10,
    )
    at("nbf in a far future", "not_yet_valid", '{"nbf":99999999999}', nbf)
    at("nbf beyond i64", "not_yet_valid", '{"nbf":1e300}', nbf)
    at("iat in the future", "issued_in_future", f'{{"iat":{later}}}', iat, now_s=NOW)
    at(
        "iat in the future despite the leeway",
        "issued_in_future",
        f'{{"iat":{NOW + 11}}}',
        iat,
        now_s=NOW,
        leeway_s=10,
    )
    at("iat in a far future", "issued_in_future", '{"iat":99999999999}', iat)
    return cases


def accepted() -> list[Case]:
    """What must not be refused, so that refusing everything fails the tests too."""

    def ok(name: str, text: str, **more: Any) -> Case:
        return {"name": name, "token": text, **more}

    return [
        ok("the standard header", token()),
        ok("RFC 7519, 6.1 has no twin here: alg alone", token('{"alg":"HS256"}')),
        ok("keys in another order", token('{"typ":"JWT","alg":"HS256"}')),
        ok("white space in the header", token('{"typ":"JWT",\r\n "alg":"HS256"}')),
        ok("a kid", token('{"alg":"HS256","kid":"2026-07","typ":"JWT"}')),
        ok("another typ", token('{"alg":"HS256","typ":"at+jwt"}')),
        ok("b64 is true", token('{"alg":"HS256","b64":true}')),
        ok("an escaped alg", token('{"alg":"\\u0048S256"}')),
        ok("an empty payload", token(payload="{}")),
        ok("white space in the payload", token(payload=' {\n"a" : 1 }\t')),
        ok("text beyond ASCII", token(payload='{"name":"Ωmega 日本 😀"}')),
        ok("exp one second ahead", token(payload=f'{{"exp":{NOW + 1}}}'), now_s=NOW),
        ok("a fractional exp ahead", token(payload=f'{{"exp":{NOW + 1}.5}}'), now_s=NOW),
        ok("exp within the leeway", token(payload=f'{{"exp":{NOW - 9}}}'), now_s=NOW, leeway_s=10),
        ok("nbf now", token(payload=f'{{"nbf":{NOW}}}'), now_s=NOW),
        ok("nbf within the leeway", token(payload=f'{{"nbf":{NOW + 10}}}'), now_s=NOW, leeway_s=10),
        ok("iat now", token(payload=f'{{"iat":{NOW}}}'), now_s=NOW),
        ok("iat within the leeway", token(payload=f'{{"iat":{NOW + 10}}}'), now_s=NOW, leeway_s=10),
        ok("exp beyond i64", token(payload='{"exp":99999999999999999999999}')),
        ok("another claim given twice", token(payload='{"mine":1,"mine":2}')),
        ok("registered names deeper down", token(payload='{"act":{"exp":1,"exp":"x"}}')),
    ]  # fmt: skip


def secrets() -> list[Case]:
    def bad(name: str, error: str, secret: str | bytes, source: str) -> Case:
        raw = secret.encode() if isinstance(secret, str) else secret
        shown = base64.b64encode(raw).decode()
        return {"name": name, "error": error, "source": source, "secret_base64": shown}

    confusion = "CVE-2022-29217 (PyJWT), CVE-2026-48526 (PyJWT), CVE-2026-34950 (fast-jwt)"
    pem = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAAAA\n-----END PUBLIC KEY-----\n"
    spki = bytes.fromhex("302a300506032b6570032100") + b"k" * 32
    pkcs8 = bytes.fromhex("302e020100300506032b657004220420") + b"k" * 32
    rsa = bytes.fromhex("3082010a0282010100") + b"n" * 256 + bytes.fromhex("0203010001")
    return [
        bad("nothing", "empty_secret", "",
            "CVE-2026-44351 (fast-jwt), also ruby-jwt, libjwt: an empty HMAC key"),
        bad("PEM", "asymmetric_key", pem, confusion),
        bad("PEM behind white space", "asymmetric_key", " \r\n\t" + pem, confusion),
        bad("PEM behind a description", "asymmetric_key", "Subject: CN=x\n" + pem, confusion),
        bad("a PEM certificate", "asymmetric_key", pem.replace("PUBLIC KEY", "CERTIFICATE"),
            confusion),
        bad("an RSA public key in PEM", "asymmetric_key",
            pem.replace("PUBLIC KEY", "RSA PUBLIC KEY"), confusion),
        bad("an OpenSSH public key", "asymmetric_key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me",
            confusion),
        bad("an OpenSSH RSA key behind white space", "asymmetric_key", "  ssh-rsa AAAAB3Nza",
            confusion),
        bad("an OpenSSH ECDSA key", "asymmetric_key", "ecdsa-sha2-nistp256 AAAAE2Vj", confusion),
        bad("a public JWK", "asymmetric_key", '{"kty":"RSA","n":"AQAB","e":"AQAB"}', confusion),
        bad("a public JWK behind white space", "asymmetric_key",
            ' \n{"e":"AQAB","kty":"RSA","n":"AQAB"}', confusion),
        bad("a symmetric JWK", "asymmetric_key", '{"kty":"oct","k":"AAAA"}',
            "RFC 7517: the secret is what k decodes to, not this text"),
        bad("a JWK set", "asymmetric_key", '{"keys":[]}', confusion),
        bad("an Ed25519 public key in DER", "asymmetric_key", spki, confusion),
        bad("an Ed25519 private key in DER", "asymmetric_key", pkcs8, confusion),
        bad("an RSA public key in DER", "asymmetric_key", rsa, confusion),
        bad("a JWK in an array", "asymmetric_key", b'[{"kty":"RSA"}]', confusion),
        bad("a JWK in something else", "asymmetric_key", b'{"a":{"b":[{"kty":"RSA"}]}}', confusion),
        bad("a JWK with NaN", "asymmetric_key", b'{"kty":"RSA","x":NaN}', confusion),
        bad("a JWK in UTF-16", "asymmetric_key", '{"kty":"RSA"}'.encode("utf-16"), confusion),
        bad("PEM with spaces", "asymmetric_key",
            b"---- BEGIN PUBLIC KEY ----\nMCow\n---- END PUBLIC KEY ----\n", confusion),
        bad("more than 1 MiB", "secret_too_large", b"x" * 0, "a bound") | {
            "secret_repeat": ["x", 1024 * 1024 + 1]},
    ]  # fmt: skip


def payloads() -> list[Case]:
    """What sign refuses: nothing leaves that verify would not take back."""

    def bad(name: str, error: str, text: str | bytes) -> Case:
        raw = text.encode() if isinstance(text, str) else text
        return {"name": name, "error": error, "payload_base64": base64.b64encode(raw).decode()}

    return [
        bad("nothing", "payload_json", ""),
        bad("an array", "payload_json", "[]"),
        bad("a string", "payload_json", '"x"'),
        bad("null", "payload_json", "null"),
        bad("half an object", "payload_json", '{"a":'),
        bad("two objects", "payload_json", "{}{}"),
        bad("not UTF-8", "payload_json", b'{"a":"\xff"}'),
        bad("a raw control character", "payload_json", '{"a":"\x01"}'),
        bad("NaN", "payload_json", '{"a":NaN}'),
        bad("too deep", "payload_depth", '{"a":' + "[" * 200 + "]" * 200 + "}"),
        bad("exp given twice", "duplicate_claim", '{"exp":1,"exp":2}'),
        bad("exp is a string", "exp_type", '{"exp":"1"}'),
        bad("nbf is null", "nbf_type", '{"nbf":null}'),
        bad("iat is a boolean", "iat_type", '{"iat":true}'),
    ]


def table() -> dict[str, Any]:
    return {
        "about": "Written by make_refusals.py. Names of errors as jwt_error_name gives them. "
        "token_parts: texts and how often each is repeated. Without now_s any clock will do.",
        "secret": SECRET,
        "refused_tokens": [
            *algorithm_cases(),
            *header_cases(),
            *encoding_cases(),
            *payload_cases(),
            *time_cases(),
        ],
        "accepted_tokens": accepted(),
        "refused_secrets": secrets(),
        "refused_payloads": payloads(),
    }


def text() -> str:
    return json.dumps(table(), indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("refusals.json").write_text(text(), encoding="ascii")
