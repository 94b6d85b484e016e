"""A recording's events as they come, for `for` and for `async for`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pyplue.vt.cast import CastReader, Event

if TYPE_CHECKING:
    from typing_extensions import Self

# How often a growing file is looked at: soon after something came, and later.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.05
# The exit line follows "exited" in session.json at once; a recording without one ends after this.
_EXIT_LINE_S = 1.0


class Events:
    """An iterator and an async iterator over the events of one recording.

    With `follow` it waits for more until the session has ended: its last event is then ("x", exit
    code), unless the forwarder was killed, or another session was started with the same id. A line
    that is cut at the end is left out, see `cut`; a line that is no event raises CastError, and
    the next event is the one after it.
    """

    def __init__(
        self, path: Path, follow: bool, is_over: Callable[[], bool], offset: int = 0
    ) -> None:
        self._reader = CastReader(path, offset)
        self._follow = follow
        self._is_over = is_over
        self._over_since: float | None = None
        self._events: deque[Event] = deque()
        self._pause = _SHORTEST_PAUSE_S
        self._ended = False

    @property
    def cut(self) -> int:
        """Bytes of an unfinished line at the end; not 0 after the end when the recording was cut
        there."""
        return self._reader.cut

    def __iter__(self) -> Self:
        return self

    def __aiter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        while (event := self._next()) is None:
            if self._ended:
                raise StopIteration
            time.sleep(self._wait())
        return event

    async def __anext__(self) -> Event:
        import asyncio  # a third of the time that importing pyplue.vt would take

        while (event := self._next()) is None:
            if self._ended:
                raise StopAsyncIteration
            await asyncio.sleep(self._wait())
        return event

    def close(self) -> None:
        """Ends the iteration; also done at its end and when nobody refers to it any more."""
        self._ended = True
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _next(self) -> Event | None:
        """The next event; None when there is none now, or none ever (`_ended`)."""
        if not self._events and not self._ended:
            self._fill()
        if not self._events:
            return None
        self._pause = _SHORTEST_PAUSE_S
        event = self._events.popleft()
        if event.code == "x":
            self._events.clear()
            self._ended = True
        return event

    def _fill(self) -> None:
        # Asked before reading: what was written before the end is read, then.
        over = self._follow and self._over_for_long()
        if self._reader.replaced:
            self._ended = True
            return
        self._events.extend(self._reader.read())
        if not self._events and (over or not self._follow):
            self._ended = True

    def _over_for_long(self) -> bool:
        if self._pause < _LONGEST_PAUSE_S / 2 or not self._is_over():
            return False
        now = time.monotonic()
        if self._over_since is None:
            self._over_since = now
        return now - self._over_since > _EXIT_LINE_S

    def _wait(self) -> float:
        self._pause = min(self._pause * 1.5, _LONGEST_PAUSE_S)
        return self._pause
