"""What the benchmarks share: clock and reporter, drawn scenes, the machine in words, CSV and Markdown tables.

Importing it makes the library and the demo's drawing importable from a checkout.
"""

from __future__ import annotations

import csv
import fcntl
import os
import platform
import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "benchmarks"
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "demo")]


class Clock:
    """Elapsed and processor time at the end of each step."""

    def __init__(self):
        self.times = [(time.monotonic(), time.process_time())]

    def tick(self) -> None:
        """A step ends."""
        self.times.append((time.monotonic(), time.process_time()))

    def steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Elapsed and processor seconds of each step, (n,) float64 each; the first step compiles."""
        elapsed, processor = np.diff(np.array(self.times), axis=0).T
        return elapsed, processor


class Reporter:
    """The training loop tells it about every step. messages: the stream that gets its messages, if any."""

    def __init__(self, clock: Clock | None = None, messages=None):
        self.clock, self._messages = clock, messages

    def message(self, text: str) -> None:
        if self._messages:
            print(text, file=self._messages, flush=True)

    def percent(self, done: int, total: int) -> None:
        if self.clock:
            self.clock.tick()


def peak_megabytes() -> int:
    """Peak main memory of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def object_count(side: int) -> int:
    """How many objects to draw in a scene of side x side pixels."""
    return max(4, side * side // 14000)


def draw_scenes(folder: Path, size: int, count: int = 4) -> None:
    """Write labelled scenes, from which samples of size x size pixels are cut."""
    from drawing import draw_scene, write_training_directory

    side = size + size // 2
    for number in range(count):
        scene = draw_scene(height=side, width=side, objects=object_count(side), seed=number)
        write_training_directory(folder, f"scene_{number}", scene)


def draw_pairs(folder: Path, size: int, count: int = 4) -> None:
    """Write such scenes as pairs of an image and a label raster: 255 where there is an object."""
    from drawing import ORIGIN, SPACING, draw_scene, write_geotiff

    side = size + size // 2
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        scene = draw_scene(height=side, width=side, objects=object_count(side), seed=number)
        origin = (ORIGIN[0] + number * SPACING, ORIGIN[1])  # on ground of its own
        write_geotiff(folder / "images" / f"{number}.tif", scene.image, origin=origin)
        labels = np.where(scene.labels > 0, 255, 0).astype(np.uint8)
        write_geotiff(folder / "labels" / f"{number}.tif", labels[..., None], origin=origin)


def describe_network(dataset, size, *, backbone: str, rois_per_image: int = 64):
    """The description of a network that is trained from scratch."""
    from maskrcnn.preparation import describe_model

    return describe_model(
        dataset,
        size,
        backbone=backbone,
        rois_per_image=rois_per_image,
        mini_mask_shape=None,
        initial=None,
        other_classes=False,
    )


def describe_unet(dataset, size, *, architecture: str, loss: str = "both"):
    """The description of a U-Net that is trained from scratch."""
    from unet.preparation import describe_model

    return describe_model(
        dataset,
        size,
        architecture=architecture,
        loss=loss,
        weighted=False,
        initial=None,
        other_classes=False,
    )


def machine() -> str:
    """What this runs on, in a few words."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores{load}"


def software() -> str:
    """Keras and its backend, in a few words."""
    import keras

    return f"Keras {keras.__version__} on {keras.backend.backend()}"


def write_csv(path: Path, rows: Iterable[Mapping], columns: Sequence[str]) -> None:
    """Save rows as CSV; what a row does not have stays empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)


def add_rows(path: Path, rows: Iterable[Mapping], columns: Sequence[str]) -> None:
    """Write rows behind those of a CSV table; others can do so at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        old = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                old = list(csv.DictReader(file))
        write_csv(path, [*old, *rows], columns)
    finally:
        os.close(folder)


def markdown(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
