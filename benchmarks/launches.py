#!/usr/bin/env python3
"""What PyTorch asks of a GPU in a step of training and for a batch of tiles, counted without one.

  launches   operations that start at least one kernel
  uploads    numbers that the host sends between them, for which it waits
  waits      looks of the host at a value, for which it waits until all before is computed

Counted with a GPU that computes nothing (`fake_gpu`) in the second call, of which a graph would be recorded:
then the host starts one graph, whatever the number of launches. Prints a Markdown table and saves it as CSV.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
from fake_gpu import FakeGPU
from gpu import describe, draw_batch
from measuring import RESULTS, markdown, write_csv

COLUMNS = ("work", "backbone", "side", "batch", "launches", "uploads", "waits")


def count_steps(config, batch: int) -> dict:
    """A step of training."""
    from ann.pytorch.steps import AdamW
    from maskrcnn.network.model import build_network
    from maskrcnn.network.training import TrainingNetwork

    gpu, model = FakeGPU(), TrainingNetwork(build_network(config))
    optimizer = AdamW(1e-3, weight_decay=1e-4, global_clipnorm=5.0)
    model.compile(optimizer=optimizer)
    optimizer.build(model.trainable_variables)
    gpu.move(list({id(one): one for one in (*model.variables, *optimizer.variables)}.values()))
    fed = {name: gpu.empty(values) for name, values in draw_batch(config, batch, 1).items()}
    for _ in range(2):
        with gpu.use() as asked:
            model._steps._train._run(fed)
    return describe_asked(asked)


def count_detection(config, batch: int) -> dict:
    """A batch of tiles to boxes, and a chunk of masks."""
    from maskrcnn.network.inference import MASK_CHUNK, Detector
    from maskrcnn.network.model import MaskRCNN, build_network

    gpu, network = FakeGPU(), build_network(config)
    anchors = gpu.empty(network.unit_anchors(config.image_shape))
    MaskRCNN.unit_anchors = lambda *_: anchors
    detector = Detector(network)
    gpu.move(network.variables)
    images, windows = (
        gpu.empty(np.zeros(shape, np.float32)) for shape in ((batch, *config.image_shape, 3), (batch, 4))
    )
    confidence = gpu.empty(np.float32(0))
    image_ids, boxes = np.zeros(MASK_CHUNK, np.int32), np.zeros((MASK_CHUNK, 4), np.float32)
    chosen = gpu.empty(image_ids), gpu.empty(boxes)
    for _ in range(2):
        with gpu.use() as asked:
            glue, parts = detector.glue(config.image_shape), detector._parts
            *pyramid, logits, deltas = parts.features._run(images)
            rois, pooled, cells = glue.propose._run(tuple(pyramid), logits, deltas, glue.anchors, windows)
            logits, deltas = parts.box_head._run(pooled)
            glue.detect._run(rois, logits, deltas, windows, confidence)
            parts.mask_head._run(glue.pool_masks._run(cells, *chosen))
    return describe_asked(asked)


def describe_asked(asked) -> dict:
    """What was asked, in the table's columns."""
    return {name: getattr(asked, name).total() for name in ("launches", "uploads", "waits")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=1024, help="side of the images, pixels")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=RESULTS / "launches.csv")
    arguments = parser.parse_args()
    keras.config.set_dtype_policy("mixed_bfloat16")
    config = describe(arguments)
    rows = []
    for work, count in (("training step", count_steps), ("batch of tiles", count_detection)):
        row = {"work": work, "backbone": config.backbone, "side": arguments.size, "batch": arguments.batch}
        rows.append(row | count(config, arguments.batch))
    write_csv(arguments.csv, rows, COLUMNS)
    print(markdown(COLUMNS, [[row[name] for name in COLUMNS] for row in rows]))


if __name__ == "__main__":
    main()
