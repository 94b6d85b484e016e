"""`plue://`: a storage for the library limits, and so for Flask-Limiter and SlowAPI.

Importing this module makes the scheme known:

    plue://                                     in this process
    plue:///run/app/limits                      in a file, for all processes of this host
    plue:///run/app/limits?max_keys=100000      with options of `RateLimiter`

It supports the strategies fixed window, moving window and sliding window counter, and as
`async+plue://` the asynchronous ones. A key of the moving window takes an entry for every call
inside the window. After a fork() the child has a copy of a private storage and counts on its own.
"""

from __future__ import annotations

import hashlib
import struct
import time
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

import limits.aio.storage
from limits.storage import MovingWindowSupport, SlidingWindowCounterSupport, Storage

from pyplue import ffi
from pyplue.ratelimit.errors import InvalidLimitError, RateLimitError, last_error
from pyplue.ratelimit.limiter import MAX_KEY_BYTES, POLICIES

_native = ffi.ratelimit
_FIXED_WINDOW, _SLIDING_FLOOR = 2, 3
_MAX_COUNT = 2**32 - 1
_HALF_MS = 0.0005
# Structs of plue_ratelimit.h: decision, window_counts, log_content.
_DECISION = struct.Struct("=IIIIQQ")
_WINDOW = struct.Struct("=IIQQ")
_LOG = struct.Struct("=IIQ")


class PlueStorage(Storage, MovingWindowSupport, SlidingWindowCounterSupport):
    """Counts in libplue_ratelimit. `max_keys` and `when_full` are those of `RateLimiter`.

    Raises:
        InvalidLimitError: (a ValueError) The URI or an option is not understood.
        SharedFileError: (an OSError) The file cannot be used; the text says why.
    """

    STORAGE_SCHEME = ["plue"]  # noqa: RUF012  (limits declares it so)

    def __init__(
        self,
        uri: str | None = None,
        wrap_exceptions: bool = False,
        *,
        max_keys: int | str = 1_000_000,
        when_full: str = "deny",
    ) -> None:
        self._handle = 0
        parts = urlsplit(uri or "plue://")
        given = {"max_keys": max_keys, "when_full": when_full, **dict(parse_qsl(parts.query))}
        if unknown := set(given) - {"max_keys", "when_full"}:
            raise InvalidLimitError(f"{uri}: no option is called {', '.join(sorted(unknown))}")
        if parts.netloc:
            raise InvalidLimitError(f"{uri}: a path has three slashes, plue:///{parts.netloc}...")
        if given["when_full"] not in POLICIES:
            raise InvalidLimitError(f"when_full must be one of {', '.join(POLICIES)}")
        if not str(given["max_keys"]).isdecimal():
            raise InvalidLimitError(f"max_keys must be a number, not {given['max_keys']!r}")
        self._path = unquote(parts.path) or None
        # The rule comes with each call; this one is never used.
        max_keys = min(int(given["max_keys"]), _MAX_COUNT)
        rule = (_FIXED_WINDOW, 0, 1, max_keys, POLICIES[str(given["when_full"])])
        if self._path is None:
            self._handle = _native.ratelimit_create(*rule)
        else:
            self._handle = _native.ratelimit_open_shared(self._path.encode(), *rule)
        if not self._handle:
            raise last_error(self._path)
        super().__init__(uri, wrap_exceptions=wrap_exceptions)

    def __del__(self) -> None:
        handle, self._handle = getattr(self, "_handle", 0), 0
        # At exit the library may be gone before the storage.
        if handle and _native is not None:
            _native.ratelimit_close(handle)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a storage belongs to its process: make one from its URI in each")

    @property
    def base_exceptions(self) -> type[Exception]:
        """What `wrap_exceptions` turns into limits' StorageError."""
        return RateLimitError

    # ---- fixed window ------------------------------------------------------------------------

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """The count with `amount` added. Where the table is full and refuses new keys it is
        higher than any limit."""
        if amount == 0:
            return self.get(key)
        hit = _native.ratelimit_hit_rule
        allowed, _, left, *_ = self._rule(hit, key, amount, _FIXED_WINDOW, expiry)
        return _MAX_COUNT - int(left) if allowed else _MAX_COUNT

    def get(self, key: str) -> int:
        """The count of a fixed window."""
        return _MAX_COUNT - int(self._fixed_window(key)[2])

    def get_expiry(self, key: str) -> float:
        """When a fixed window ends, in seconds since 1970; now where none is open."""
        return time.time() + int(self._fixed_window(key)[5]) / 1000

    def _fixed_window(self, key: str) -> tuple[Any, ...]:
        # A window knows its end: the length is not looked at.
        return self._rule(_native.ratelimit_peek_rule, key, 1, _FIXED_WINDOW, 1)

    # ---- sliding window counter --------------------------------------------------------------

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Whether `amount` more fit; if so they are counted."""
        if amount == 0:
            return True
        hit = _native.ratelimit_hit_rule
        return bool(self._rule(hit, key, amount, _SLIDING_FLOOR, expiry, limit)[0])

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """The previous count and how long it counts, then the current ones; in seconds."""
        data, out = _key(key), ffi.buffer(_WINDOW.size)
        if _native.ratelimit_read_window(self._handle, data, len(data), _ms(expiry), out):
            raise last_error(self._path)
        previous, current, previous_ms, current_ms = _WINDOW.unpack(out.raw)
        # In a window's first millisecond all of it is left, which limits takes modulo the window.
        previous_s = min(previous_ms / 1000, expiry - _HALF_MS)
        current_s = min(current_ms / 1000, 2 * expiry - _HALF_MS)
        return previous, previous_s, current, current_s

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forgets the key."""
        self.clear(key)

    # ---- moving window -----------------------------------------------------------------------

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Whether `amount` more fit into the window that ends now; if so they are counted."""
        if amount == 0:
            return True
        data = _key(key)
        rule = (_count(amount), _count(limit), _ms(expiry))
        if _native.ratelimit_hit_log(self._handle, data, len(data), *rule):
            return True
        if _native.ratelimit_last_error():
            raise RateLimitError("the storage is closed, or the window is 0")
        return False

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        """The time of the oldest call in the window, in seconds since 1970, and the count."""
        data, out = _key(key), ffi.buffer(_LOG.size)
        rule = (_count(limit), _ms(expiry))
        if _native.ratelimit_read_log(self._handle, data, len(data), *rule, out):
            raise last_error(self._path)
        used, _, age_ms = _LOG.unpack(out.raw)
        return time.time() - age_ms / 1000, used

    # ---- the rest ----------------------------------------------------------------------------

    def check(self) -> bool:
        """Whether the storage can be used."""
        return bool(self._handle)

    def clear(self, key: str) -> None:
        """Forgets the key, under every strategy."""
        data = _key(key)
        if not _native.ratelimit_reset_key(self._handle, data, len(data)):
            raise last_error(self._path)

    def reset(self) -> int | None:
        """Forgets all keys and says how many there were."""
        count = int(_native.ratelimit_key_count(self._handle))
        if not _native.ratelimit_clear(self._handle):
            raise last_error(self._path)
        return count

    def _rule(
        self,
        call: Any,
        key: str,
        cost: int,
        algorithm: int,
        expiry: float,
        limit: int = _MAX_COUNT,
    ) -> tuple[Any, ...]:
        data, out = _key(key), ffi.buffer(_DECISION.size)
        rule = (_count(cost), algorithm, _count(limit), _ms(expiry))
        if call(self._handle, data, len(data), *rule, out):
            raise last_error(self._path)
        return _DECISION.unpack(out.raw)


class AsyncPlueStorage(
    limits.aio.storage.Storage,
    limits.aio.storage.MovingWindowSupport,
    limits.aio.storage.SlidingWindowCounterSupport,
):
    """`PlueStorage` for limits' asynchronous strategies. Calls only touch memory, hence none
    leaves the event loop."""

    STORAGE_SCHEME = ["async+plue"]  # noqa: RUF012

    def __init__(
        self, uri: str | None = None, wrap_exceptions: bool = False, **options: Any
    ) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self._storage = PlueStorage((uri or "plue://").removeprefix("async+"), **options)

    @property
    def base_exceptions(self) -> type[Exception]:
        return RateLimitError

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return self._storage.incr(key, expiry, amount)

    async def get(self, key: str) -> int:
        return self._storage.get(key)

    async def get_expiry(self, key: str) -> float:
        return self._storage.get_expiry(key)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return self._storage.acquire_sliding_window_entry(key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return self._storage.get_sliding_window(key, expiry)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        self._storage.clear_sliding_window(key, expiry)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return self._storage.acquire_entry(key, limit, expiry, amount)

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        return self._storage.get_moving_window(key, limit, expiry)

    async def check(self) -> bool:
        return self._storage.check()

    async def clear(self, key: str) -> None:
        self._storage.clear(key)

    async def reset(self) -> int | None:
        return self._storage.reset()


def _ms(expiry: float) -> int:
    return round(expiry * 1000)


def _count(amount: int) -> int:
    if amount < 0:
        raise InvalidLimitError(f"an amount must be 0 or more, not {amount}")
    return min(amount, _MAX_COUNT)


def _key(key: str) -> bytes:
    """Keys of limits hold what clients send, which may be of any length."""
    data = key.encode("utf-8", "surrogatepass")
    if len(data) <= MAX_KEY_BYTES:
        return data
    return b"sha256:" + hashlib.sha256(data).digest()
