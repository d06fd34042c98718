"""Detection in a GRASS session with a detector that knows what it looks for; run as a script in a session.

python grass_detection.py REQUEST: a JSON object with scenes (lists of raster maps, or paths of images) and
outputs (kinds of maps); see `main` for what else it may have.
Prints the maps that were written and what became of the scenes, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
from scipy import ndimage

from ann.inference.tile_rows import Here
from maskrcnn.instances.pipeline import DetectionSettings, network_finder

TILE = 64


def detect_rectangles(images: np.ndarray, windows: np.ndarray) -> list[SimpleNamespace]:
    """Each patch of one value in the first band is an instance.

    images: (B, H, W, C) float32; value v is class 1 + (v - 1) % 2 with the score 0.5 + v / 100.
    Patches must be rectangles of at most 28 pixels a side, for which a full 28 x 28 mask is exact.
    """
    found = []
    for image in images:
        boxes, class_ids, scores = [], [], []
        for value in np.unique(image[..., 0]):
            if value <= 0:
                continue
            labels, _ = ndimage.label(image[..., 0] == value)
            for rows, columns in ndimage.find_objects(labels):
                boxes.append((rows.start, columns.start, rows.stop, columns.stop))
                class_ids.append(1 + (int(value) - 1) % 2)
                scores.append(0.5 + value / 100)
        found.append(
            SimpleNamespace(
                boxes=np.array(boxes, np.int32).reshape(-1, 4),
                class_ids=np.array(class_ids, np.int32),
                scores=np.array(scores, np.float32),
                masks=np.ones((len(boxes), 28, 28), np.float32),
            )
        )
    return found


def stop_after(
    events: int,
    signal_name: str,
    kinds: Sequence[str] = ("os.rename", "os.remove", "os.rmdir", "subprocess.Popen"),
) -> None:
    """Send this process a signal when it renames, removes or starts a child for the n-th time from now."""
    left = [events]

    def count(event, arguments):
        if event in kinds:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.Signals[signal_name])

    sys.addaudithook(count)


def main(request: dict) -> dict:
    from ann.grass.bands import find_bands
    from ann.grass.exchange import recover
    from ann.grass.outputs import check_outputs, name_outputs
    from ann.grass.region import computational_region
    from ann.grass.sources import file_source, map_source
    from ann.grass.temporary import TemporaryMaps, remove_abandoned
    from maskrcnn.config import MaskRCNNConfig
    from maskrcnn.grass.run import DetectionRun, OutputSettings

    classes = tuple(request.get("classes", ("house", "tree")))
    config = MaskRCNNConfig(classes=classes, band_mean=(0.0,), band_scale=(1.0,), image_shape=(TILE, TILE))
    extent = computational_region()
    sources = [
        file_source(scene, config) if isinstance(scene, str) else map_source(find_bands(scene), extent)
        for scene in request["scenes"]
    ]
    names = name_outputs(
        request["outputs"], request.get("prefix", ""), classes, [source.name for source in sources]
    )
    settings = DetectionSettings.for_model(
        config,
        overlap=32,
        confidence=request.get("confidence", 0.5),
        turns=request.get("turns", False),
        find_doubtful="label_next" in request,
    )
    outputs = OutputSettings(
        names=names,
        classes=classes,
        generalize=request.get("generalize"),
        regularize=request.get("regularize"),
        label_next=request.get("label_next"),
        resolution=request.get("resolution"),
    )

    def detector(images, windows):
        if request.get("interrupt"):
            os.kill(os.getpid(), signal.Signals[request["interrupt"]])
        return detect_rectangles(images, windows)

    recover()
    remove_abandoned()
    check_outputs(names)
    with TemporaryMaps() as temporary:
        work = DetectionRun(Here(network_finder(detector, settings)), sources, settings, outputs, temporary)
        for number, source in enumerate(sources):
            work.detect(number, source, lambda progress: None)
        if request.get("fail_before_finish"):
            raise RuntimeError("as asked for")
        if request.get("c_library_fails"):
            import grass.lib.gis as libgis

            libgis.G_fatal_error(b"as asked for")
        if "stop" in request:
            stop_after(**request["stop"])
        maps = work.finish()
    return {
        "maps": maps,
        "failures": work.failures,
        "errors": {result.name: result.error for result in work.results},
        "counts": [result.counts for result in work.results],
        "tiles": [(result.tiles, result.tiles_skipped) for result in work.results],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
