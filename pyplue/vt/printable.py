"""Text that others chose (names, commands, paths), made safe to print on a terminal."""

from __future__ import annotations

import re

# Control characters, also C1; lone surrogates; and what reorders or hides the text around it.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
)


def printable(text: str, longest: int = 256) -> str:
    """`text` without characters that do something to a terminal, cut to `longest` characters."""
    clean = _UNSAFE.sub("", text[: longest * 4])
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"
