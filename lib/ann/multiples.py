"""Sides that must be multiples of what a network shrinks images by."""

from __future__ import annotations

from ann.errors import AnnError


def check_multiple(name: str, value: int, multiple: int, of: str = "") -> None:
    """Raise AnnError, with the nearest values that will do, where a value is no positive multiple.

    name: of the option; of: words before the multiple in the message.
    """
    if value <= 0 or value % multiple:
        lower = max(value // multiple, 1) * multiple
        raise AnnError(
            f"{name}={value} is not a multiple of {of}{multiple}. Try {lower} or {lower + multiple}"
        )
