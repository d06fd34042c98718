"""Write labelled images as Parquet shards (see `shards`): what belongs into which, one shard, the manifest.

Shards are planned from what is known before pixels are read, so they can be written anywhere in any order.
"""

from __future__ import annotations

import contextlib
import json
import re
import uuid
import zlib
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise

import numpy as np

from ann.data.band_labels import common_labels
from ann.data.dataset import OBJECT_LABELS, Dataset, LabelledImage, WindowReader, name_some
from ann.data.example import Example
from ann.data.pixels.encoding import encode_image
from ann.data.pixels.rasters import open_image
from ann.data.pixels.windows import Window, whole
from ann.data.readers.shard_labels import KINDS, KnownLabels, LabelStore
from ann.data.readers.shards import FORMAT, MANIFEST, TILES_KEY, TRAINING, VALIDATION, VERSION, read_manifest
from ann.data.samples.scaling import Moments
from ann.data.split import scene_to_cut, split_dataset
from ann.data.storage import Folder, storage_errors
from ann.errors import DatasetError

SHARD_BYTES = 128 * 2**20  # of pixels before compression, about: a file that storage likes and memory bears


@dataclass(frozen=True, kw_only=True)
class PlannedTile:
    """A tile to be written: the window of the image of that number; part: training or validation."""

    image: int
    window: Window
    part: str


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What the labels of a dataset are: their kind (`Dataset.labels`) and the number of classes."""

    kind: str
    class_count: int

    @classmethod
    def of(cls, dataset: Dataset) -> Labelled:
        """Those of a dataset."""
        return cls(kind=dataset.labels, class_count=len(dataset.classes))


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardSummary:
    """What was written. instances: of what is labelled, by class; moments: of the pixels with data."""

    name: str
    bytes: int
    tiles: int
    instances: tuple[int, ...]
    moments: Moments = field(repr=False)


def split_single_scene(dataset: Dataset, share: float, seed: int) -> dict[str, tuple[LabelledImage, ...]]:
    """The images of each part. share: of a single scene for validation, 0 for none.

    Tiles of one scene never stand on both sides of a split, so a single scene is split before it is cut.
    """
    if share and not dataset.validation and scene_to_cut(dataset.images, share):
        dataset = split_dataset(dataset, share, seed)
    return {TRAINING: dataset.images, VALIDATION: dataset.validation}


def plan_shards(parts: dict[str, Sequence[LabelledImage]], side: int) -> list[list[PlannedTile]]:
    """Which tiles go into which shard. Images are numbered through all parts.

    side: images with a longer side are cut evenly into tiles of at most that many pixels a side.
    """
    shards: list[list[PlannedTile]] = []
    room = 0
    number = 0
    for part, images in parts.items():
        for image in images:
            pixel = image.bands * np.dtype(image.dtype).itemsize
            for window in even_windows(image.height, image.width, side):
                size = window.height * window.width * pixel
                if size > room or not shards:
                    shards.append([])
                    room = SHARD_BYTES
                shards[-1].append(PlannedTile(image=number, window=window, part=part))
                room -= size
            number += 1
    return shards


def even_windows(height: int, width: int, side: int) -> list[Window]:
    """Cut an image into windows of at most `side` pixels a side, of about one size, without overlap."""
    rows, columns = _even_cuts(height, side), _even_cuts(width, side)
    return [
        Window(row=top, column=left, height=bottom - top, width=right - left)
        for top, bottom in pairwise(rows)
        for left, right in pairwise(columns)
    ]


def _even_cuts(length: int, side: int) -> list[int]:
    parts = -(-length // side)
    return [number * length // parts for number in range(parts + 1)]


def write_shard(
    folder: Folder,
    number: int,
    tiles: Sequence[tuple[LabelledImage, Window, str]],
    labelled: Labelled,
    run: str = "",
) -> ShardSummary:
    """Write one shard; memory holds one tile.

    tiles: image, window and part of each; run: as `begin_writing` named it. The file's name is new each time,
    so that two tries at the same shard never write to one file; what is not in the manifest doesn't count.

    Raises:
        DatasetError: an image can't be read, or the storage can't be written to; nothing is left behind then.
    """
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    name = f"shard-{number:05d}-{run}{uuid.uuid4().hex[:8]}.parquet"
    kind = KINDS[labelled.kind]
    schema = _schema(kind)
    index, instances, moments = [], np.zeros(labelled.class_count, np.int64), None
    try:
        with storage_errors(folder.file(name), "written"), folder.open_output(name) as file:
            with parquet.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
                for image, window, part in tiles:
                    example = image.read(window)
                    known = kind.known(example, labelled.class_count)
                    row, entry = _describe(image, window, part, example, known)
                    row[kind.column] = kind.store(example)
                    writer.write_table(arrow.Table.from_pylist([row], schema))
                    index.append(entry)
                    instances += known.counts
                    added = _moments(example)
                    moments = added if moments is None else moments + added
                writer.add_key_value_metadata({TILES_KEY: json.dumps(index, separators=(",", ":"))})
            size = file.tell()
    except BaseException:
        with contextlib.suppress(DatasetError, OSError):  # the first error is what matters
            folder.delete(name)
        raise
    return ShardSummary(
        name=name,
        bytes=size,
        tiles=len(index),
        instances=tuple(int(count) for count in instances),
        moments=moments,
    )


def begin_writing(folder: Folder, *, overwrite: bool) -> str:
    """Make the directory ready for shards; returns a name for this run, which is new each time.

    What is there stays as it is, an earlier set too, until the new one is complete.

    Raises:
        DatasetError: it can't be written to, or holds shards already and `overwrite` is False.
    """
    folder.create()
    if MANIFEST in folder.sizes() and not overwrite:
        raise DatasetError(f"There are shards in {folder} already. Choose another place, or use --overwrite.")
    run = uuid.uuid4().hex[:8]
    folder.replace(f"{MANIFEST}.{run}", b"{}")
    folder.delete(f"{MANIFEST}.{run}")
    return run


def remove_shards(folder: Folder, run: str, kept: Container[str] = ()) -> None:
    """Remove what a run has written, but for the shards that are to be kept."""
    for name in folder.sizes():
        if re.fullmatch(rf"shard-\d+-{run}[0-9a-f]{{8}}\.parquet", name) and name not in kept:
            folder.delete(name)


def finish_writing(folder: Folder, dataset: Dataset, shards: Sequence[ShardSummary], run: str = "") -> dict:
    """Write the manifest, then remove the shards of the set that it replaces, and those of broken tries.

    Files that neither this run has made nor the replaced manifest names stay.

    Raises:
        DatasetError: a shard isn't found, as when other machines wrote to disks of their own.
    """
    sizes = folder.sizes()
    lost = [folder.file(shard.name) for shard in shards if sizes.get(shard.name) != shard.bytes]
    if lost:
        raise DatasetError(
            f"{len(lost)} of {len(shards)} shards that were written can't be found: {name_some(lost)}. "
            "Choose storage that all machines see under the same path."
        )
    moments = sum((shard.moments for shard in shards[1:]), start=shards[0].moments)
    mean, deviation = moments.scaling()
    manifest = {
        "format": FORMAT,
        "version": 1 if dataset.labels == OBJECT_LABELS else VERSION,
        "labels": dataset.labels,
        "classes": list(dataset.classes),
        "instances": np.sum([shard.instances for shard in shards], axis=0).tolist(),
        "tiles": sum(shard.tiles for shard in shards),
        "bands": dataset.images[0].bands,
        "band_labels": list(common_labels(image.band_labels for image in dataset.images)),
        "dtypes": sorted({image.dtype for image in (*dataset.images, *dataset.validation)}),
        "pixels": moments.count,
        "band_mean": list(mean),
        "band_deviation": list(deviation),
        "notes": list(dataset.notes),
        "shards": [
            {
                "name": shard.name,
                "bytes": shard.bytes,
                "tiles": shard.tiles,
                "instances": list(shard.instances),
            }
            for shard in shards
        ],
    }
    replaced = _named_shards(folder)
    folder.replace(MANIFEST, json.dumps(manifest, indent=1).encode())
    named = {shard.name for shard in shards}
    for name in replaced & sizes.keys() - named:
        folder.delete(name)
    if run:
        remove_shards(folder, run, named)
    return manifest


def _named_shards(folder: Folder) -> set[str]:
    """Shards that the manifest names; none where there is no manifest, or not one of ours."""
    with contextlib.suppress(DatasetError):
        names = {shard["name"] for shard in read_manifest(folder)["shards"]}
        return {name for name in names if name.startswith("shard-") and name.endswith(".parquet")}
    return set()


def _schema(kind: LabelStore):
    import pyarrow as arrow

    return arrow.schema(
        {
            "name": arrow.string(),
            "scene": arrow.string(),
            "row": arrow.int64(),
            "column": arrow.int64(),
            "height": arrow.int32(),
            "width": arrow.int32(),
            "transform": arrow.list_(arrow.float64()),
            "crs": arrow.string(),
            "image": arrow.binary(),
            "valid": arrow.binary(),
            kind.column: kind.type(),
        }
    )


def _describe(
    image: LabelledImage, window: Window, part: str, example: Example, known: KnownLabels
) -> tuple[dict, dict]:
    """A tile's row of the table, without its labels, and its entry in the shard's metadata."""
    row, column = _place_in_scene(image, window)
    transform, crs = _georeference(image, window, row, column)
    cut = window != whole(image.height, image.width)
    name = (
        f"{image.name}[{window.row}:{window.box[2]},{window.column}:{window.box[3]}]" if cut else image.name
    )
    common = {
        "name": name,
        "scene": image.source,
        "row": row,
        "column": column,
        "height": window.height,
        "width": window.width,
    }
    entry = {
        "part": part,
        "dtype": str(example.image.dtype),
        "pixel_size": image.pixel_size,
        **asdict(known),
    }
    valid = None if example.valid is None else zlib.compress(np.packbits(example.valid).tobytes())
    values = {"transform": transform, "crs": crs, "image": encode_image(example.image), "valid": valid}
    return common | values, common | entry


def _place_in_scene(image: LabelledImage, window: Window) -> tuple[int, int]:
    """Row and column of a window in the whole scene, of which the image may itself be a part."""
    row, column, read = window.row, window.column, image.read
    while isinstance(read, WindowReader):
        row, column, read = row + read.window.row, column + read.window.column, read.read
    return row, column


def _georeference(
    image: LabelledImage, window: Window, row: int, column: int
) -> tuple[list[float] | None, str | None]:
    """The tile's transform and coordinate system, None for an image without."""
    if image.extent is not None:
        west, south, east, north = image.extent
        cell_width, cell_height = (east - west) / image.width, (north - south) / image.height
        return [cell_width, 0, west + column * cell_width, 0, -cell_height, north - row * cell_height], None
    if image.pixel_size is None:
        return None, None
    if image.place is not None:
        place = image.place.moved(window)
        return list(place.transform)[:6], place.frame or None
    try:
        with open_image(image.path) as source:
            if source.transform.is_identity:
                return None, None
            a, b, c, d, e, f = list(source.transform)[:6]
            moved = [a, b, a * column + b * row + c, d, e, d * column + e * row + f]
            return moved, source.crs.to_wkt() if source.crs else None
    except DatasetError:  # labels of a scene that is no image file
        return None, None


def _moments(example: Example) -> Moments:
    pixels = example.image.reshape(-1, example.image.shape[-1])
    return Moments.of(pixels if example.valid is None else pixels[example.valid.ravel()])
