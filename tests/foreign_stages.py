"""Imported networks beside the numbers of torchvision and detectron2, step by step.

A step between the layers is fed what the reference's step was fed; the layers are fed the image. Used by
`test_foreign_numbers.py` and `benchmarks/foreign_parity.py`.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from keras import ops

from ann.inference.compilation import compile_function
from ann.inference.tile_rows import TileBatch
from ann.inference.tiles import Tile
from foreign_weights import detectron2_weights, torchvision_weights, write_safetensors
from maskrcnn.detector import load_network
from maskrcnn.foreign import open_model
from maskrcnn.instances.instances import paste_mask
from maskrcnn.instances.pipeline import DetectionSettings, in_tile, network_input
from maskrcnn.network.bin_pooling import align, align_on_cpu, level_limits
from maskrcnn.network.inference import Detector, compiled_parts
from maskrcnn.network.model import pyramid_cells
from maskrcnn.network.steps import pyramid_shapes

REFERENCE = Path(__file__).parent / "reference" / "foreign"
CASES = (
    "torchvision_v1",
    "torchvision_v1_resize",
    "torchvision_v1_4bands",
    "torchvision_v2",
    "detectron2_r50",
)


@dataclass(frozen=True)
class Difference:
    """How far a step is from the reference."""

    step: str
    difference: float
    tolerance: float
    unit: str = "of about 1"

    @property
    def good(self) -> bool:
        return bool(self.difference <= self.tolerance)  # NaN is not good


class Case:
    """A reference with the network that has its weights."""

    def __init__(self, name: str, arrays=None, settings: dict | None = None):
        self.name = name
        self.known = dict(np.load(REFERENCE / f"{name}.npz")) if arrays is None else arrays
        self.meta = json.loads(str(self.known["meta"]))
        self.torchvision = "version" in self.meta
        resizes = {
            "shorter_side": self.meta.get("min_size", self.meta.get("min_size_test")),
            "longer_side": self.meta.get("max_size", self.meta.get("max_size_test")),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.safetensors"
            write_safetensors(path, self.weights())
            model = open_model(path, resizes | (settings or {}))
            self.config = model.config
            self.network = load_network(model, self.config)
        self.parts = compiled_parts(self.network)
        height, width = self.known["image"].shape[:2]
        self.tile = Tile(row=0, column=0, height=height, width=width)
        self.settings = DetectionSettings.for_model(self.config, confidence=0.0)
        valid = np.ones((height, width), bool)
        batch = TileBatch(tiles=(self.tile,), pixels=(self.known["image"],), valid=(valid,))
        self.images, self.windows = network_input(batch, self.settings)

    def weights(self) -> dict[str, np.ndarray]:
        meta = self.meta
        if self.torchvision:
            return torchvision_weights(
                meta["version"], meta["seed"], meta["classes_with_background"], meta["bands"]
            )
        return detectron2_weights(meta["depth"], meta["seed"], meta["objects"], meta["bands"])

    @property
    def frame(self) -> tuple[int, int]:
        return self.images.shape[1:3]

    def boxes(self, name: str) -> np.ndarray:
        """Boxes of the reference as they are here, (y1, x1, y2, x2)."""
        return self.known[name][:, [1, 0, 3, 2]]


def compare(step, ours, theirs, tolerance, unit="of about 1") -> Difference:
    ours, theirs = np.asarray(ops.convert_to_numpy(ours), float), np.asarray(theirs, float)
    if ours.shape != theirs.shape:
        raise ValueError(f"{step}: expected the shape {theirs.shape}, received {ours.shape}")
    return Difference(step, float(np.abs(ours - theirs).max()), tolerance, unit)


def layer_steps(case: Case) -> list[Difference]:
    """From the image to the raw proposals, and what the heads make of the pyramid."""
    known, resized = case.known, case.config.variant.resizes and "resize" in case.name
    factor = 8.0 if resized else 1.0  # resizing alone moves the reference that much
    rows = []

    def part(name, values, tolerance):
        values = ops.convert_to_numpy(values)[0]
        chosen = values[np.ix_(known[f"{name}_rows"], known[f"{name}_columns"], known[f"{name}_channels"])]
        rows.append(compare(name, chosen, known[name], tolerance * factor))

    # detectron2 sees blue first; here the kernel's bands are turned round instead
    part(
        "input",
        case.images if case.torchvision else case.images[..., ::-1],
        1e-4 if not case.torchvision else 1e-6 if not resized else 2e-5,
    )
    *pyramid, logits, deltas = case.parts.features(case.images)
    part("C5", case.network.backbone(case.images)[-1], 1e-4)
    for number, level in enumerate(pyramid, 2):
        part(f"P{number}", level, 1e-4)
    logits, deltas = (ops.convert_to_numpy(values)[0] for values in (logits, deltas))
    rows.append(compare("proposals' logits", logits[:, 1] - logits[:, 0], known["rpn_logits"], 2e-4 * factor))
    own = (deltas * np.float32(case.config.box_deviation))[known["candidates"]][:, [1, 0, 3, 2]]
    rows.append(compare("proposals' deltas", own, known["candidate_deltas"], 4e-5 * factor))
    return rows + head_steps(case, pyramid, factor)


def head_steps(case: Case, pyramid, factor) -> list[Difference]:
    """Pooling and heads for the reference's regions."""
    known, variant, shapes = case.known, case.config.variant, pyramid_shapes(case.frame)
    cells = ops.convert_to_numpy(pyramid_cells(pyramid))[0]
    rois = case.boxes("proposals")[known["picked_rois"]]
    features = align_on_cpu(cells, shapes, rois, 7, variant)
    rows = [compare("pooled 7 x 7", features[..., ::8], known["picked_roi_features"], 1e-3 * factor)]
    in_graph = align(
        ops.convert_to_tensor(cells[None]), shapes, ops.convert_to_tensor(rois[None]), 7, variant
    )
    in_graph = ops.convert_to_numpy(in_graph)[0]
    rows.append(compare("pooled 7 x 7, in a graph", in_graph, features, 1e-4))
    logits, deltas = (ops.convert_to_numpy(values) for values in case.network.box_head(features))
    expected, expected_deltas = head_outputs(case)
    rows.append(compare("classes' logits", logits, expected[known["picked_rois"]], 1e-3 * factor))
    rows.append(compare("boxes' deltas", deltas, expected_deltas[known["picked_rois"]], 1e-3 * factor))
    count = min(len(known["mask_probabilities"]), 8)
    pooled = align_on_cpu(cells, shapes, case.boxes("boxes_in_input")[:count], 14, variant)
    by_class = ops.convert_to_numpy(case.network.mask_head(pooled))
    masks = by_class[np.arange(count), :, :, class_ids(case)[:count]]
    rows.append(compare("masks", masks, known["mask_probabilities"][:count], 1e-3 * factor, "of 1"))
    return rows


def class_ids(case: Case) -> np.ndarray:
    """The reference's labels as they are here."""
    return case.known["labels"] + (0 if case.torchvision else 1)


def head_outputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The reference's outputs of the box head in our order: logits (P, K) and deltas (P, K, 4)."""
    logits, deltas = case.known["class_logits"], case.known["box_deltas"]
    if not case.torchvision:
        logits = np.roll(logits, 1, axis=1)
        deltas = np.pad(deltas, ((0, 0), (4, 0)))
    return logits, deltas.reshape(len(logits), -1, 4)[..., [1, 0, 3, 2]]


def selection_steps(case: Case) -> list[Difference]:
    """Anchors, proposals, levels and detections, each from the reference's numbers."""
    known, config, steps = case.known, case.config, case.network.steps
    anchors = case.network.anchors(case.frame)
    rows = [compare("anchors", anchors[::97][:, [1, 0, 3, 2]], known["anchors_every_97th"], 1e-5, "pixels")]
    logits = np.stack([np.zeros_like(known["rpn_logits"]), known["rpn_logits"]], axis=-1)[None]
    deltas = np.zeros((1, len(anchors), 4), np.float32)
    deltas[0, known["candidates"]] = known["candidate_deltas"][:, [1, 0, 3, 2]] / np.float32(
        config.box_deviation
    )

    def propose(logits, deltas, anchors, windows):
        return steps.propose(logits, deltas, anchors, windows, case.frame, config.proposals_detection)

    proposals = ops.convert_to_numpy(compile_function(propose)(logits, deltas, anchors, case.windows))[0]
    proposals = proposals[np.any(proposals != 0, axis=1)]
    rows.append(missing("proposals", proposals, case.boxes("proposals"), 1e-3))
    theirs = case.boxes("proposals")
    sides = np.sqrt(np.prod(theirs[:, 2:] - theirs[:, :2], axis=1))
    levels = 2 + np.searchsorted(np.float32(level_limits(config.variant)), sides, side="right")
    rows.append(compare("levels of regions", levels, known["roi_levels"], 0, "levels"))

    class_logits, class_deltas = head_outputs(case)
    detect = compile_function(lambda *arguments: steps.detect(*arguments))
    found = detect(theirs[None], class_logits[None], class_deltas[None], case.windows, np.float32(0))
    boxes, ids, scores = (ops.convert_to_numpy(values)[0] for values in found)
    count = int((ids > 0).sum())
    ours = np.concatenate([boxes, ids[:, None], scores[:, None]], axis=1)[:count]
    expected = [case.boxes("boxes_in_input"), class_ids(case)[:, None], known["scores"][:, None]]
    rows.append(compare("detections", ours, np.concatenate(expected, axis=1), 1e-3, "pixels"))

    height, width = known["image"].shape[:2]
    truth = true_masks(case)
    wrong = sum(
        int((paste_mask(mask, box, height, width, config.variant.pasting) != pixels).sum())
        for mask, box, pixels in zip(known["mask_probabilities"], case.boxes("boxes"), truth, strict=False)
    )
    rows.append(Difference("pasted masks", wrong, 2, "pixels"))
    return rows


def missing(step, ours, theirs, distance) -> Difference:
    """How many of the reference's rows are not among ours, or the other way round."""
    apart = np.abs(theirs[:, None] - ours[None]).max(axis=-1)
    count = int((apart.min(axis=1) > distance).sum()) + int((apart.min(axis=0) > distance).sum())
    return Difference(step, count, 0, "rows")


def true_masks(case: Case) -> np.ndarray:
    height, width = case.known["image"].shape[:2]
    packed = case.known["masks_packed"]
    return np.unpackbits(packed, axis=1, count=height * width).reshape(-1, height, width).astype(bool)


def whole_steps(case: Case) -> list[Difference]:
    """From the image to the end, as a user gets it."""
    (found,) = Detector(case.network, case.parts)(case.images, case.windows)
    found = in_tile(found, case.windows[0], case.tile, case.settings)
    theirs, ids, scores = case.boxes("boxes"), class_ids(case), case.known["scores"]
    height, width = case.known["image"].shape[:2]
    box_error = score_error = wrong = 0.0
    free, lost = np.ones(len(found.boxes), bool), 0
    for box, class_id, score, pixels in zip(theirs, ids, scores, true_masks(case), strict=True):
        near = np.abs(found.boxes - box).max(axis=1)
        near = np.where(
            free & (found.class_ids == class_id) & (abs(found.scores - score) < 0.01), near, np.inf
        )
        if not len(near) or near.min() > 0.1:
            lost += 1
            continue
        index = int(np.argmin(near))
        free[index] = False
        box_error = max(box_error, float(near[index]))
        score_error = max(score_error, float(abs(found.scores[index] - score)))
        ours = paste_mask(found.masks[index], found.boxes[index], height, width, case.config.variant.pasting)
        wrong += int((ours != pixels).sum())
    return [
        Difference("whole: detections lost or added", lost + int(free.sum()), 0, "rows"),
        Difference("whole: boxes", box_error, 0.02, "pixels"),
        Difference("whole: scores", score_error, 1e-3, "of 1"),
        Difference(
            "whole: pixels of the masks", wrong / (len(theirs) * height * width), 1e-4, "of the pixels"
        ),
    ]
