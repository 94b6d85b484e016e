"""The algorithms once more, as plainly as possible, in exact fractions and whole milliseconds."""

from __future__ import annotations

from fractions import Fraction


class FixedWindow:
    def __init__(self, limit: int, window: int) -> None:
        self.limit, self.window, self.start, self.count = limit, window, None, 0

    def used(self, now: int) -> int:
        gone = self.start is None or now >= self.start + self.window
        return 0 if gone else self.count

    def hit(self, now: int, cost: int) -> bool:
        used = self.used(now)
        if used + cost > self.limit:
            return False
        if self.start is None or now >= self.start + self.window:
            self.start = now
        self.count = used + cost
        return True

    def refund(self, cost: int, until: int) -> None:
        """`until` is when the window of the request ended, or less than a window earlier."""
        if self.start is not None and self.start < until:
            self.count = max(0, self.count - cost)


class SlidingWindow:
    def __init__(self, limit: int, window: int) -> None:
        self.limit, self.window, self.start, self.previous, self.current = limit, window, None, 0, 0

    def state(self, now: int) -> tuple[int, int, int]:
        if self.start is None or now >= self.start + 2 * self.window:
            return now, 0, 0
        if now >= self.start + self.window:
            return self.start + self.window, self.current, 0
        return self.start, self.previous, self.current

    def used(self, now: int) -> Fraction:
        start, previous, current = self.state(now)
        # A clock that stepped back is held still.
        gone = Fraction(max(0, now - start), self.window)
        return previous * (1 - gone) + current

    def hit(self, now: int, cost: int) -> bool:
        if self.used(now) + cost > self.limit:
            return False
        self.start, self.previous, self.current = self.state(now)
        self.current += cost
        return True

    def refund(self, cost: int, until: int) -> None:
        """`until` is when the window of the request has faded, or less than a window earlier."""
        if self.start is None:
            return
        if self.start + self.window < until:
            self.current = max(0, self.current - cost)
        elif self.start < until:
            self.previous = max(0, self.previous - cost)


class Gcra:
    def __init__(self, limit: int, window: int) -> None:
        self.limit, self.window, self.arrival, self.last = limit, window, Fraction(0), 0

    def used(self, now: int) -> Fraction:
        if self.limit == 0:
            return Fraction(0)
        return max(Fraction(0), (self.arrival - now) * self.limit / self.window)

    def hit(self, now: int, cost: int) -> bool:
        used = self.used(now)
        if used + cost > self.limit:
            return False
        self.arrival = now + (used + cost) * Fraction(self.window, self.limit)
        self.last = now
        return True

    def refund(self, cost: int, until: int) -> None:
        """`until` is when the bucket would have been full again after the request."""
        undrained = max(0, until - self.last)
        self.arrival -= min(cost * Fraction(self.window, self.limit), undrained)


MODELS = {"fixed-window": FixedWindow, "sliding-window": SlidingWindow, "gcra": Gcra}
