"""The length of a window: seconds, a timedelta, or text such as "15m"."""

from __future__ import annotations

import math
import re
from datetime import timedelta

from pyplue.ratelimit.errors import InvalidLimitError

_UNIT_MS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 7 * 86_400_000,
}
_UNITS = "|".join(
    (
        r"(?P<ms>milliseconds?|ms)",
        r"(?P<s>seconds?|secs?|s)",
        r"(?P<m>minutes?|mins?|m)",
        r"(?P<h>hours?|hrs?|h)",
        r"(?P<d>days?|d)",
        r"(?P<w>weeks?|w)",
    )
)
_TEXT = re.compile(rf" *(?P<number>\d+(?:\.\d+)?)? *(?:{_UNITS}) *", re.IGNORECASE | re.ASCII)


def window_ms(window: float | str | timedelta) -> int:
    """Whole milliseconds of a window.

    Args:
        window: Seconds; a timedelta; or a number and a unit from milliseconds to weeks, as in
            "500ms", "15m", "1.5 hours", "day".

    Raises:
        InvalidLimitError: (a ValueError) It is none of these, or shorter than 1 ms.
    """
    if isinstance(window, timedelta):
        milliseconds = window / timedelta(milliseconds=1)
    elif isinstance(window, str):
        match = _TEXT.fullmatch(window)
        if match is None:
            raise InvalidLimitError(
                f"not a window: {window!r}; expected seconds or text such as '15m' or '1 hour'"
            )
        unit = next(name for name in _UNIT_MS if match[name])
        milliseconds = float(match["number"] or 1) * _UNIT_MS[unit]
    elif isinstance(window, (int, float)) and not isinstance(window, bool):
        milliseconds = window * 1000
    else:
        raise InvalidLimitError(f"not a window: {window!r}; expected seconds, timedelta or text")
    if not math.isfinite(milliseconds) or milliseconds >= 2**63 or round(milliseconds) < 1:
        raise InvalidLimitError(f"a window must be at least 1 ms and finite, not {window!r}")
    return round(milliseconds)
