"""Models for other programs, for modules with the option export=."""

from __future__ import annotations

from collections.abc import Callable

import grass.script as gs

from ann.export.exported import Exported, check_export, save_export
from ann.grass.options import use_threads


def export_model(path: str, export: Callable[[], Exported], threads: int = 0) -> None:
    """Write what `export` makes as an ONNX file, with a STAC item beside it. Keras is imported by `export`.

    Raises:
        ModelFileError: a file can't be written or is there already, which is found out before the work.
    """
    check_export(path, overwrite=gs.overwrite())
    use_threads(threads)
    model, item = save_export(path, export())
    gs.message(f"The model is in {model}, its description for catalogues in {item}")
