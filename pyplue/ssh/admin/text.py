"""Text for terminals: aligned tables in which no byte from the database can do harm."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> str:
    """Rows under their heads, or what to say when there are none."""
    cells = [[plain(str(cell)) for cell in row] for row in rows]
    if not cells:
        return empty
    cells.insert(0, [head.upper() for head in heads])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
    return "\n".join(lines)


def plain(text: str) -> str:
    """Control characters and the like are shown as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
