"""pyte's terminal with what it lacks: the alternate screen, xterm's way to change the size, and a
few sequences. Only screen.py uses it; importing it needs pyte."""

from __future__ import annotations

import copy
import unicodedata
from typing import Any

import pyte
from pyte import modes
from pyte.screens import wcwidth

from pyplue.vt.replay import ALTERNATE

__all__ = ["REFUSALS", "Stream", "Terminal", "wcwidth"]

# What pyte raises at numbers that it did not expect.
REFUSALS = (ArithmeticError, AssertionError, LookupError, NameError, TypeError, ValueError)


# DECSCNM, the private mode that shows the whole screen in reverse.
_REVERSED = 5


class Terminal(pyte.Screen):
    """pyte's screen with what it lacks. Whoever looks at it reverses what it shows if it is
    `reversed`: pyte would change all of its cells, which programs may ask for again and again."""

    reversed: bool

    def __init__(self, cols: int, rows: int) -> None:
        # The main screen's rows and saved cursor, while the alternate one is shown.
        self._main: tuple[dict[int, Any], list[Any]] | None = None
        self._last = " "
        super().__init__(cols, rows)

    def reset(self) -> None:
        self._main = None
        self.savepoints = []
        self.reversed = False
        super().reset()

    def draw(self, data: str) -> None:
        if data.isascii() and data.isprintable():
            self._last = data[-1]
            return super().draw(data)
        # pyte drops the rest of a text at a character without a width, and puts half of a wide one
        # into the last column.
        for character in data:
            width = wcwidth(character)
            if width <= 0 and not unicodedata.combining(character):
                continue
            if width == 2 and self.cursor.x == self.columns - 1 and modes.DECAWM in self.mode:
                self.cursor.x = self.columns
            self._last = character
            super().draw(character)

    def repeat(self, count: int | None = None) -> None:
        """REP: the last character again. A row of it at most: xterm goes on to a whole screen, tmux
        ends with the row, and a few bytes must not cost as much as a screen."""
        self.draw(self._last * min(count or 1, self.columns))

    def alignment_display(self) -> None:
        """DECALN: E everywhere, as xterm does it, and not cell by cell."""
        cells = dict.fromkeys(range(self.columns), self.default_char._replace(data="E"))
        for y in range(self.lines):
            self.buffer[y].clear()
            self.buffer[y].update(cells)
        self.set_margins()

    def delete_lines(self, count: int | None = None) -> None:
        self._fill_rows()
        super().delete_lines(count)

    def insert_lines(self, count: int | None = None) -> None:
        self._fill_rows()
        super().insert_lines(count)

    def _fill_rows(self) -> None:
        """pyte forgets to move rows that nothing was ever written to."""
        for y in range(self.lines):
            _ = self.buffer[y]

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
        """The place stays remembered; the scroll region does not matter for it."""
        if not self.savepoints:
            return super().restore_cursor()
        point = self.savepoints[-1]
        self.savepoints.append(point._replace(cursor=copy.copy(point.cursor)))
        super().restore_cursor()
        self.cursor.x = min(point.cursor.x, self.columns - 1)
        self.cursor.y = min(point.cursor.y, self.lines - 1)

    def save_cursor_of_csi(self, *_: int) -> None:
        self.save_cursor()

    def restore_cursor_of_csi(self, *_: int) -> None:
        self.restore_cursor()

    def cursor_up(self, count: int | None = None) -> None:
        """The scroll region stops the cursor only from within."""
        self.ensure_hbounds()  # beyond the last column, pyte would wrap after the move
        top = self.margins.top if self.margins and self.cursor.y >= self.margins.top else 0
        self.cursor.y = max(self.cursor.y - (count or 1), top)

    def cursor_down(self, count: int | None = None) -> None:
        self.ensure_hbounds()
        bottom = self.lines - 1
        if self.margins and self.cursor.y <= self.margins.bottom:
            bottom = self.margins.bottom
        self.cursor.y = min(self.cursor.y + (count or 1), bottom)

    def set_margins(self, top: int | None = None, bottom: int | None = None) -> None:
        super().set_margins(top, bottom)
        self.cursor_position()  # also when the region is the whole screen again

    def cursor_to_line(self, line: int | None = None) -> None:
        self.ensure_hbounds()
        super().cursor_to_line(line)

    def set_mode(self, *numbers: int, **kwargs: Any) -> None:
        numbers = self._without_reversed(numbers, True, **kwargs)
        super().set_mode(*numbers, **kwargs)
        if kwargs.get("private") and self._main is None and set(numbers) & set(ALTERNATE):
            if 1049 in numbers:
                self.save_cursor()
            self._main = dict(self.buffer), self.savepoints
            self.savepoints = []
            self.buffer.clear()

    def reset_mode(self, *numbers: int, **kwargs: Any) -> None:
        numbers = self._without_reversed(numbers, False, **kwargs)
        super().reset_mode(*numbers, **kwargs)
        if kwargs.get("private") and self._main is not None and set(numbers) & set(ALTERNATE):
            rows, self.savepoints = self._main
            self.buffer.clear()
            self.buffer.update(rows)
            self._main = None
            self._keep_within()
            if 1049 in numbers:
                self.restore_cursor()

    def _without_reversed(
        self, numbers: tuple[int, ...], on: bool, private: bool = False
    ) -> tuple[int, ...]:
        if not private or _REVERSED not in numbers:
            return numbers
        self.reversed = on
        return tuple(number for number in numbers if number != _REVERSED)

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

    def _send_to_parser(self, data: str) -> bool:
        """A sequence that pyte cannot take resets its parser, and what follows counts again."""
        try:
            return bool(super()._send_to_parser(data))
        except REFUSALS:
            return True  # plain text may follow
