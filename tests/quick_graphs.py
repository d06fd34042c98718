"""TensorFlow optimises graphs for longer than the few steps of a test take. Modules in GRASS still do."""

from __future__ import annotations

import sys


def skip_graph_optimisation(skip: bool = True) -> None:
    """Have TensorFlow, if it is imported, run graphs as they are, or no longer."""
    if "tensorflow" in sys.modules:
        import tensorflow

        tensorflow.config.optimizer.set_experimental_options({"disable_meta_optimizer": skip})
