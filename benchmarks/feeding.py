"""How long a training step waits for its batch, and how much memory many labelled objects need.

    python benchmarks/feeding.py                                                # ResNet50, 512 x 512, batch 1
    python benchmarks/feeding.py --backbone resnet18 --side 128 --images 250 --instances 50000

Draws a COCO dataset (PNG images of 1024 x 1024 pixels, one polygon of 16 points per object) in a temporary
directory, trains on it with the loop of i.ann.maskrcnn.train, and prints a markdown table. *Waiting* is the
time in which the loop has no batch; *making* the processor time of one batch, of images to be decoded
and of images that were kept. The first two steps don't count.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from measuring import Reporter, describe_network, markdown, peak_megabytes

from ann.data.pixels import rasters
from ann.data.pixels.decoded import DecodedImages
from ann.data.readers.formats import open_dataset
from ann.data.samples.prefetch import Prefetcher
from ann.data.split import split_dataset
from ann.task import Feed
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.settings import TrainingSettings
from ann.training.worker import train
from maskrcnn.preparation import make_feed
from maskrcnn.task import TASK

IMAGE_SIDE = 1024
SKIPPED_STEPS = 2  # TensorFlow compiles in the first one


class TimedPrefetcher(Prefetcher):
    """Notes when each `next` was called and when it returned."""

    calls: list[tuple[float, float]] = []  # noqa: RUF012, shared by all on purpose

    def __next__(self):
        begun = time.monotonic()
        item = super().__next__()
        self.calls.append((begun, time.monotonic()))
        return item


def draw_dataset(folder: Path, images: int, instances: int) -> None:
    """A COCO file and its images; the polygons are spread evenly over them."""
    random = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    listed, annotations = [], []
    for number in range(images):
        name = f"image_{number}.png"
        coarse = random.integers(60, 180, (IMAGE_SIDE // 8, IMAGE_SIDE // 8, 3), dtype=np.uint8)
        pixels = np.kron(coarse, np.ones((8, 8, 1), np.uint8)) + random.integers(
            0, 20, (IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8
        )
        profile = {"driver": "PNG", "height": IMAGE_SIDE, "width": IMAGE_SIDE, "count": 3, "dtype": "uint8"}
        with rasterio.open(folder / name, "w", zlevel=1, **profile) as file:
            file.write(np.moveaxis(pixels, -1, 0))
        listed.append({"id": number, "file_name": name, "height": IMAGE_SIDE, "width": IMAGE_SIDE})
        for _ in range(instances // images):
            centre, radius = random.uniform(20, IMAGE_SIDE - 20, 2), random.uniform(6, 18)
            ring = centre + radius * np.column_stack([np.cos(angles), np.sin(angles)])
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": 1,
                    "segmentation": [ring.round(2).ravel().tolist()],
                }
            )
    content = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "object"}],
    }
    (folder / "instances.json").write_text(json.dumps(content))


def making_time(feed: Feed, start: int, count: int) -> float:
    """Processor seconds that a batch takes."""
    begun = time.process_time()
    for step in range(start, start + count):
        feed.training_batch(step)
    return (time.process_time() - begun) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--side", type=int, default=512, help="of what the network sees, pixels")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--instances", type=int, default=1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw_dataset(Path(folder), arguments.images, arguments.instances)
        opened = time.monotonic()
        dataset = split_dataset(open_dataset(folder, ["object"]), 0.25)
        opened = time.monotonic() - opened
        size = ImageSize(64, arguments.side, False)
        config = describe_network(dataset, size, backbone=arguments.backbone)
        settings = TrainingSettings(
            name="feeding",
            logs=Path(folder, "logs"),
            epochs=1,
            steps_per_epoch=arguments.steps,
            validation_steps=1,
        )
        settings.logs.mkdir()
        feed = make_feed(
            Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings), slice(None)
        )
        kept = rasters.decoded_images
        rasters.decoded_images = DecodedImages(0)
        decoding = making_time(feed, 0, 20)
        rasters.decoded_images = kept
        making_time(feed, 0, 40)
        making = making_time(feed, 0, 20)

        from ann.training import loop

        loop.Prefetcher = TimedPrefetcher
        job = Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings)
        train(job, Reporter(messages=sys.stdout))
        calls = np.array(TimedPrefetcher.calls[SKIPPED_STEPS : arguments.steps])
    step = (calls[-1, 0] - calls[0, 0]) / (len(calls) - 1)
    waiting = (calls[1:, 1] - calls[1:, 0]).mean()
    columns = ("backbone", "side", "images", "objects", "opening s", "making ms (decoding, kept)", "step s")
    columns = (*columns, "waiting ms", "waiting / step", "peak MB")
    objects = dataset.instance_counts[0]
    cells = [arguments.backbone, arguments.side, arguments.images, objects, f"{opened:.1f}"]
    cells += [f"{1000 * decoding:.0f}, {1000 * making:.0f}", f"{step:.2f}", f"{1000 * waiting:.1f}"]
    print(markdown(columns, [[*cells, f"{waiting / step:.1%}", peak_megabytes()]]))


if __name__ == "__main__":
    main()
