"""detectron2's network with a ResNet101, of which there are no reference numbers: its layers in PyTorch.

What lies between the layers is that of ResNet50, see `test_foreign_numbers.py`.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

from foreign_weights import BLOCKS, detectron2_weights, write_safetensors
from maskrcnn.detector import load_network
from maskrcnn.foreign import open_model

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def detectron2_levels(tensors: dict, image: np.ndarray) -> tuple[list, list, list]:
    """P2 to P6, logits and deltas of each, (1, C, h, w), as detectron2 computes them of (1, C, H, W)."""

    def convolution(x, name, **options):
        return functional.conv2d(x, tensors[f"{name}.weight"], tensors.get(f"{name}.bias"), **options)

    def normalised(x, name, **options):
        kinds = ("running_mean", "running_var", "weight", "bias")
        statistics = [tensors[f"{name}.norm.{kind}"] for kind in kinds]
        return functional.batch_norm(convolution(x, name, **options), *statistics, eps=1e-5)

    body, x = "backbone.bottom_up", torch.from_numpy(image)
    x = functional.relu(normalised(x, f"{body}.stem.conv1", stride=2, padding=3))
    x = functional.max_pool2d(x, 3, 2, 1)
    stages = {}
    for stage, blocks in enumerate(BLOCKS[101], 2):
        for block in range(blocks):
            name, stride = f"{body}.res{stage}.{block}", 2 if block == 0 and stage > 2 else 1
            y = functional.relu(normalised(x, f"{name}.conv1", stride=stride))
            y = functional.relu(normalised(y, f"{name}.conv2", padding=1))
            y = normalised(y, f"{name}.conv3")
            x = functional.relu(y + (x if block else normalised(x, f"{name}.shortcut", stride=stride)))
        stages[stage] = x
    levels, above = {}, 0
    for level in (5, 4, 3, 2):
        above = convolution(stages[level], f"backbone.fpn_lateral{level}") + above
        levels[level] = convolution(above, f"backbone.fpn_output{level}", padding=1)
        above = functional.interpolate(above, scale_factor=2, mode="nearest")
    pyramid = [levels[level] for level in (2, 3, 4, 5)]
    pyramid.append(functional.max_pool2d(levels[5], 1, 2))
    head = "proposal_generator.rpn_head"
    shared = [functional.relu(convolution(level, f"{head}.conv", padding=1)) for level in pyramid]
    return pyramid, *(
        [convolution(level, f"{head}.{name}") for level in shared]
        for name in ("objectness_logits", "anchor_deltas")
    )


def rows(levels, values: int) -> np.ndarray:
    """(anchors, values) of outputs (1, ratios * values, h, w)."""
    parts = [level[0].reshape(-1, values, *level.shape[2:]).permute(2, 3, 0, 1) for level in levels]
    return torch.cat([part.reshape(-1, values) for part in parts]).numpy()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the weights alone differ from ResNet50")
def test_the_layers_of_a_resnet101_are_those_of_detectron2(tmp_path):
    tensors = detectron2_weights(depth=101, seed=21, objects=2)
    write_safetensors(tmp_path / "model.safetensors", tensors)
    model = open_model(tmp_path / "model.safetensors")
    assert model.backbone == "resnet101" and "mask_rcnn_R_101_FPN" in model.notes[0]
    network = load_network(model, model.config)

    image = np.random.default_rng(1).uniform(-120, 120, (1, 64, 96, 3)).astype(np.float32)
    weights = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    blue_first = np.ascontiguousarray(image[..., ::-1].transpose(0, 3, 1, 2))
    pyramid, logits, deltas = detectron2_levels(weights, blue_first)

    *levels, our_logits, our_deltas = (ops.convert_to_numpy(values) for values in network.features(image))
    for level, expected in zip(levels, pyramid, strict=True):
        np.testing.assert_allclose(level.transpose(0, 3, 1, 2), expected.numpy(), atol=2e-4)
    np.testing.assert_allclose(our_logits[0, :, 1] - our_logits[0, :, 0], rows(logits, 1)[:, 0], atol=4e-4)
    ours = our_deltas[0][:, [1, 0, 3, 2]] * np.float32([0.1, 0.1, 0.2, 0.2])
    np.testing.assert_allclose(ours, rows(deltas, 4), atol=1e-4)
    assert min(np.std(level) for level in levels) > 0.1
