"""Spans of time as the npm package jose writes them: "7d", "2 hours", "1 week from now"."""

from __future__ import annotations

import functools
import math
import re
from datetime import timedelta

_UNIT_SECONDS = {
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
    "y": 365.25 * 86400.0,
}

_SPAN = re.compile(
    r"""
    (?P<sign>[+-])?[ ]?
    (?P<number>[0-9]+(?:\.[0-9]+)?)[ ]?
    (?:
        (?P<s>seconds?|secs?|s) | (?P<m>minutes?|mins?|m) | (?P<h>hours?|hrs?|h) |
        (?P<d>days?|d) | (?P<w>weeks?|w) | (?P<y>years?|yrs?|y)
    )
    (?:[ ](?P<direction>ago|from[ ]now))?
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)


def seconds(span: str | float | timedelta) -> int:
    """The number of whole seconds in a span of time; negative for the past.

    Args:
        span: Text such as "7d", "30 mins", "1.5h" or "1 day ago" (units from seconds to years of
            365.25 days, in any case, rounded to the nearest second); a number of seconds; or a
            timedelta.

    Raises:
        ValueError: The text is no span of time, or the number is not finite.
    """
    if isinstance(span, timedelta):
        return round(span.total_seconds())
    if isinstance(span, (int, float)) and not isinstance(span, bool):
        if not math.isfinite(span):
            raise ValueError(f"not a span of time: {span!r}")
        return round(span)
    if not isinstance(span, str):
        raise ValueError(f"not a span of time: {span!r}")
    return _parse(span)


@functools.lru_cache(maxsize=64)
def _parse(span: str) -> int:
    match = _SPAN.fullmatch(span)
    if match is None or (match["sign"] and match["direction"]):
        raise ValueError(f"not a span of time: {span!r}; expected for example '7d' or '2 hours'")
    unit = next(name for name in _UNIT_SECONDS if match[name])
    count = math.floor(float(match["number"]) * _UNIT_SECONDS[unit] + 0.5)
    return -count if match["sign"] == "-" or match["direction"] == "ago" else count
