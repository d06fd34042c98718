"""Send many small images through a classifier: read ahead, batch by batch, results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ann.data.example import Example
from ann.data.pixels.windows import whole
from ann.data.samples.prefetch import Prefetcher
from ann.data.samples.resize import legacy_scale, resample
from ann.data.samples.samples import place_example
from ann.errors import AnnError
from ann.inference.tile_rows import TileBatch, Workers
from classifier.config import ClassifierConfig


@dataclass(frozen=True, kw_only=True, eq=False)
class Told:
    """What became of an image: probabilities (K,) float32, or None and why; no reason: it shows no data."""

    index: int
    probabilities: np.ndarray | None = None
    error: str = ""


class Images(Protocol):
    """Images by number.

    readers: threads that may call `read` at the same time; with one, numbers come in their order.
    """

    readers: int

    def __len__(self) -> int: ...

    def read(self, index: int) -> Example | None:
        """An image, None for one without data; raises AnnError."""


def network_image(example: Example | None, config: ClassifierConfig) -> np.ndarray | None:
    """An example as the network sees it in validation, (H, W, C) float32; None without data.

    Raises:
        DatasetError: it has values that can't be those that the model was trained on.
    """
    if example is None or (example.valid is not None and not example.valid.any()):
        return None
    scale = legacy_scale(*example.image.shape[:2], *config.image_shape)
    return np.ascontiguousarray(place_example(example, scale, config, None, resample).image)


def class_worker(
    network: Callable[[np.ndarray], np.ndarray], batch_size: int
) -> Callable[[TileBatch], list[np.ndarray]]:
    """A function of a batch of images as the network sees them: probabilities (K,) of each."""

    def work(batch: TileBatch) -> list[np.ndarray]:
        images = np.zeros((batch_size, *batch.pixels[0].shape), np.float32)  # networks want one size
        images[: len(batch.pixels)] = batch.pixels
        return list(network(images)[: len(batch.pixels)])

    return work


def tell_classes(work: Images, config: ClassifierConfig, workers: Workers, batch_size: int) -> Iterator[Told]:
    """What the network says of all images, in their order.

    An AnnError of one is told of this image alone. Memory is that of the batches under way.
    """
    count = len(work)

    def make(index: int) -> np.ndarray | AnnError | None:
        try:
            return network_image(work.read(index), config)
        except AnnError as error:
            return error

    under_way: deque[tuple[list[Told], list[int], object]] = deque()

    def finish() -> Iterator[Told]:
        told, places, future = under_way.popleft()
        if future is not None:
            for place, values in zip(places, future.result(), strict=True):
                told[place] = Told(index=told[place].index, probabilities=np.asarray(values))
        yield from told

    try:
        with Prefetcher(make, stop=count, workers=work.readers, depth=2 * batch_size) as images:
            for start in range(0, count, batch_size):
                told, places, pixels = [], [], []
                for index in range(start, min(start + batch_size, count)):
                    image = next(images)
                    told.append(Told(index=index, error=str(image) if isinstance(image, AnnError) else ""))
                    if isinstance(image, np.ndarray):
                        places.append(index - start)
                        pixels.append(image)
                future = workers.submit(_batch(pixels)) if pixels else None
                under_way.append((told, places, future))
                while len(under_way) >= workers.in_flight:
                    yield from finish()
        while under_way:
            yield from finish()
    finally:
        for _, _, future in under_way:
            if future is not None:
                future.cancel()


def _batch(pixels: list[np.ndarray]) -> TileBatch:
    tiles = tuple(whole(*image.shape[:2]) for image in pixels)
    return TileBatch(tiles=tiles, pixels=tuple(pixels), valid=())
