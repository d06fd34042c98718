"""Picking rows per image: the best, given ones, and back into place. The same on every backend.

Shapes: B images, n rows, k picked rows.
"""

from __future__ import annotations

import keras
from keras import ops


def loops_wait(array) -> bool:
    """Whether a loop that ends by values waits for the device in each round (PyTorch, on a GPU)."""
    return keras.config.backend() == "torch" and array.device.type != "cpu"


def best_indices(scores, count):
    """Indices of the highest scores, best first; equal scores in the order of their indices.

    Args:
        scores: (B, n) float32.
        count: how many, at most n.

    Returns:
        (B, count) int32.
    """
    if keras.config.backend() == "torch":  # its top-k leaves the order of equal scores open
        return ops.argsort(-scores, axis=-1)[:, :count]
    return ops.cast(ops.top_k(scores, count)[1], "int32")


def gather_rows(table, indices):
    """Rows of each image's own table.

    Args:
        table: (B, n, ...) any type.
        indices: (B, k) int32, within 0 to n - 1.

    Returns:
        (B, k, ...), as `table`.
    """
    if keras.config.backend() == "jax":
        # One gather over the flattened batch would make XLA collect all tables on each of several devices.
        return ops.vectorized_map(lambda pair: ops.take(pair[0], pair[1], axis=0), (table, indices))
    length = table.shape[1]
    rest = tuple(table.shape[2:])
    batch = ops.shape(table)[0]
    starts = ops.arange(batch, dtype="int64") * length  # a batch of masks outgrows int32
    flat_indices = ops.reshape(ops.cast(indices, "int64") + starts[:, None], (-1,))
    rows = ops.take(ops.reshape(table, (batch * length, *rest)), flat_indices, axis=0)
    return ops.reshape(rows, (batch, indices.shape[1], *rest))


def scatter_rows(values, indices, length):
    """A row of zeros per image, with values added at their indices.

    Args:
        values: (B, k) int32 or float32.
        indices: (B, k) int32, within 0 to length - 1.
        length: length of the row.

    Returns:
        (B, length), as `values`.
    """
    if keras.config.backend() == "jax":
        return ops.vectorized_map(
            lambda pair: ops.scatter(ops.expand_dims(pair[1], -1), pair[0], (length,)), (values, indices)
        )
    batch = ops.shape(values)[0]
    flat_indices = ops.cast(indices, "int32") + ops.arange(batch, dtype="int32")[:, None] * length
    zeros = ops.zeros((batch * length,), dtype=values.dtype)
    flat = ops.scatter_update(
        zeros, ops.reshape(flat_indices, (-1, 1)), ops.reshape(values, (-1,)), reduction="add"
    )
    return ops.reshape(flat, (batch, length))
