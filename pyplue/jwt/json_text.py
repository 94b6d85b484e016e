"""JSON for tokens: orjson where it is installed and agrees with the standard library, else that.

orjson is several times faster. The two differ in a few values; for those the standard library
decides, so that a token means the same with and without orjson:

- integers beyond 64 bits, which orjson reads as floats and refuses to write;
- NaN and Infinity, which orjson writes as null;
- lone surrogates, numbers beyond the range of a float, keys that are not strings.

A UUID is written as its text and an enum member as its value, which is what orjson does.
"""

from __future__ import annotations

import enum
import json
import uuid
from typing import Any

from pyplue.jwt.exceptions import DecodeError

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]

DIGITS_TO_ZERO = bytes(ord("0") if chr(byte).isdecimal() else byte for byte in range(256))
PERHAPS_BEYOND_64_BITS = b"0" * 19
"""Nineteen digits in a row, once all are zeros."""


def standard_loads(text: bytes) -> Any:
    """The value of UTF-8 JSON text, as json.loads reads it.

    Raises:
        DecodeError: The payload of a token is no JSON.
    """
    try:
        return json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"Invalid payload string: {error}") from error


def standard_dumps(
    value: object, json_encoder: type[json.JSONEncoder] | None, allow_nan: bool
) -> bytes:
    """`value` as JSON text.

    Raises:
        TypeError: A value that has no JSON form.
        ValueError: NaN or Infinity where `allow_nan` is off; a circular structure.
    """
    if json_encoder is not None:
        return json.dumps(value, separators=(",", ":"), cls=json_encoder).encode()
    return json.dumps(
        value, separators=(",", ":"), allow_nan=allow_nan, default=_further_types
    ).encode()


def _further_types(value: object) -> object:
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def loads(text: bytes) -> Any:
    """The value of UTF-8 JSON text, by the fastest way that gives what json.loads gives."""
    if orjson is None or text.translate(DIGITS_TO_ZERO).partition(PERHAPS_BEYOND_64_BITS)[1]:
        return standard_loads(text)
    try:
        return orjson.loads(text)
    except ValueError:
        return standard_loads(text)


fast_loads = standard_loads if orjson is None else orjson.loads
"""The value of JSON text without integers beyond 64 bits; ValueError if only `standard_loads` can
tell."""


def dumps(value: dict[str, Any]) -> bytes | None:
    """`value` as JSON text, or None where only `standard_dumps` can tell."""
    if orjson is None:
        return None
    try:
        text = orjson.dumps(value, None, _ORJSON_OPTIONS)
    except TypeError:
        return None
    return None if text.partition(b"null")[1] else text


_ORJSON_OPTIONS = (
    0 if orjson is None else orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
