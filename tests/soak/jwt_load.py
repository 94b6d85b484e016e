"""Tokens signed, verified and refused by several threads, with keys that come and go."""

from __future__ import annotations

import array
import os
import random
import time

from jwt_raw import error, key, owned, verify_with

from pyplue import ffi, jwt
from soak.load import Load

ROUND = 40
HELD: list[object] = []
"""What --leak keeps."""


def claims() -> dict[str, object]:
    """Some claims, small and large, that are valid now."""
    now = int(time.time())
    text = random.choice(("", "x" * random.randrange(2000), '\u00e9\u20ac\U0001f600\\"\n'))
    return {"sub": f"user{random.randrange(10**6)}", "iat": now, "exp": now + 3600, "text": text}


def replaced(text: str, position: int) -> str:
    """Another character at that place."""
    return text[:position] + ("A" if text[position] != "A" else "B") + text[position + 1 :]


def refused(load: Load, reason: type[Exception], token: str, key: jwt.Key) -> None:
    try:
        claims = jwt.decode(token, key)
    except reason:
        load.count(refused=1)
    else:
        load.fail(f"{reason.__name__} expected, got {claims}")


def python(load: Load) -> None:
    """Through pyplue.jwt."""
    mine, other = jwt.Key(os.urandom(32)), jwt.Key(os.urandom(48))
    both = jwt.KeySet({"old": mine, "new": other})
    plain = os.urandom(32)
    for _ in range(ROUND):
        wanted = claims()
        token = jwt.encode(wanted, mine)
        load.check(jwt.decode(token, mine, algorithms=["HS256"]) == wanted, "other claims")
        named = jwt.encode(wanted, other, headers={"kid": "new"})
        load.check(jwt.decode(named, both, algorithms=["HS256"]) == wanted, "other claims by kid")
        again = jwt.decode(jwt.encode(wanted, plain), plain, algorithms=["HS256"])
        load.check(again == wanted, "other claims, plain")
        load.count(signed=3, verified=3)
        header, payload, signature = token.split(".")
        forged = replaced(signature, random.randrange(42))
        changed = replaced(payload, random.randrange(len(payload) - 1))
        late = jwt.encode({**wanted, "exp": int(time.time())}, mine)
        early = jwt.encode({**wanted, "nbf": int(time.time()) + 60}, mine)
        refused(load, jwt.InvalidSignatureError, f"{header}.{payload}.{forged}", mine)
        refused(load, jwt.DecodeError, f"{header}.{changed}.{signature}", mine)
        refused(load, jwt.InvalidSignatureError, token, other)
        refused(load, jwt.ExpiredSignatureError, late, mine)
        refused(load, jwt.ImmatureSignatureError, early, mine)
        refused(load, jwt.DecodeError, token[: random.randrange(99)], mine)
    mine.wipe()
    refused(load, jwt.InvalidKeyError, token, mine)
    load.count(keys=3)


def c_abi(load: Load) -> None:
    """Through the exports, with handles that are destroyed and then used once more."""
    lib = ffi.jwt
    payload = b'{"sub":"ann","exp":%d}' % (time.time() + 3600)
    out = ffi.buffer(1024)
    with key(os.urandom(32)) as mine, key(os.urandom(1000)) as other:
        for _ in range(ROUND):
            token = lib.jwt_sign_text(mine, payload)
            load.check(lib.jwt_verify_text(mine, token) == payload, "other payload")
            load.check(lib.jwt_verify_text(other, token) is None, "a forged token")
            load.check(error() == "signature", "a forged token for another reason")
            length = lib.jwt_sign_into(other, payload, len(payload), out, 1024)
            signed = out.raw[:length]
            load.check(verify_with(signed, [mine, other]) == (payload, 1), "not the second key")
            late = verify_with(signed, [mine, other], now_s=int(time.time()) + 3601)
            load.check(late == ("expired", 1), f"expired: {late}")
            load.count(signed=2, verified=2, refused=2)
        lengths = array.array("I", [len(token), len(signed), len(token)]).tobytes()
        results = ffi.buffer(12)
        batch = token + signed + token
        valid = lib.jwt_verify_batch(mine, batch, lengths, 3, None, out, 1024, results)
        load.check(valid == 2, f"{valid} of a batch with two valid tokens")
        load.count(verified=2, refused=1)
    load.check(lib.jwt_verify_text(mine, token) is None, "a destroyed key verifies")
    load.check(error() == "unknown_key", "a destroyed key is something else")
    load.count(keys=2)


def process_secret(load: Load) -> None:
    """The secret that a process has one of, with results that the caller frees."""
    lib = ffi.jwt
    secret = os.urandom(32)
    payload = b'{"sub":"ann","exp":%d}' % (time.time() + 3600)
    load.check(lib.jwt_init(secret, len(secret)), "jwt_init")
    jwt.init(secret)
    for _ in range(ROUND):
        token = owned(lib.jwt_sign(payload))
        load.check(token and owned(lib.jwt_verify(token)) == payload, "other payload")
        load.check(lib.jwt_verify(token + b"x") is None, "a longer signature")
        claimed = jwt.verify(jwt.sign({"sub": "ann"}))
        load.check(claimed and claimed["sub"] == "ann", "other claims of the process's secret")
        load.count(signed=2, verified=2, refused=1)
    lib.jwt_cleanup()
    load.check(lib.jwt_sign(payload) is None, "it signs without a secret")


def leak() -> None:
    """Proves that the soak sees one: half a megabyte and ten descriptors, again and again."""
    HELD.append(bytearray(os.urandom(1 << 19)))
    HELD.extend(open(os.devnull) for _ in range(10))  # noqa: SIM115
    time.sleep(0.05)


def main() -> None:
    load = Load()
    load.watch("jwt", os.getpid())
    rounds = [(lambda: python(load), 0.01)] * 2 + [(lambda: c_abi(load), 0.01)] * 2
    rounds.append((lambda: process_secret(load), 0.01))
    if load.leaking:
        rounds.append((leak, 0.2))
    load.run(*rounds)
    jwt.forget_secrets()
    load.done()


if __name__ == "__main__":
    main()
