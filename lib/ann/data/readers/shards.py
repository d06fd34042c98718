"""Training tiles in Parquet files (shards), on local or remote storage, and their reading tile by tile.

A directory of shards has a manifest, `shards.json`, which is written last: without it the set is incomplete.
Each shard has one row group per tile:

    name, scene, row, column, height, width   which window of which scene the tile shows, pixels of the scene
    transform, crs       of the tile: six numbers (a, b, c, d, e, f) from (column, row) to map units, and WKT
    image                a TIFF file, losslessly compressed: any number of bands, any type of numbers
    valid                compressed bits, row by row: where the tile has data; null: everywhere

and a column for the labels, of one kind in all shards of a set (see `shard_labels`):

    instances            class id (negative: a region that training ignores), box, area of the whole instance,
                         run lengths of its mask as in COCO files
    class_raster         a TIFF file with the class id of each cell, negative where none is known

What must be known of all tiles before any is read (sizes, boxes, classes) stands in the file's metadata, so
that a shard is opened by reading its end. Pages have checksums.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from rasterio.io import MemoryFile

from ann.data.dataset import (
    OBJECT_LABELS,
    Dataset,
    LabelledImage,
    check_classes,
    check_labels,
    count_class_ids,
    name_some,
)
from ann.data.example import Example
from ann.data.pixels.rasters import read_pixels
from ann.data.pixels.windows import Window
from ann.data.readers.shard_labels import KINDS
from ann.data.storage import Folder, is_uri
from ann.errors import DatasetError

MANIFEST = "shards.json"
FORMAT, VERSION = "maskrcnn training tiles", 2
TILES_KEY = b"maskrcnn.tiles"  # of a shard's metadata: JSON, a list with an object for each tile
TRAINING, VALIDATION = "training", "validation"  # parts that a tile can be of
OPENED_AT_ONCE = 8  # shards whose ends are read at the same time
PREPARE_AGAIN = "Copy it again from where it was written, or write the shards again"


def is_shards(location: str | Path) -> bool:
    """Whether a path or URI holds shards, complete or not. Any URI counts: no other format can be at one."""
    if is_uri(location):
        return True
    folder = Path(location)
    return (folder / MANIFEST).is_file() or (folder.is_dir() and any(folder.glob("shard-*.parquet")))


def read_shards(location: str | Path, classes: Sequence[str], *, skip_damaged: bool = False) -> Dataset:
    """Open a directory of shards. Memory is that of boxes and class ids; pixels and masks are read on demand.

    skip_damaged: leave out shards that are missing or damaged and say so in the notes; each is then read from
        end to end to find out.

    Raises:
        DatasetError: no or an incomplete set, a shard missing or damaged (also when a tile is read), or
            classes that don't match `classes`.
    """
    classes = check_classes(classes)
    folder = Folder.of(location)
    manifest = read_manifest(folder)
    names = manifest["classes"]
    labelled = zip(names, manifest["instances"], strict=True)
    check_labels({name: [str(folder)] for name, count in labelled if count}, classes, "Shards with a class")
    sizes = folder.sizes()

    def open_one(shard: dict) -> list[tuple[str, LabelledImage]] | DatasetError:
        try:
            check_size(folder, shard, sizes)
            tiles = open_shard(folder, shard["name"], classes, manifest)
            if skip_damaged:
                for _, tile in tiles:
                    tile.read(None)
            return tiles
        except DatasetError as error:
            if not skip_damaged:
                raise
            return error

    with ThreadPoolExecutor(OPENED_AT_ONCE) as pool:
        opened = list(pool.map(open_one, manifest["shards"]))
    notes = list(manifest["notes"])
    damaged = [found for found in opened if isinstance(found, DatasetError)]
    if damaged:
        notes.append(f"{len(damaged)} of {len(opened)} shards are left out: {name_some(damaged)}")
    tiles = [tile for found in opened if not isinstance(found, DatasetError) for tile in found]
    labels = tuple(map(str, manifest.get("band_labels", ())))  # which older shards lack
    tiles = [(part, replace(tile, band_labels=labels)) for part, tile in tiles]
    parts = {part: tuple(tile for kind, tile in tiles if kind == part) for part in (TRAINING, VALIDATION)}
    if not parts[TRAINING]:
        raise DatasetError(f"No shard of {folder} can be used. {name_some(damaged)}")
    return Dataset(
        classes=classes,
        images=parts[TRAINING],
        labels=manifest["labels"],
        validation=parts[VALIDATION],
        notes=tuple(notes),
        band_statistics=(tuple(manifest["band_mean"]), tuple(manifest["band_deviation"])),
    )


def read_manifest(folder: Folder) -> dict:
    """The manifest of a directory of shards.

    Raises:
        DatasetError: there is none, or it is damaged or of a newer version.
    """
    try:
        content = folder.read(MANIFEST)
    except FileNotFoundError as error:
        shards = [name for name in folder.sizes() if name.startswith("shard-")]
        if not shards:
            raise DatasetError(f"No shards found in {folder}: it has no {MANIFEST}.") from error
        raise DatasetError(
            f"The shards in {folder} are incomplete: {MANIFEST}, which is written last, is missing. "
            "Write them again with shards=."
        ) from error
    try:
        manifest = json.loads(content)
        if manifest["format"] != FORMAT:
            raise ValueError(f"its format is {manifest['format']!r}")
        if manifest["version"] > VERSION:
            raise DatasetError(
                f"The shards in {folder} were written by a newer version of i.ann.maskrcnn. Update it here."
            )
        for key in ("classes", "instances", "bands", "band_mean", "band_deviation", "notes", "shards"):
            manifest[key]
        KINDS[manifest.setdefault("labels", OBJECT_LABELS)]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{folder.file(MANIFEST)} is damaged ({error}). {PREPARE_AGAIN}.") from error
    return manifest


def check_size(folder: Folder, shard: dict, sizes: dict[str, int]) -> None:
    """Raise DatasetError where a shard is missing or has not the size that the manifest says."""
    name = shard["name"]
    if name not in sizes:
        raise DatasetError(f"Shard {folder.file(name)} is missing. {PREPARE_AGAIN}.")
    if sizes[name] != shard["bytes"]:
        raise DatasetError(
            f"Shard {folder.file(name)} has {sizes[name]} bytes instead of {shard['bytes']}. {PREPARE_AGAIN}."
        )


def open_shard(
    folder: Folder, name: str, classes: Sequence[str], manifest: dict
) -> list[tuple[str, LabelledImage]]:
    """The tiles of a shard as labelled images, each with its part (training or validation).

    classes: those that the images' ids shall count, whatever order the manifest has them in.
    """
    names = manifest["classes"]
    new_ids = np.array([0, *(classes.index(one) + 1 if one in classes else 0 for one in names)], np.int32)
    found = []
    for index, tile in enumerate(_metadata(folder, name).tiles):
        stored = np.array(tile["class_ids"], dtype=np.int32)
        class_ids = new_ids[np.abs(stored)]
        class_ids = np.where(stored < 0, -np.maximum(class_ids, 1), class_ids)
        boxes = np.array(tile["boxes"], dtype=np.int32).reshape(-1, 4)
        counts = np.zeros(len(classes) + 1, np.int64)
        counts[new_ids[1:]] = tile.get("counts") or count_class_ids(stored, len(names))
        image = LabelledImage(
            name=tile["name"],
            path=f"{folder.file(name)}, tile {index} ({tile['name']})",
            height=tile["height"],
            width=tile["width"],
            bands=manifest["bands"],
            dtype=tile["dtype"],
            instance_counts=tuple(counts[1:].tolist()),
            boxes=boxes,
            class_ids=class_ids,
            source=tile["scene"],
            pixel_size=tile["pixel_size"],
            read=TileReader(
                folder=folder,
                shard=name,
                index=index,
                labels=manifest["labels"],
                name=tile["name"],
                height=tile["height"],
                width=tile["width"],
                boxes=boxes,
                class_ids=class_ids,
                new_ids=new_ids,
            ),
        )
        found.append((tile["part"], image))
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class TileReader:
    """Reads one tile, which is a row group of its own, as an `ImageReader` reads an image.

    labels: their kind; for the others see `shard_labels.Tile`.
    """

    folder: Folder
    shard: str
    index: int
    labels: str
    name: str
    height: int
    width: int
    boxes: np.ndarray
    class_ids: np.ndarray
    new_ids: np.ndarray

    def __call__(self, window: Window | None = None) -> Example:
        """The window, or the whole tile, with its labels.

        Raises:
            DatasetError: the shard is missing or damaged.
        """
        kind = KINDS[self.labels]
        row = self._read(kind.column)
        with _damage(self.folder, self.shard), MemoryFile(row["image"]) as image:
            pixels = _TilePixels(image.name, _unpack_valid(row["valid"], self.height, self.width))
            return kind.read(self, row[kind.column], pixels, window)

    def _read(self, column: str) -> dict:
        import pyarrow.parquet as parquet

        known = _metadata(self.folder, self.shard).parquet
        with _damage(self.folder, self.shard), self.folder.open_input(self.shard) as file:
            shard = parquet.ParquetFile(file, metadata=known, page_checksum_verification=True)
            table = shard.read_row_group(self.index, columns=["image", "valid", column], use_threads=False)
            return table.to_pylist()[0]


@dataclass(frozen=True)
class _TilePixels:
    path: str
    valid: np.ndarray | None

    def __call__(self, window: Window) -> tuple[np.ndarray, np.ndarray | None]:
        pixels, _ = read_pixels(self.path, window)
        if self.valid is None:
            return pixels, None
        y1, x1, y2, x2 = window.box
        valid = self.valid[y1:y2, x1:x2]
        return pixels, None if valid.all() else valid


@dataclass(frozen=True, eq=False)
class _Metadata:
    parquet: object  # pyarrow.parquet.FileMetaData
    tiles: list[dict]


@lru_cache(maxsize=4096)
def _metadata(folder: Folder, name: str) -> _Metadata:
    """The end of a shard, read once in a process."""
    import pyarrow.parquet as parquet

    with _damage(folder, name), folder.open_input(name) as file:
        metadata = parquet.read_metadata(file)
        return _Metadata(metadata, json.loads(metadata.metadata[TILES_KEY]))


class _damage:
    """Turn whatever goes wrong while a shard is read into a `DatasetError` that names it."""

    def __init__(self, folder: Folder, name: str):
        self._shard = folder.file(name)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _traceback):
        from pyarrow import ArrowException

        if isinstance(error, FileNotFoundError):
            raise DatasetError(f"Shard {self._shard} is missing. {PREPARE_AGAIN}.") from error
        if isinstance(error, (OSError, ValueError, KeyError, TypeError, ArrowException, zlib.error)):
            reason = str(error).split("\n")[0].rstrip(".")
            raise DatasetError(f"Shard {self._shard} is damaged ({reason}). {PREPARE_AGAIN}.") from error


def _unpack_valid(bits: bytes | None, height: int, width: int) -> np.ndarray | None:
    if bits is None:
        return None
    unpacked = np.unpackbits(np.frombuffer(zlib.decompress(bits), np.uint8), count=height * width)
    return unpacked.astype(bool).reshape(height, width)
