"""HMAC keys: prepared once, kept by the native library, wiped when they are no longer used."""

from __future__ import annotations

import functools
import json
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

from pyplue.jwt import native
from pyplue.jwt.base64url import base64url_decode
from pyplue.jwt.exceptions import InvalidKeyError, InvalidSignatureError
from pyplue.jwt.warnings import InsecureKeyLengthWarning

RECOMMENDED_BYTES = 32
"""HS256 wants a key of at least the hash's size (RFC 7518, 3.2)."""

MAX_CACHED_KEYS = 128
"""Plain secrets whose prepared keys are kept between calls."""

_REFUSED = {
    native.EMPTY_SECRET: "HMAC key must not be empty.",
    native.SECRET_TOO_LARGE: "The secret is larger than 1 MiB.",
    native.ASYMMETRIC_KEY: (
        "The secret is the text of an asymmetric key, a certificate or a JWK. Whoever knows a"
        " public key could sign with it: use a random secret, or PyJWK for a JWK of type oct."
    ),
    native.KEY_COUNT: "Too many keys are alive in this process (65535).",
}


class Key:
    """A prepared HS256 secret, for any number of calls from any number of threads.

    The native library holds the only copy that this object makes, and wipes it when the object is
    gone or `wipe` is called. Python's own text of the secret is the caller's and cannot be wiped.

    Args:
        secret: The bytes of the secret, or text that stands for its UTF-8 bytes.

    Raises:
        InvalidKeyError: The secret is empty, over 1 MiB, or the text of an asymmetric key, a
            certificate or a JWK (CVE-2022-29217).
        TypeError: The secret is neither str nor bytes.

    Warns:
        InsecureKeyLengthWarning: The secret has fewer than 32 bytes (RFC 7518, 3.2).
    """

    __slots__ = ("_length", "handle", "handles")

    handle: int
    """The library's number for this key. A number that is no longer in use signs nothing."""
    handles: bytes
    """The same, as the native functions for several keys take it."""

    def __init__(self, secret: str | bytes) -> None:
        self._open(secret)
        message = self.length_problem()
        if message:
            warnings.warn(message, InsecureKeyLengthWarning, stacklevel=_caller_level())

    def _open(self, secret: str | bytes) -> None:
        self.handle = 0
        if isinstance(secret, str):
            secret = secret.encode()
        elif not isinstance(secret, bytes):
            raise TypeError("Expected a string or bytes value")
        handle = native.create_key(secret)
        if handle == 0:
            reason = native.last_error()
            raise InvalidKeyError(
                _REFUSED.get(reason) or f"The secret is refused: {native.error_name(reason)}"
            )
        self.handle = handle
        self.handles = native.pack_keys([handle])
        self._length = len(secret)

    def length_problem(self) -> str | None:
        """Why the secret is short for HS256, or None."""
        if self._length >= RECOMMENDED_BYTES:
            return None
        return (
            f"The HMAC key is {self._length} bytes long, which is below the minimum of"
            f" {RECOMMENDED_BYTES} bytes for HS256 (RFC 7518, section 3.2)."
        )

    def wipe(self) -> None:
        """Wipes the secret now. Whoever uses the key afterwards gets an InvalidKeyError."""
        native.destroy_key(self.handle)

    def __del__(self, _destroy: Callable[[int], bool] = native.destroy_key) -> None:
        if self.handle:
            _destroy(self.handle)

    def __repr__(self) -> str:
        return f"<Key of {self._length} bytes>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Key cannot be pickled or copied: it would carry its secret along")


Secret = Key | str | bytes


class KeySet:
    """Several keys, for the time when a secret is being replaced.

    A token is verified with the first key whose signature matches; another key is tried only
    after a signature mismatch, never for an expired or malformed token. Tokens are signed with
    the first key.

    Args:
        keys: The keys in the order in which they are tried; or a map from `kid` to key. With a
            map, `encode` names the first key in the header, a token that names a key is verified
            with that key alone, and one that names none with each of them in turn.

    Raises:
        InvalidKeyError: There is no key or there are more than 64, or one is unusable.
    """

    __slots__ = ("_by_name", "handles", "keys", "names")

    handles: bytes
    keys: tuple[Key, ...]
    names: tuple[str, ...] | None
    """The `kid` of each key, or None when the keys are a list."""

    def __init__(self, keys: Iterable[Secret] | Mapping[str, Secret]) -> None:
        if isinstance(keys, Mapping):
            if not all(isinstance(name, str) for name in keys):
                raise TypeError("the key of a key map is its kid, a string")
            self.names = tuple(keys)
            keys = keys.values()
        else:
            self.names = None
        self.keys = tuple(prepare_secret(key) for key in keys)
        if not 1 <= len(self.keys) <= native.MAX_KEYS_PER_CALL:
            raise InvalidKeyError(
                f"Expected 1 to {native.MAX_KEYS_PER_CALL} keys, got {len(self.keys)}."
            )
        self.handles = native.pack_keys([key.handle for key in self.keys])
        self._by_name = dict(zip(self.names or (), self.keys, strict=False))

    def at_hand(self, token: bytes) -> Key | KeySet | None:
        """The keys that may have signed a token: one if its header names it, or all.

        None for a token that is refused: it names none of them, or its header cannot be read, or is
        too large to be read at all.
        """
        if self.names is None:
            return self
        header = token.partition(b".")[0]
        if len(header) > native.MAX_HEADER_CHARACTERS:
            return None
        try:
            kid = unverified_kid(header)
        except (ValueError, RecursionError):
            return None
        return self if kid is None else self._by_name.get(kid)

    def verify_text(self, token: bytes) -> bytes | None:
        """As `native.verify_text`, with the keys that may have signed the token."""
        key = self.at_hand(token)
        if type(key) is Key:
            return native.verify_text(key.handle, token)
        return None if key is None else native.verify_any(token, key.handles)

    def narrowed_to(self, kid: object) -> KeySet:
        """The keys for a token whose header has this `kid`: one, or all if it has none.

        Raises:
            InvalidSignatureError: The token names a key that is not among the keys.
        """
        if self.names is None or kid is None:
            return self
        if not isinstance(kid, str) or kid not in self.names:
            raise InvalidSignatureError("The token names a key that is not among the keys")
        return KeySet({kid: self._by_name[kid]})

    def label(self, index: int) -> str | int:
        """What names the key at this place: its `kid`, or else the place itself."""
        return index if self.names is None else self.names[index]

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        return f"<KeySet of {len(self.keys)} keys>"


@functools.lru_cache(maxsize=128)
def unverified_kid(header: bytes) -> str | None:
    """The `kid` in the header segment of a token, or None. Whoever made the token chose it.

    Raises:
        ValueError: The segment is not base64url of a JSON object, or its `kid` is no string.
        RecursionError: It is nested too deep.
    """
    members = json.loads(base64url_decode(header).decode())
    if not isinstance(members, dict) or not isinstance(members.get("kid", ""), str):
        raise ValueError("no header of a token")
    return members.get("kid")


_cache: dict[str | bytes, Key] = {}
# Reentrant: what is dropped under it may run somebody's finalizer, and that may sign a token.
_cache_lock = threading.RLock()
cached = _cache.get
"""The prepared key of a plain secret that was used before, or None. Equal secrets only: a text
and its bytes are two entries."""


def prepare_secret(secret: Secret, *, enforce_length: bool = False) -> Key:
    """The prepared key for a secret: the object itself, one from the cache, or a new one.

    The cache is bounded, and holds the secrets that it knows keys for. The key that it drops is
    wiped as soon as no call uses it any more.
    """
    key = secret if isinstance(secret, Key) else _cached_key(secret, enforce_length)
    if enforce_length:
        message = key.length_problem()
        if message:
            raise InvalidKeyError(message)
    return key


def _cached_key(secret: str | bytes, enforce_length: bool) -> Key:
    if type(secret) is not str and type(secret) is not bytes:
        # A subclass could compare equal to anything: only its plain value is looked up.
        if isinstance(secret, str):
            secret = str.__str__(secret)
        elif isinstance(secret, bytes):
            secret = bytes(memoryview(secret))
        else:
            raise TypeError("Expected a string or bytes value")
    key = cached(secret)
    if key is None:
        if enforce_length:
            key = Key.__new__(Key)
            key._open(secret)
            if key.length_problem():
                return key
        else:
            key = Key(secret)
        with _cache_lock:
            key = _cache.setdefault(secret, key)
            while len(_cache) > MAX_CACHED_KEYS:
                del _cache[next(iter(_cache))]
    return key


def forget_secrets() -> None:
    """Drops and wipes the keys that were prepared for plain secrets, and forgets the secrets."""
    with _cache_lock:
        _cache.clear()


def _caller_level() -> int:
    """The `stacklevel` at which `warnings.warn` shows the line outside of this package."""
    level = 2
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        __package__ or "pyplue.jwt"
    ):
        frame = frame.f_back
        level += 1
    return level
