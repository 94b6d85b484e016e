"""Named keys, and what a terminal sends for them. The names are VibeTunnel's, and `ctrl+LETTER`."""

from __future__ import annotations

KEYS: dict[str, bytes] = {
    "enter": b"\r",
    "ctrl_enter": b"\n",
    "shift_enter": b"\x1b\r",
    "escape": b"\x1b",
    "backspace": b"\x7f",
    "tab": b"\t",
    "shift_tab": b"\x1b[Z",
    "space": b" ",
    "arrow_up": b"\x1b[A",
    "arrow_down": b"\x1b[B",
    "arrow_right": b"\x1b[C",
    "arrow_left": b"\x1b[D",
    "home": b"\x1b[H",
    "end": b"\x1b[F",
    "insert": b"\x1b[2~",
    "delete": b"\x1b[3~",
    "page_up": b"\x1b[5~",
    "page_down": b"\x1b[6~",
    "f1": b"\x1bOP",
    "f2": b"\x1bOQ",
    "f3": b"\x1bOR",
    "f4": b"\x1bOS",
    "f5": b"\x1b[15~",
    "f6": b"\x1b[17~",
    "f7": b"\x1b[18~",
    "f8": b"\x1b[19~",
    "f9": b"\x1b[20~",
    "f10": b"\x1b[21~",
    "f11": b"\x1b[23~",
    "f12": b"\x1b[24~",
}


def key_bytes(name: str) -> bytes:
    """What the key sends. Raises ValueError for a name that is none."""
    key = name.lower().replace("-", "_")
    if key in KEYS:
        return KEYS[key]
    if key.startswith(("ctrl+", "ctrl_")) and len(key) == 6 and 0x3F <= ord(key[5].upper()) <= 0x5F:
        return bytes([ord(key[5].upper()) ^ 0x40])
    raise ValueError(
        f"{name!r} is no key: ctrl+a to ctrl+z, ctrl+[ and so on, or one of {', '.join(KEYS)}"
    )
