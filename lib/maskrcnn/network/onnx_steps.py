"""The steps between the layers as ONNX operations, for one image: what `steps` chooses for a model.

Rows of proposals and detections are as many as there are, without padding. Greedy suppression and pooling by
bins are operations of ONNX: groups become the classes of the former, and pooling by points is pooling by
bins whose middles are the points.

Shapes: A anchors, n regions, K classes with the background; boxes (y1, x1, y2, x2) in the unit of `Steps`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ann.export.onnx_graph import OnnxGraph, Values
from maskrcnn.config import MaskRCNNConfig, Variant
from maskrcnn.network.anchors import STRIDES, level_anchor_counts
from maskrcnn.network.bin_pooling import level_limits
from maskrcnn.network.boxes import LARGEST_LOG_SCALE
from maskrcnn.network.proposals import LOWEST
from maskrcnn.network.roi_pooling import USUAL_SIZE
from maskrcnn.network.steps import pyramid_shapes


def propose(
    graph: OnnxGraph,
    config: MaskRCNNConfig,
    logits: Values,
    deltas: Values,
    anchors: np.ndarray,
    window,
    frame,
) -> Values:
    """Regions (n, 4), best first. logits: (A, 2), deltas: (A, 4), window: (4,), frame: (height, width)."""
    variant = config.variant
    if variant.proposals_by_level:
        background, scores = logits.columns(2)
        scores, counts = scores - background, level_anchor_counts(frame, config.anchor_ratios)
    else:
        scores, counts = graph.operation("Softmax", logits, axis=-1).columns(2)[1], [len(anchors)]
        window = np.float32([0, 0, 1, 1])
    scores = scores.reshape(-1)
    best, groups, start = [], [], 0
    for group, count in enumerate(counts):
        taken = min(count, config.proposal_candidates)
        part = graph.part(scores, start, start + count)
        best.append(graph.operation("TopK", part, np.int64([taken]), outputs=2)[1] + np.int64(start))
        groups += [group] * taken
        start += count
    best = graph.concatenate(best, 0)
    scores = scores.take(best)
    if variant.proposals_by_level and not variant.proposals_by_logit:
        scores = graph.sigmoid(scores)
    boxes = _moved(
        graph,
        graph.constant(anchors).take(best),
        deltas.take(best),
        config,
        window,
        variant.largest_log_scale if variant.proposals_by_level else LARGEST_LOG_SCALE,
    )
    in_group = graph.constant(np.float32(np.array(groups) == np.arange(len(counts))[:, None])) > 0.5
    valid = in_group
    if variant.proposals_by_level:
        valid = in_group & (_shorter_sides(graph, boxes) >= variant.smallest_proposal)
    kept = _suppress(
        graph,
        boxes,
        graph.where(valid, scores, LOWEST),
        count=config.proposals_detection,
        threshold=config.proposal_nms_threshold,
    )
    return boxes.take(_best(graph, kept, scores, config.proposals_detection))


def detect(
    graph: OnnxGraph,
    config: MaskRCNNConfig,
    rois: Values,
    logits: Values,
    deltas: Values,
    window: np.ndarray,
    confidence: float,
) -> tuple[Values, Values, Values]:
    """Boxes (m, 4), class ids (m,) int64 and scores (m,) of the detections, best first.

    rois: (n, 4), logits: (n, K), deltas: (n, K, 4), window: (4,).
    """
    variant, classes = config.variant, config.class_count
    probabilities = graph.operation("Softmax", logits, axis=-1)
    rows = graph.range(rois.length())
    if variant.every_class:
        scores = graph.part(probabilities, 1, classes, axis=1).reshape(-1)
        picked = graph.true_places((scores > variant.lowest_score) & (scores >= confidence))
        rows = graph.operation("Div", picked, np.int64(classes - 1))
        class_ids = picked - rows * np.int64(classes - 1) + np.int64(1)
        scores, rois = scores.take(picked), rois.take(rows)
    else:
        first = 0 if config.background_competes else 1
        candidates = graph.part(probabilities, first, classes, axis=1)
        class_ids = graph.operation("ArgMax", candidates, axis=1, keepdims=0) + np.int64(first)
        scores = graph.operation("ReduceMax", candidates, np.int64([1]), keepdims=0)
    own = deltas.reshape(-1, 4).take(rows * np.int64(classes) + class_ids)
    scale = variant.largest_log_scale if variant.every_class else LARGEST_LOG_SCALE
    boxes = _moved(graph, rois, own, config, window, scale)
    objects = np.arange(1, classes)[:, None]
    valid = graph.operation("Equal", class_ids, objects) & (scores >= confidence)  # (K - 1, m)
    if variant.every_class:
        valid = valid & (_shorter_sides(graph, boxes) >= variant.smallest_detection)
    kept = _suppress(
        graph,
        boxes,
        graph.where(valid, scores, LOWEST),
        count=config.max_detections,
        threshold=config.detection_nms_threshold,
    )
    kept = _best(graph, kept, scores, config.max_detections)
    return boxes.take(kept), class_ids.take(kept), scores.take(kept)


def pool(
    graph: OnnxGraph, config: MaskRCNNConfig, maps: Sequence[Values], rois: Values, size: int, frame
) -> Values:
    """Features (n, C, size, size) of regions (n, 4). maps: P2 to P5, (1, C, h, w)."""
    variant = config.variant
    level = _levels(graph, variant, rois, frame)
    places, pooled = [], []
    for index, (features, shape) in enumerate(zip(maps, pyramid_shapes(frame), strict=True)):
        here = graph.true_places(graph.operation("Equal", level, np.int64(index)))
        places.append(here)
        pooled.append(_pool_level(graph, variant, features, rois.take(here), size, shape, STRIDES[index]))
    places = graph.concatenate(places, 0)
    # where each region went
    back = graph.operation("TopK", places, places.length(), largest=0, outputs=2)[1]
    return graph.concatenate(pooled, 0).take(back)


def _levels(graph: OnnxGraph, variant: Variant, rois: Values, frame) -> Values:
    """0 to 3 for P2 to P5, (n,) int64."""
    y1, x1, y2, x2 = rois.columns(4)
    area = ((y2 - y1) * (x2 - x1)).reshape(-1)
    if variant.pooling == "bins":
        sides = graph.operation("Sqrt", graph.operation("Max", area, np.float32(0)))
        limits = np.float32(level_limits(variant))[:, None]
        return graph.operation("ReduceSum", (sides >= limits).cast("int64"), np.int64([0]), keepdims=0)
    usual = USUAL_SIZE / math.sqrt(frame[0] * frame[1])
    sides = graph.operation("Sqrt", graph.operation("Max", area, np.float32(1e-12))) / usual
    level = graph.operation("Round", graph.operation("Log", sides) / math.log(2)) + 2.0
    return graph.operation("Clip", level, np.float32(0), np.float32(3)).cast("int64")


def _pool_level(graph, variant, features, rois, size, shape, stride) -> Values:
    y1, x1, y2, x2 = rois.columns(4)
    if variant.pooling == "bins":
        samples, scale = variant.pooling_samples, 1 / stride
        mode = "half_pixel" if variant.pooling_shift else "output_half_pixel"
    else:
        # a bin's middle is half a bin after its start; the first point lies on the edge
        samples, scale, mode = 1, 1.0, "half_pixel"
        (y1, y2), (x1, x2) = (
            _around_points(low * (length - 1.0), high * (length - 1.0), size)
            for low, high, length in ((y1, y2, shape[0]), (x1, x2, shape[1]))
        )
    return graph.operation(
        "RoiAlign",
        features,
        graph.concatenate([x1, y1, x2, y2], 1),
        graph.zeros(rois.length()),
        mode="avg",
        coordinate_transformation_mode=mode,
        output_height=size,
        output_width=size,
        sampling_ratio=samples,
        spatial_scale=scale,
    )


def _around_points(low: Values, high: Values, count: int) -> tuple[Values, Values]:
    """The region whose `count` bins have their middles evenly from `low` to `high`, which are cells."""
    step = (high - low) / (count - 1.0)
    return low - step * 0.5 + 0.5, high + step * 0.5 + 0.5  # half a cell is taken off again


def _moved(graph, boxes, deltas, config, window, largest_log_scale) -> Values:
    """`boxes.apply_deltas`, cut at a window."""
    deltas = deltas * np.float32(config.box_deviation)
    y1, x1, y2, x2 = boxes.columns(4)
    dy, dx, dh, dw = deltas.columns(4)
    ends = []
    for low, high, shift, growth in ((y1, y2, dy, dh), (x1, x2, dx, dw)):
        side = high - low
        middle = low + side * 0.5 + shift * side
        side = side * graph.operation("Exp", graph.operation("Min", growth, np.float32(largest_log_scale)))
        low = middle - side * 0.5
        ends.append((low, low + side))
    (y1, y2), (x1, x2) = ends
    moved = graph.concatenate([y1, x1, y2, x2], 1)
    window = np.float32(window)
    moved = graph.operation("Min", moved, np.tile(window[2:], 2))
    return graph.operation("Max", moved, np.tile(window[:2], 2))


def _shorter_sides(graph, boxes) -> Values:
    y1, x1, y2, x2 = boxes.columns(4)
    return graph.operation("Min", y2 - y1, x2 - x1).reshape(-1)


def _suppress(graph: OnnxGraph, boxes: Values, scores: Values, *, count: int, threshold: float) -> Values:
    """Indices of the boxes that remain, ascending. scores: (groups, n), LOWEST where a box takes no part."""
    kept = graph.operation(
        "NonMaxSuppression",
        boxes.reshape(1, -1, 4),
        graph.operation("Unsqueeze", scores, np.int64([0])),
        np.int64([count]),
        np.float32([threshold]),
        np.float32([LOWEST / 2]),
    )  # (m, 3): image, group, box
    indices = kept.take(np.int64(2), axis=1)
    return graph.operation("TopK", indices, indices.length(), largest=0, outputs=2)[0]


def _best(graph: OnnxGraph, indices: Values, scores: Values, count: int) -> Values:
    """Those of `count` boxes at most with the highest scores, best first; equal ones in their order."""
    number = graph.operation("Min", indices.length(), np.int64([count]))
    return indices.take(graph.operation("TopK", scores.take(indices), number, outputs=2)[1])
