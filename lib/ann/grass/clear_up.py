"""What runs left that were killed."""

from __future__ import annotations

import grass.script as gs

from ann.grass.exchange import recover
from ann.grass.temporary import remove_abandoned


def clear_up() -> None:
    """Put right what runs left that were killed, before maps are looked for."""
    for message in recover():
        gs.message(message)
    for name in remove_abandoned():
        gs.verbose(f"Removed <{name}>, left behind by a process that was killed")
