"""The dense part of the network once more, in NumPy with double precision: what its layers should compute.

Independent of Keras: it is fed tensors by the names of the legacy layout.
"""

from __future__ import annotations

from string import ascii_lowercase

import numpy as np

BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}


class NumpyNetwork:
    """Backbone, pyramid and proposal head of `backbone` over `weights`, arrays by dataset name."""

    def __init__(self, backbone: str, weights: dict[str, np.ndarray]):
        self.blocks = BLOCKS[backbone]
        self.weights = {name: np.asarray(values, np.float64) for name, values in weights.items()}

    def features(self, images: np.ndarray):
        """images (B, H, W, bands) -> [C2..C5], [P2..P6], logits (B, A, 2), deltas (B, A, 4)."""
        maps = self._backbone(np.asarray(images, np.float64))
        pyramid = self._pyramid(maps)
        shared = [np.maximum(self._same(level, "rpn_conv_shared"), 0) for level in pyramid]
        rows = [
            np.concatenate([self._convolve(x, name).reshape(len(x), -1, values) for x in shared], axis=1)
            for name, values in (("rpn_class_raw", 2), ("rpn_bbox_pred", 4))
        ]
        return maps, pyramid, *rows

    def _backbone(self, x):
        x = np.pad(x, [(0, 0), (3, 3), (3, 3), (0, 0)])
        x = np.maximum(self._normalise(self._convolve(x, "conv1", 2), "bn_conv1"), 0)
        x = np.pad(x, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=-np.inf)
        x = _windows(x, 3, 2).max(axis=(3, 4))
        maps = []
        for stage, blocks in enumerate(self.blocks, 2):
            for block in ascii_lowercase[:blocks]:
                name, stride = f"{stage}{block}_branch", 2 if block == "a" and stage > 2 else 1
                y = np.maximum(self._normalise(self._convolve(x, f"res{name}2a", stride), f"bn{name}2a"), 0)
                y = np.maximum(self._normalise(self._same(y, f"res{name}2b"), f"bn{name}2b"), 0)
                y = self._normalise(self._convolve(y, f"res{name}2c"), f"bn{name}2c")
                if block == "a":
                    x = self._normalise(self._convolve(x, f"res{name}1", stride), f"bn{name}1")
                x = np.maximum(x + y, 0)
            maps.append(x)
        return maps

    def _pyramid(self, maps):
        merged = [self._convolve(maps[3], "fpn_c5p5")]
        for level in (4, 3, 2):
            above = merged[0].repeat(2, axis=1).repeat(2, axis=2)
            merged.insert(0, above + self._convolve(maps[level - 2], f"fpn_c{level}p{level}"))
        pyramid = [self._same(x, f"fpn_p{level}") for level, x in enumerate(merged, 2)]
        return [*pyramid, pyramid[-1][:, ::2, ::2]]

    def _same(self, x, name):
        return self._convolve(np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), name)

    def _convolve(self, x, name, stride=1):
        kernel, bias = self.weights[f"{name}/kernel:0"], self.weights[f"{name}/bias:0"]
        windows = _windows(x, kernel.shape[0], stride)  # (B, h, w, k, k, channels)
        return windows.reshape(*windows.shape[:3], -1) @ kernel.reshape(-1, kernel.shape[-1]) + bias

    def _normalise(self, x, name):
        gamma, beta, mean, variance = (
            self.weights[f"{name}/{kind}:0"] for kind in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / np.sqrt(variance + 1e-3) * gamma + beta


def _windows(x, size, stride):
    """Sliding windows of (B, H, W, C): (B, h, w, size, size, C)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return np.moveaxis(windows[:, ::stride, ::stride], 3, -1)
