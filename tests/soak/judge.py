"""Says whether a figure still rises in the second half of a soak.

The first half is warm-up: imports, caches and allocators fill up. Over the second half, two
estimates of the rise that single peaks do not move must both exceed what is allowed: a fitted line
(the median of the slopes between all pairs of samples, Theil and Sen) over the whole of it, and the
median of its last quarter less that of its first. Allowed is a fixed amount for the figure, a share
of its level, what is left of the settling after the start, and three times the noise (the median
distance from the fitted line).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

FEWEST_SAMPLES = 12
NOISE_FACTOR = 3.0


@dataclass(frozen=True)
class Tolerance:
    """How much a figure may rise in the second half, in its own unit."""

    absolute: float
    share: float = 0.0
    settling: float = 0.0
    """More in a half of a minute, and less the longer it is: half as much in one of two minutes."""

    def allows(self, level: float, seconds: float) -> float:
        return self.absolute + self.share * level + self.settling * 60 / max(60, seconds)


TOLERANCES = {
    # What a process has allocated; no other process changes it.
    "anonymous_kb": Tolerance(256, 0.005, 1024),
    # With the pages of files: those of libraries come as code is used, those of recordings do not.
    "rss_kb": Tolerance(512, 0.01, 2048),
    # A short soak meets its few groups of clients in any order.
    "descriptors": Tolerance(1, settling=24),
    "threads": Tolerance(1, settling=2),
    "children": Tolerance(1, settling=8),
}


@dataclass(frozen=True)
class Trend:
    """How a figure went over the second half."""

    start: float
    """Median of the first quarter."""
    end: float
    """Median of the last quarter."""
    rise: float
    """The smaller of both estimates."""
    allowed: float

    @property
    def rises(self) -> bool:
        return self.rise > self.allowed


def trend(times_s: Sequence[float], values: Sequence[float], tolerance: Tolerance) -> Trend | None:
    """The trend of the second half of the time, or None where it has too few samples."""
    if not times_s:
        return None
    middle = (times_s[0] + times_s[-1]) / 2
    points = [(t, v) for t, v in zip(times_s, values, strict=True) if t >= middle]
    if len(points) < FEWEST_SAMPLES:
        return None
    slope = median((v2 - v1) / (t2 - t1) for (t1, v1), (t2, v2) in combinations(points, 2))
    base = median(v - slope * t for t, v in points)
    noise = median(abs(v - slope * t - base) for t, v in points)
    quarter = len(points) // 4
    start = median(v for _, v in points[:quarter])
    end = median(v for _, v in points[-quarter:])
    seconds = points[-1][0] - points[0][0]
    rise = min(slope * seconds, end - start)
    allowed = tolerance.allows(start, seconds) + NOISE_FACTOR * noise
    return Trend(start, end, rise, allowed)
