"""Cut scenes into training tiles and write them as shards: in threads here, or as tasks on all nodes.

Tasks get references (paths, windows, labels), never pixels; what they give back are counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor

from ann.cluster.connection import Cluster
from ann.data.dataset import Dataset, WindowReader
from ann.data.pixels.photos import PhotoPixels
from ann.data.readers.labelled_image import FilePixels
from ann.data.readers.shard_writing import (
    Labelled,
    PlannedTile,
    ShardSummary,
    begin_writing,
    finish_writing,
    plan_shards,
    remove_shards,
    split_single_scene,
    write_shard,
)
from ann.data.readers.shards import TileReader
from ann.data.storage import Folder
from ann.errors import ClusterError, DatasetError

CPUS_PER_TASK = 0.5  # writing a shard waits for storage half of the time
TASKS_PER_CPU = 4  # under way at once: enough that none waits, whatever the number of shards
TRIES = 4  # at one shard, where nodes die
CANCEL_SECONDS = 30  # for tasks to end that are not needed any more

Report = Callable[[int, int], None]


def write_dataset(
    dataset: Dataset,
    location: str,
    *,
    side: int,
    validation_share: float,
    overwrite: bool,
    cluster: Cluster | None = None,
    report: Report = lambda done, total: None,
    seed: int = 0,
) -> dict:
    """Write a dataset as shards; returns the manifest (see `finish_writing`).

    side: of the largest tiles, pixels; validation_share: of a single scene, which must be split before it is
    cut. report: gets the number of shards done and of all.

    Raises:
        DatasetError: an image can't be read, or the storage can't be written to.
        ClusterError: nodes died while one shard was written, several times.
    """
    if cluster is not None:
        check_portable(dataset)
    folder = Folder.of(location)
    parts = split_single_scene(dataset, validation_share, seed)
    plan = plan_shards(parts, side)
    images = [image for part in parts.values() for image in part]
    run = begin_writing(folder, overwrite=overwrite)
    summaries: list[ShardSummary | None] = [None] * len(plan)
    write = _write_here if cluster is None else _write_on_nodes
    written = write(cluster, folder, plan, images, Labelled.of(dataset), run)
    try:
        for done, (number, summary) in enumerate(written, 1):
            summaries[number] = summary
            report(done, len(plan))
        return finish_writing(folder, dataset, summaries, run)
    except BaseException:
        written.close()  # no shard is being written any more
        with contextlib.suppress(DatasetError, OSError):  # the first error is what matters
            remove_shards(folder, run)
        raise


def check_portable(dataset: Dataset) -> None:
    """Raise ClusterError where images can be read by this process alone, as GRASS raster maps are."""
    for image in (*dataset.images, *dataset.validation):
        read = image.read
        while isinstance(read, WindowReader):
            read = read.read
        if not isinstance(read, TileReader) and not isinstance(
            getattr(read, "pixels", None), FilePixels | PhotoPixels
        ):
            raise ClusterError(
                f"{image.name} can be read on this machine only. Write shards of it first, without cluster=: "
                "shards=directory"
            )


def _write_here(
    _cluster: None,
    folder: Folder,
    plan: Sequence[Sequence[PlannedTile]],
    images: Sequence,
    labelled: Labelled,
    run: str,
) -> Generator[tuple[int, ShardSummary]]:
    def write(number: int) -> ShardSummary:
        tiles = [(images[tile.image], tile.window, tile.part) for tile in plan[number]]
        return write_shard(folder, number, tiles, labelled, run)

    pool = ThreadPoolExecutor(os.cpu_count() or 1)
    try:
        yield from enumerate(pool.map(write, range(len(plan))))
    finally:
        pool.shutdown(cancel_futures=True)


def _write_on_nodes(
    cluster: Cluster,
    folder: Folder,
    plan: Sequence[Sequence[PlannedTile]],
    images: Sequence,
    labelled: Labelled,
    run: str,
) -> Generator[tuple[int, ShardSummary]]:
    import ray

    task = ray.remote(num_cpus=CPUS_PER_TASK, max_retries=TRIES - 1)(_write_task)
    at_once = max(4, int(TASKS_PER_CPU * sum(node.cpus for node in cluster.nodes)))
    sent: dict[int, object] = {}  # image number -> reference; an image is sent once for all its tiles
    under_way: dict[object, int] = {}
    coming = iter(enumerate(plan))
    try:
        while True:
            while len(under_way) < at_once and (following := next(coming, None)) is not None:
                number, tiles = following
                for tile in tiles:
                    if tile.image not in sent:
                        sent[tile.image] = ray.put(images[tile.image])
                needed = {tile.image: sent[tile.image] for tile in tiles}
                under_way[task.remote(folder, number, list(tiles), needed, labelled, run)] = number
                for image in [image for image in sent if image < tiles[-1].image]:
                    del sent[image]  # images come in order
            if not under_way:
                return
            (ready,), _ = ray.wait(list(under_way), num_returns=1)
            number = under_way.pop(ready)
            try:
                summary = ray.get(ready)
            except ray.exceptions.RayTaskError as error:
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[0]
                raise ClusterError(
                    f"Shard {number} could not be written in {TRIES} tries: {reason}"
                ) from error
            yield number, summary
    finally:
        for reference in under_way:
            ray.cancel(reference, force=False)
        if under_way:
            ray.wait(list(under_way), num_returns=len(under_way), timeout=CANCEL_SECONDS)


def _write_task(
    folder: Folder, number: int, tiles: Sequence[PlannedTile], images: dict, labelled: Labelled, run: str
):
    """A task: get the images' labels, then `write_shard`."""
    import ray

    found = {image: ray.get(reference) for image, reference in images.items()}
    named = [(found[tile.image], tile.window, tile.part) for tile in tiles]
    try:
        return write_shard(folder, number, named, labelled, run)
    except DatasetError as error:
        raise DatasetError(f"{error} (on the cluster's node {ray.util.get_node_ip_address()})") from error
