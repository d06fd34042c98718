"""Fields of COCO entries in the forms in which programs write them: numbers as text, placeholders, flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ann.data.text import plain

_WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0*")
_NO = ("", "0", "false", "no", "none", "null")
_YES = ("1", "true", "yes")


def identity(value: Any) -> str:
    """An id in the one form in which ids are compared: 1, 1.0, "1" and " 1.0" are the same."""
    text = "" if value is None else plain(value)
    match = _WHOLE_NUMBER.fullmatch(text)
    return match[1] if match else text


def stated_length(value: Any) -> int | None:
    """A side in pixels, given as number or text; None where there is a placeholder (-1, 0, nothing)."""
    try:
        length = float(value)
    except (TypeError, ValueError):
        return None
    return int(length) if length >= 1 and length.is_integer() else None


def is_set(entry: Mapping[str, Any], key: str) -> bool:
    """A yes or no, given as number, truth value or text; no where it is missing.

    Raises:
        ValueError: it is neither.
    """
    text = identity(entry.get(key)).lower()
    if text in _NO:
        return False
    if text in _YES:
        return True
    raise ValueError(f"{key} is {entry[key]!r}, expected 0 or 1")
