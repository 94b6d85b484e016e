"""Control sequences in a terminal's output: finds them, and takes out what must not be replayed.

A terminal answers queries, and its answer goes to whoever reads the keyboard. In a replay the
program that asked has its answer long since, and a second one would be typed into it.
"""

from __future__ import annotations

import re

# One of: CSI, OSC, DCS SOS PM APC, any other escape sequence. ECMA-48, sections 5.3 to 5.6; xterm's
# "Control Sequences" for BEL as the end of an OSC.
SEQUENCE = re.compile(
    r"\x1b(?:"
    r"\[(?P<csi>[ -?]*[@-~])"
    r"|\](?P<osc>[^\x07\x18\x1a\x1b]*)(?:\x07|\x1b\\|[\x18\x1a]|(?=\x1b[^\\]))"
    r"|(?P<string>[PX^_][^\x18\x1a\x1b]*)(?:\x1b\\|[\x18\x1a]|(?=\x1b[^\\]))"
    r"|(?P<escape>[ -/]+[0-~]|[0-OQ-WYZ\\`-~])"
    r")"
)
_UNFINISHED = re.compile(
    r"\x1b(?:\[[ -?]*|\][^\x07\x18\x1a\x1b]*\x1b?|[PX^_][^\x18\x1a\x1b]*\x1b?|[ -/]*)\Z"
)
# Longer than this and unfinished, it is no sequence that anybody waits for.
_LONGEST_UNFINISHED = 64 << 10

# The 8-bit forms of CSI, OSC and so on, as characters.
_C1 = re.compile("[\x80-\x9f]")
_SEVEN_BITS = {code: f"\x1b{chr(code - 0x40)}" for code in range(0x80, 0xA0)}

# By final byte, with whatever is before it: DA; DSR; DECREQTPARM; window reports and changes;
# printing. With a private mark or an intermediate byte: DECRQM, XTVERSION, DECRQSS and the like.
_CSI_QUERY = re.compile(
    r"[0-?]*c"
    r"|[0-=?][0-?]*n|n"
    r"|[0-?]*[xti]"
    r"|[0-?]*[ -/]*\$[puw]"
    r"|[0-?]*[\*\#\"&,'][a-zA-Z|~]"
    r"|>[0-?]*q"
    r"|\?[0-?]*[umS]"
)
# Titles, colours without "?" in their place, links, colours back to normal.
_OSC_HARMLESS = re.compile(
    r"(?:[012]|8)(?:;|\Z)|(?:4|1[0-279])(?:;[^?]*)\Z|1(?:04|1[0-279])(?:;|\Z)"
)


# A terminal obeys control characters at once, also those within a sequence, and goes on with the
# sequence (ECMA-48 does not say so; VT100s and all after them do). Not CAN, SUB, ESC: they end it.
_CONTROLS = "\x00-\x17\x19\x1c-\x1f\x7f"
_CONTROL = re.compile(f"[{_CONTROLS}]")
# The ESC of the next sequence ends a string, and any other sequence that is unfinished is nothing.
_STRING = r"(?:\][^\x07\x18\x1a\x1b]*|[PX^_][^\x18\x1a\x1b]*)"
_IRREGULAR = re.compile(
    rf"\x1b(?:{_STRING}(?=\x1b[^\\])|(?:\[[ -?]*|[ -/]*)(?:[{_CONTROLS}]|(?=\x1b)))"
)
_BEGINNING = re.compile(
    rf"\x1b(?:(?P<controls>[{_CONTROLS}]*)(?P<string>{_STRING})(?P<cut>(?=\x1b[^\\]))?"
    rf"|(?:[{_CONTROLS}]*\[[{_CONTROLS} -?]*|[{_CONTROLS} -/]*)(?P<nothing>(?=\x1b))?)"
)


def number(digits: str) -> int:
    """A parameter of a sequence, 0 when it is left out; terminals have a largest one as well."""
    return int(digits[:9] or 0)


class SequenceBuffer:
    """Joins what was cut: gives text in which every sequence is whole, and in one piece."""

    def __init__(self) -> None:
        self._held = ""

    def feed(self, text: str) -> str:
        if self._held:
            text, self._held = self._held + text, ""
        if _C1.search(text):
            text = text.translate(_SEVEN_BITS)
        # Here, where all of it is in view: what comes next may be held back.
        if _IRREGULAR.search(text):
            text = _BEGINNING.sub(_regular, text)
        # An unfinished sequence is at the very end: the last ESC, or the one before it.
        last = text.rfind("\x1b")
        if last >= 0:
            before = text.rfind("\x1b", 0, last) if last == len(text) - 1 else -1
            for start in (before, last):
                if start < 0 or not _UNFINISHED.match(text, start):
                    continue
                if len(text) - start <= _LONGEST_UNFINISHED:
                    self._held = text[start:]
                return text[:start]
        return text


def _regular(match: re.Match[str]) -> str:
    """Controls first, and an end for what has none."""
    if match["string"] is not None:
        end = "\x1b\\" if match["cut"] is not None else ""
        return f"{match['controls']}\x1b{match['string']}{end}"
    controls = "".join(_CONTROL.findall(match[0]))
    return controls if match["nothing"] is not None else controls + _CONTROL.sub("", match[0])


def without_queries(text: str) -> str:
    """`text`, whose sequences are whole, without those that make a terminal answer, or that act
    outside of its screen: clipboard, notifications, printing, the window's size, images."""
    return SEQUENCE.sub(_keep_harmless, text).replace("\x05", "")


def _keep_harmless(match: re.Match[str]) -> str:
    if match["csi"] is not None:
        return "" if _CSI_QUERY.fullmatch(match["csi"]) else match[0]
    if match["osc"] is not None:
        return match[0] if _OSC_HARMLESS.match(match["osc"]) else ""
    if match["string"] is not None:
        return ""
    return "" if match["escape"] == "Z" else match[0]
