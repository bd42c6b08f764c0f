"""What Python's `json` lets pass and no JSON file in UTF-8 can hold: halves of surrogate pairs, and NaN."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from ..errors import FaultyInput, fault

# An escaped pair, one half of a pair alone, or any other escape, so that `\\ud800` (a backslash and letters) is none.
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)


def strict_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none; NaN and infinities are none.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, parse_constant=refuse_constant)


def refuse_constant(name: str) -> NoReturn:
    """For `json` to call at `NaN`, `Infinity` and `-Infinity`."""
    raise ValueError(f"{name} is no JSON value")


def surrogate_place(text: str) -> int | None:
    """The number of the first character that is half a surrogate pair, from 1; None if there is none."""
    if text.isascii():
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return error.start + 1
    return None


def no_unicode(value: Any, where: str, key: str = "") -> FaultyInput | None:
    """The fault of the first text inside a JSON value that has half a surrogate pair; None if there is none.

    Args:
        key: the field that holds the value; the name at the top where it is a mapping.
    """
    if isinstance(value, str):
        place = surrogate_place(value)
        told = f"not valid Unicode (a lone surrogate at character {place})"
        return None if place is None else fault(told, where=where, key=key)
    if isinstance(value, Mapping):
        for name, held in value.items():
            place = surrogate_place(str(name))
            if place is not None:
                told = f"a field's name is not valid Unicode (a lone surrogate at character {place})"
                return fault(told, where=where, key=key)
            found = no_unicode(held, where, key or str(name))
            if found is not None:
                return found
    if isinstance(value, list | tuple):
        return next((found for item in value if (found := no_unicode(item, where, key)) is not None), None)
    return None


def escaped_surrogate(line: bytes, where: str) -> FaultyInput | None:
    """The fault of a line of JSON that escapes half a surrogate pair; None if there is none.

    A line of a longer document is judged by its escapes alone; one that is a value of its own names the field.
    """
    if b"\\ud" not in line and b"\\uD" not in line:
        return None
    half = next((found[1] for found in _ESCAPE.finditer(line) if found[1]), None)
    if half is None:
        return None
    try:
        found = no_unicode(json.loads(line), where)
    except (ValueError, RecursionError):
        found = None
    return found or fault(f"not valid Unicode (a lone surrogate, \\{half.decode('ascii', 'replace')})", where=where)
