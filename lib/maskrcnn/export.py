"""A Mask R-CNN in ONNX: pixel values in, detections out, for images of one size.

All of detection but the drawing of the masks is in the graph. The weights are the network's at that time.
"""

from __future__ import annotations

import numpy as np
from keras import ops

from ann.export.exported import Array, Exported, add_outputs
from ann.export.onnx_graph import OnnxGraph, Values
from ann.inference.graph_layers import Value, as_in_keras, channels_first, translate
from maskrcnn.instances.framing import frame_shape, resize_weights, resized_shape
from maskrcnn.network.heads import BOX_POOL_SIZE, MASK_POOL_SIZE, MASK_SIZE
from maskrcnn.network.model import MaskRCNN
from maskrcnn.network.onnx_steps import detect, pool, propose

PLACING = {
    "rounded": "boxes are whole pixels",
    "grown": "masks are placed as torchvision places them",
    "exact": "masks are placed as detectron2 places them",
}


def export_network(network: MaskRCNN, confidence: float) -> Exported:
    """The network for images of its config's size. confidence: lowest score of what it finds.

    Raises:
        ValueError: a layer that can't be translated.
    """
    config, steps = network.config, network.steps
    height, width = config.image_shape
    image = Array(
        name="images",
        dtype="float32",
        shape=(1, config.bands, height, width),
        axes=("batch", "channel", "height", "width"),
        description="Pixel values as they are: the graph scales them, and resizes where it has to",
    )
    graph = OnnxGraph("mask_rcnn")
    pixels = graph.input(image.name, image.dtype, image.shape)

    view, shape = _network_view(graph, config, pixels)
    frame = frame_shape(shape) if config.variant.pixels else shape
    *pyramid, logits, deltas = translate(network.features, graph, Value(view, channels_first=True))
    maps = [channels_first(graph, level) for level in pyramid[:4]]
    window = ops.convert_to_numpy(steps.to_unit(np.float32([0, 0, *shape]), frame))
    logits, deltas = (as_in_keras(graph, one).reshape(-1, size) for one, size in ((logits, 2), (deltas, 4)))
    rois = propose(graph, config, logits, deltas, network.unit_anchors(frame), window, frame)

    pooled = pool(graph, config, maps, rois, BOX_POOL_SIZE, frame)
    logits, deltas = translate(network.box_head, graph, Value(pooled, channels_first=True))
    boxes, class_ids, scores = detect(graph, config, rois, logits.output, deltas.output, window, confidence)

    pooled = pool(graph, config, maps, boxes, MASK_POOL_SIZE, frame)
    (masks,) = translate(network.mask_head, graph, Value(pooled, channels_first=True))
    rows = graph.range(boxes.length()) * np.int64(config.class_count) + class_ids
    masks = channels_first(graph, masks).reshape(-1, MASK_SIZE, MASK_SIZE).take(rows)

    boxes = _pixels(graph, config, boxes, shape)
    y1, x1, y2, x2 = boxes.columns(4)
    solid = graph.true_places(((y2 > y1) & (x2 > x1)).reshape(-1))
    outputs = _outputs(config.variant.pasting)
    found = (boxes, class_ids, scores, masks)
    add_outputs(graph, outputs, [values.take(solid) for values in found])
    return Exported(
        config=config,
        graph=graph,
        title="Mask R-CNN",
        task="instance-segmentation",
        image=image,
        outputs=outputs,
        parameters=network.count_params(),
        settings={
            "confidence": confidence,
            "suppression": config.detection_nms_threshold,
            "max_detections": config.max_detections,
        },
    )


def _outputs(pasting: str) -> tuple[Array, ...]:
    number = ("detection",)
    return (
        Array(
            name="boxes",
            dtype="float32",
            shape=(-1, 4),
            axes=(*number, "coordinate"),
            description="(y1, x1, y2, x2) in pixels, best first",
        ),
        Array(
            name="class_ids",
            dtype="int64",
            shape=(-1,),
            axes=number,
            description="1 is the first class",
            classes=True,
        ),
        Array(name="scores", dtype="float32", shape=(-1,), axes=number, description="0 to 1"),
        Array(
            name="masks",
            dtype="float32",
            shape=(-1, MASK_SIZE, MASK_SIZE),
            axes=(*number, "height", "width"),
            description=f"Probabilities over the box, an object from 0.5 on; {PLACING[pasting]}",
        ),
    )


def _network_view(graph: OnnxGraph, config, pixels: Values) -> tuple[Values, tuple[int, int]]:
    """What `framing.network_view` makes of an image, padded; and its size before that."""
    variant, shape = config.variant, config.image_shape
    mean, scale = (
        np.float32(values).reshape(1, -1, 1, 1) for values in (config.band_mean, config.band_scale)
    )
    if not variant.pixels:
        return (pixels - mean) / scale, shape
    resized = resized_shape(*shape, variant)
    weights = [
        resize_weights(*lengths, variant.bytes_resized) for lengths in zip(shape, resized, strict=True)
    ]
    if resized == shape:
        view = (pixels - mean) / scale
    elif variant.bytes_resized:
        view = (_resize_bytes(graph, pixels, *weights) - mean) / scale
    else:
        view = graph.operation("MatMul", weights[0], (pixels - mean) / scale)
        view = graph.operation("MatMul", view, weights[1].T)
    after = [whole - part for whole, part in zip(frame_shape(resized), resized, strict=True)]
    return graph.pad(view, (0, 0, 0, 0), (0, 0, *after)), resized


def _resize_bytes(graph: OnnxGraph, pixels: Values, rows: np.ndarray, columns: np.ndarray) -> Values:
    """`framing.resize_bytes`, with a matrix for each axis, in float64 for the sake of halves."""
    rows, columns, half, least, most = (
        graph.constant(values, "float64") for values in (rows, columns.T, 0.5, 0, 255)
    )
    values = pixels.cast("float64")
    for first, second in ((None, columns), (rows, None)):
        sums = graph.operation("MatMul", first or values, second or values) + half
        values = graph.operation("Clip", graph.operation("Floor", sums), least, most)
    return values.cast("float32")


def _pixels(graph: OnnxGraph, config, boxes: Values, shape: tuple[int, int]) -> Values:
    """Boxes in pixels of the image, of those in the unit of the network's steps."""
    height, width = config.image_shape
    if config.variant.pixels:
        factors = np.float32([height, width] * 2) / np.float32([*shape, *shape])
        return boxes * factors
    scale = np.float32([height - 1, width - 1] * 2)
    return graph.operation("Round", boxes * scale + np.float32([0, 0, 1, 1]))
