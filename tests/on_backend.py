"""Run functions of the network as they run in earnest: compiled, on the configured backend."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import numpy as np
from keras import ops

from ann.inference.compilation import compile_function

BOX_DEVIATION = (0.1, 0.1, 0.2, 0.2)
ANCHOR_SCALES = (32, 64, 128, 256, 512)
ANCHOR_RATIOS = (0.5, 1.0, 2.0)


@functools.cache
def _compiled(function, options):
    return compile_function(lambda *arrays: function(*arrays, **dict(options)))


def run(function, *arrays, **options):
    """`function(*arrays, **options)` as NumPy arrays, in the structure that it returns.

    Compiled once for each set of (hashable) options and shapes, which takes longer than the run itself.
    """
    arrays = [ops.convert_to_tensor(array) for array in arrays]
    results = _compiled(function, tuple(options.items()))(*arrays)
    return keras.tree.map_structure(ops.convert_to_numpy, results)


def reference(part):
    """Arrays of the original network: of `cases`, `detect` or `train` in reference/ops.npz, by name."""
    with np.load(Path(__file__).parent / "reference" / "ops.npz") as file:
        return {key.split("/")[1]: file[key] for key in file.files if key.startswith(f"{part}/")}


def gradients(function, *arrays):
    """Gradients of a scalar function for each array, as NumPy arrays, zeros where there is none."""
    arrays = [ops.convert_to_tensor(array) for array in arrays]
    if keras.backend.backend() == "jax":
        import jax

        found = jax.jit(jax.grad(function, argnums=tuple(range(len(arrays)))))(*arrays)
    elif keras.backend.backend() == "torch":
        import torch

        arrays = [array.detach().requires_grad_(True) for array in arrays]
        found = torch.autograd.grad(function(*arrays), arrays, allow_unused=True, materialize_grads=True)
    else:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(arrays)
            value = tf.function(function, autograph=False)(*arrays)
        found = tape.gradient(value, arrays, unconnected_gradients="zero")
        found = [tf.convert_to_tensor(gradient) for gradient in found]
    return [ops.convert_to_numpy(gradient) for gradient in found]


def random_boxes(random, count, size=1.0):
    """(count, 4) float32 boxes of all shapes inside of (0, 0, size, size)."""
    corners = random.random((count, 2, 2)) * size
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1).astype(np.float32)


def plain_iou(box, others):
    """IoU of one box (4,) with others (m, 4), float32, one step at a time."""
    box, others = box.astype(np.float32), others.astype(np.float32)
    height = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    width = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    shared = np.maximum(height, 0) * np.maximum(width, 0)
    areas = (others[:, 2] - others[:, 0]) * (others[:, 3] - others[:, 1])
    union = (box[2] - box[0]) * (box[3] - box[1]) + areas - shared
    return np.where(shared > 0, shared / np.where(union > 0, union, 1), 0)
