"""`RateLimiter`: a limit for each key, counted by the native library."""

from __future__ import annotations

import math
import os
import struct
import time
from array import array
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from pyplue import ffi
from pyplue.ratelimit.decision import Decision
from pyplue.ratelimit.errors import (
    InvalidLimitError,
    KeyTooLongError,
    LimiterClosedError,
    last_error,
)
from pyplue.ratelimit.window import window_ms

if TYPE_CHECKING:
    from pyplue.ratelimit.decision import Limiter

Algorithm = Literal["sliding-window", "gcra", "token-bucket", "fixed-window"]
WhenFull = Literal["deny", "overflow", "allow"]

ALGORITHMS: dict[str, int] = {
    "sliding-window": 0,
    "gcra": 1,
    "token-bucket": 1,
    "fixed-window": 2,
}
POLICIES: dict[str, int] = {"deny": 0, "overflow": 1, "allow": 2}

MAX_KEY_BYTES = 1024
# In characters, none of which takes more than 4 bytes.
_SURELY_SHORT = MAX_KEY_BYTES // 4
_MAX_U32 = 2**32 - 1
_NEVER = 2**64 - 1
# Beyond the end of any window, and still a u64 when a float has rounded it.
_FAR_MS = 2.0**63
# struct ratelimit_decision of plue_ratelimit.h.
_DECISION = struct.Struct("=IIIIQQ")
# RATELIMIT_ERROR_BATCH_SHAPE there: the keys are not as many as the call says.
_BATCH_SHAPE = -7
_native = ffi.ratelimit


class RateLimiter:
    """At most `max_requests` per `window` for each key. Safe to use from several threads.

    After a fork() the child has a copy of the counts and counts on its own from there, unless
    the limiter is shared.

    Args:
        max_requests: 0 refuses everything.
        window: Seconds, a timedelta, or text such as "15m".
        algorithm: "sliding-window" estimates the requests in the window that ends now from two
            counters; "gcra" (also called "token-bucket") passes a burst of `max_requests`, then one
            every window/max_requests; "fixed-window" counts from a key's first request on.
        max_keys: Keys held at most. Memory is taken as keys come, about 50 bytes for each.
        when_full: What happens to an unknown key when so many live ones are held: "deny" refuses
            it, "overflow" counts all such keys together, "allow" lets it pass uncounted. A live
            key is never given up for another.
        shared: A file on this host that the processes which open it count in together. It is made
            if need be, for `max_keys` (about 45 bytes for each at once); it must be this user's
            alone. Not on a network file system.
        clock: Seconds of a clock that never steps, for tests and simulations.

    Raises:
        InvalidLimitError: (a ValueError) A number is out of its range.
        SharedFileError: (an OSError) The shared file cannot be used; the text says why.
    """

    waits = False

    def __init__(
        self,
        max_requests: int,
        window: float | str | timedelta,
        *,
        algorithm: Algorithm = "sliding-window",
        max_keys: int = 1_000_000,
        when_full: WhenFull = "deny",
        shared: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._handle = 0
        self.max_requests = _whole(max_requests, "max_requests", 0)
        self.algorithm = algorithm
        self.max_keys = _whole(max_keys, "max_keys", 1)
        self.shared = None if shared is None else os.fspath(shared)
        milliseconds = window_ms(window)
        self.window = milliseconds / 1000
        rule = (
            _choice(ALGORITHMS, algorithm, "algorithm"),
            self.max_requests,
            milliseconds,
            self.max_keys,
            _choice(POLICIES, when_full, "when_full"),
        )
        if self.shared is None:
            self._handle = _native.ratelimit_create(*rule)
        else:
            path = os.fsencode(self.shared)
            if b"\0" in path:
                raise InvalidLimitError("a path cannot hold a NUL")
            self._handle = _native.ratelimit_open_shared(path, *rule)
        if not self._handle:
            raise last_error(self.shared)
        self._clock = clock
        self._check_text: Any = _native.unchecked("ratelimit_check_text")
        self._check_key: Any = _native.unchecked("ratelimit_check_key")
        if clock is not None:
            self.check = self._check_any  # type: ignore[method-assign]

    @classmethod
    def from_url(
        cls, url: str, max_requests: int, window: float | str | timedelta, **options: Any
    ) -> Limiter:
        """A limiter with the same calls, whose counts are kept where `url` says.

        Args:
            url: "plue://" for this process, "plue:///run/app/limits" for this host, and any URL of
                the library limits, such as "redis://localhost:6379" or "valkey://localhost:6379",
                for several hosts (install pyplue[ratelimit] and the server's client library).
            max_requests: As for `RateLimiter`.
            window: As for `RateLimiter`; whole seconds where limits counts.
            options: `algorithm` and what else `RateLimiter` takes; elsewhere `algorithm` (not
                "gcra", which limits does not know) and the storage's own options.
        """
        scheme, found, path = url.partition("://")
        if scheme == "plue" and found:
            return cls(max_requests, window, shared=path or None, **options)
        from pyplue.ratelimit.stored import StoredRateLimiter

        return StoredRateLimiter(url, max_requests, window, **options)

    def check(self, key: str | bytes, cost: int = 1) -> bool:
        """True: a request of `cost` passes, and is counted. A refused one is not.

        Raises:
            KeyTooLongError: (a ValueError) The key has more than 1024 bytes in UTF-8.
            InvalidLimitError: (a ValueError) The cost is less than 1.
            LimiterClosedError: (a ValueError) The limiter was closed.
        """
        try:
            # The shortest way, which nearly all calls can take. A NUL would end the key.
            if cost == 1 and "\0" not in key:
                if self._check_text(self._handle, key.encode()):  # type: ignore[union-attr]
                    return True
                if len(key) < _SURELY_SHORT and self._handle:
                    return False
        except (TypeError, UnicodeEncodeError):
            pass
        return self._check_any(key, cost)

    def _check_any(self, key: str | bytes, cost: int = 1) -> bool:
        data = _encode(key)
        length = len(data)
        if length > MAX_KEY_BYTES or cost != 1 or self._clock is not None:
            return self.hit(data, cost).allowed
        if self._check_key(self._handle, data, length, 1):
            return True
        if not self._handle:
            raise LimiterClosedError("the limiter is closed")
        return False

    def hit(self, key: str | bytes, cost: int = 1) -> Decision:
        """As `check`, with what is left and when to come again."""
        return self._decide(_native.ratelimit_hit, _native.ratelimit_hit_at, key, cost)

    def peek(self, key: str | bytes, cost: int = 1) -> Decision:
        """What `hit` would answer now; counts nothing."""
        return self._decide(_native.ratelimit_peek, _native.ratelimit_peek_at, key, cost)

    def _decide(self, now: Any, at: Any, key: str | bytes, cost: int) -> Decision:
        data = _encode(key)
        out = ffi.buffer(_DECISION.size)
        cost = _whole(cost, "cost", 1)
        if len(data) > MAX_KEY_BYTES:
            raise KeyTooLongError("a key has at most 1024 bytes: pass a hash of longer ones")
        if self._clock is None:
            status = now(self._handle, data, len(data), cost, out)
        else:
            now_ms = int(self._clock() * 1000)
            status = at(self._handle, data, len(data), cost, now_ms, out)
        if status != 0:
            raise last_error(self.shared)
        allowed, limit, remaining, full, retry_ms, reset_ms = _DECISION.unpack(out.raw)
        retry = math.inf if retry_ms == _NEVER else retry_ms / 1000
        return Decision(allowed == 1, limit, remaining, retry, reset_ms / 1000, full == 1)

    def refund(self, key: str | bytes, cost: int = 1, left: float | None = None) -> None:
        """Takes back a request that passed, where it turns out that it should not count.

        Args:
            key: That of the request.
            cost: That of the request.
            left: For how many seconds it still counts: the `reset_after` of its decision less the
                time since. It says in which window the request was counted, and no more is given
                back than was counted in what still counts: nothing from a fixed window that came
                later, from a sliding window only what its own window still weighs, from a bucket
                only what had not drained when the key's last request came. Left out, the request
                passed just now.
        """
        data = _encode(key)
        cost = _whole(cost, "cost", 1)
        arguments = (self._handle, data, len(data), cost)
        if left is None:
            done = _native.ratelimit_refund(*arguments)
        else:
            now = time.clock_gettime(time.CLOCK_MONOTONIC) if self._clock is None else self._clock()
            until_ms = min(max(0.0, (now + left) * 1000), _FAR_MS)
            done = _native.ratelimit_refund_at(*arguments, int(until_ms))
        if not done:
            raise last_error(self.shared)

    def check_many(self, keys: Sequence[str | bytes], cost: int = 1) -> list[bool]:
        """`check` for each key, in order, in one call: the way to check many keys fast."""
        count = len(keys)
        if count == 0:
            return []
        cost = _whole(cost, "cost", 1)
        if self._clock is not None:
            return [self.check(key, cost) for key in keys]
        verdicts = ffi.buffer(count)
        native = _native.ratelimit_check_many
        try:
            joined = "\0".join(keys).encode()  # type: ignore[arg-type]
            passed = native(self._handle, joined, len(joined), None, count, cost, verdicts)
        except (TypeError, UnicodeEncodeError):
            passed = _BATCH_SHAPE
        if passed == _BATCH_SHAPE:
            # A key with a NUL inside, bytes, or half a surrogate pair: nothing was counted yet.
            encoded = [_encode(key) for key in keys]
            if len(encoded) != count:
                # The library would read as many lengths as len() has promised.
                raise ValueError(
                    f"{count} keys by their len(), {len(encoded)} in the loop: keys must not change"
                )
            joined = b"".join(encoded)
            lengths = array("I", map(len, encoded)).tobytes()
            passed = native(self._handle, joined, len(joined), lengths, count, cost, verdicts)
        if passed < 0:
            raise last_error(self.shared)
        if passed == count:
            return [True] * count
        flags: Any = memoryview(verdicts).cast("B").cast("?").tolist()
        return flags  # type: ignore[no-any-return]

    def remaining(self, key: str | bytes) -> int:
        """Requests that would pass now; counts nothing."""
        return self.peek(key).remaining

    def reset(self, key: str | bytes) -> None:
        """Forgets the key."""
        data = _encode(key)
        if not _native.ratelimit_reset_key(self._handle, data, len(data)):
            raise last_error(self.shared)

    def clear(self) -> None:
        """Forgets every key; in a shared file also those of other limiters."""
        if not _native.ratelimit_clear(self._handle):
            raise last_error(self.shared)

    def cleanup(self) -> int:
        """Removes entries whose windows have passed and returns how many.

        Checks do the same little by little: nobody has to call this.
        """
        return int(_native.ratelimit_sweep(self._handle))

    def __len__(self) -> int:
        """Entries held, those not yet cleaned up included; in a shared file all of its."""
        return int(_native.ratelimit_key_count(self._handle))

    def __bool__(self) -> bool:
        return True

    @property
    def memory(self) -> int:
        """Bytes held by the table."""
        return int(_native.ratelimit_bytes(self._handle))

    def close(self) -> None:
        """Frees the table; a shared file stays. Closing twice is fine."""
        handle, self._handle = self._handle, 0
        if handle:
            _native.ratelimit_close(handle)

    def __enter__(self) -> RateLimiter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # At exit the library may be gone before the limiter.
        if getattr(self, "_handle", 0) and _native is not None:
            self.close()

    def __repr__(self) -> str:
        where = f", shared={self.shared!r}" if self.shared else ""
        return f"RateLimiter({self.max_requests}, {self.window}, {self.algorithm!r}{where})"


def _encode(key: str | bytes) -> bytes:
    if isinstance(key, bytes):
        return key
    try:
        return key.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, as in file names that are no UTF-8: a key like others.
        return key.encode("utf-8", "surrogatepass")
    except AttributeError:
        raise TypeError(f"a key is str or bytes, not {type(key).__name__}") from None


def _whole(value: int, name: str, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    if not least <= value <= _MAX_U32:
        raise InvalidLimitError(f"{name} must be from {least} to {_MAX_U32}, not {value}")
    return value


def _choice(known: dict[str, int], name: str, what: str) -> int:
    if name not in known:
        raise InvalidLimitError(f"{what} must be one of {', '.join(known)}; not {name!r}")
    return known[name]
