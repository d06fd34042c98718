"""Weights of other programs: torchvision's and detectron2's Mask R-CNN, as models of this one.

`open_model` reads any model file. What a checkpoint holds is told by its layers (`recognition.py`), its
tensors get the names and the order of numbers that they have here (`conversion.py`), and the steps between
the layers are those of the program it comes from (`variants.py`). What no file of weights can tell is asked
of a file beside it, of the user, or assumed (`settings.py`), and said in `ModelFile.notes`.
"""

from __future__ import annotations

from maskrcnn.foreign.importing import open_model
from maskrcnn.foreign.settings import parse_settings

__all__ = ["open_model", "parse_settings"]
