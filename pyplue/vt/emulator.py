"""pyte's terminal with what it lacks: the alternate screen, xterm's way to change the size, and a
few sequences. Only screen.py uses it; importing it needs pyte."""

from __future__ import annotations

import copy
import unicodedata
from typing import Any

import pyte
from pyte.screens import wcwidth

from pyplue.vt.replay import ALTERNATE

__all__ = ["Stream", "Terminal", "wcwidth"]


class Terminal(pyte.Screen):
    """pyte's screen with what it lacks."""

    def __init__(self, cols: int, rows: int) -> None:
        self._main: dict[int, Any] | None = (
            None  # the main screen's rows, while the alternate one is shown
        )
        self._last = " "
        super().__init__(cols, rows)

    def reset(self) -> None:
        self._main = None
        self.savepoints = []
        super().reset()

    def draw(self, data: str) -> None:
        if not data.isascii():
            # pyte drops the rest of a text at a character without a width.
            data = "".join(c for c in data if wcwidth(c) > 0 or unicodedata.combining(c))
        if data:
            self._last = data[-1]
            super().draw(data)

    def repeat(self, count: int | None = None) -> None:
        """REP: the last character again."""
        self.draw(self._last * min(count or 1, self.columns * self.lines))

    def scroll_up(self, count: int | None = None) -> None:
        self._scroll(self.delete_lines, count)

    def scroll_down(self, count: int | None = None) -> None:
        self._scroll(self.insert_lines, count)

    def _scroll(self, move: Any, count: int | None) -> None:
        at = copy.copy(self.cursor)
        self.cursor.y = self.margins.top if self.margins else 0
        move(count)
        self.cursor = at

    def back_tab(self, count: int | None = None) -> None:
        for _ in range(min(count or 1, self.columns)):
            stops = [stop for stop in self.tabstops if stop < self.cursor.x]
            self.cursor.x = max(stops, default=0)

    def save_cursor(self) -> None:
        """One place is remembered, as in other terminals, and not a stack of them."""
        self.savepoints.clear()
        super().save_cursor()

    def restore_cursor(self) -> None:
        if self.savepoints:
            point = self.savepoints[-1]
            self.savepoints.append(point._replace(cursor=copy.copy(point.cursor)))
        super().restore_cursor()

    def save_cursor_of_csi(self, *_: int) -> None:
        self.save_cursor()

    def restore_cursor_of_csi(self, *_: int) -> None:
        self.restore_cursor()

    def cursor_up(self, count: int | None = None) -> None:
        self.ensure_hbounds()  # beyond the last column, pyte would wrap after the move
        super().cursor_up(count)

    def cursor_down(self, count: int | None = None) -> None:
        self.ensure_hbounds()
        super().cursor_down(count)

    def cursor_to_line(self, line: int | None = None) -> None:
        self.ensure_hbounds()
        super().cursor_to_line(line)

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        super().set_mode(*modes, **kwargs)
        if kwargs.get("private") and self._main is None and set(modes) & set(ALTERNATE):
            if 1049 in modes:
                self.save_cursor()
            self._main = dict(self.buffer)
            self.buffer.clear()

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        super().reset_mode(*modes, **kwargs)
        if kwargs.get("private") and self._main is not None and set(modes) & set(ALTERNATE):
            self.buffer.clear()
            self.buffer.update(self._main)
            self._main = None
            self._keep_within()
            if 1049 in modes:
                self.restore_cursor()

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """As xterm does: empty rows below the cursor go first, then those at the top."""
        lines, columns = lines or self.lines, columns or self.columns
        surplus = self.cursor.y - (lines - 1)
        if surplus > 0:
            rows = {y - surplus: row for y, row in self.buffer.items() if y >= surplus}
            self.buffer.clear()
            self.buffer.update(rows)
            self.cursor.y -= surplus
        self.lines, self.columns = lines, columns
        self.tabstops = set(range(8, columns, 8))
        self.margins = None
        self._keep_within()

    def _keep_within(self) -> None:
        for y in [y for y in self.buffer if y >= self.lines]:
            del self.buffer[y]
        for line in self.buffer.values():
            for x in [x for x in line if x >= self.columns]:
                del line[x]
        self.cursor.x = min(self.cursor.x, self.columns)
        self.ensure_vbounds()


class Stream(pyte.Stream):
    """Reads sequences for a `Terminal`."""

    csi: dict[str, str] = {  # noqa: RUF012 (pyte's own form)
        **pyte.Stream.csi,
        "b": "repeat",
        "S": "scroll_up",
        "T": "scroll_down",
        "Z": "back_tab",
        "s": "save_cursor_of_csi",
        "u": "restore_cursor_of_csi",
    }

    def __init__(self, screen: Terminal) -> None:
        super().__init__(screen)
        # Character sets other than UTF-8's, for line drawing.
        self.use_utf8 = False
