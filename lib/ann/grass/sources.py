"""Scenes to work on: raster maps or image files, what is wrong with them, and how they are opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import grass.script as gs
import numpy as np

from ann.cluster.tile_worker import SceneFile
from ann.config import ModelConfig
from ann.data.band_labels import places_of_bands
from ann.errors import AnnError, SceneError
from ann.grass.bands import Band, cells_inside
from ann.grass.files import external_transform, file_grid, find_images, find_sidecars
from ann.grass.reader import READER, DamagedMapError
from ann.grass.region import Grid, computational_region, ground_size, map_units, use_grid
from ann.grass.scenes import maps_of_scenes, semantic_labels
from ann.inference.files import FileScene
from ann.inference.resample import ResampledScene
from ann.inference.scene import Scene
from ann.inference.values import sample_values, unlike_training

PIXEL_SIZE_TOLERANCE = 1.5  # times larger or smaller than in training, before it is worth a warning
SQUARENESS = 1e-3  # largest difference of the sides of a cell, relative to its height, that counts as none
SCENES_SAMPLED = 20  # at most, so that looking at values stays a matter of seconds


@dataclass(frozen=True, kw_only=True)
class Source:
    """A scene that is not open: bands of the project within an extent, or an image file with its grid.

    file_bands: the numbers of the file's bands in the model's order, from 1; None for all in their own order.
    """

    name: str
    grid: Grid
    bands: tuple[Band, ...] = ()
    path: str | None = None
    file_bands: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Unusable:
    """A scene that can't be used, and why."""

    name: str
    error: str


def map_source(bands: Sequence[Band], extent: Grid) -> Source:
    """Bands as a scene, as far as they lie in `extent`; SceneError if they don't."""
    return Source(name=str(bands[0]), grid=cells_inside(bands[0], extent), bands=tuple(bands))


def file_source(path: str, config: ModelConfig, sidecars: Sequence[str] | None = None) -> Source:
    """An image file as a scene; SceneError if it can't be used.

    sidecars: paths of the files beside it that georeference it, in place of what it says itself.
    """
    chosen = file_bands(path, config.band_labels)
    with FileScene(path, chosen) as scene:
        if scene.bands != config.bands:
            raise SceneError(
                f"Image {path} has {scene.bands} bands, the model was trained on {config.bands}. "
                "Give images with the same bands in the same order as for training"
            )
        transform = scene.transform if sidecars is None else external_transform(path, sidecars)
        grid = file_grid(scene, transform)
        return Source(name=os.path.basename(path), grid=grid, path=path, file_bands=chosen)


def file_bands(path: str, wanted: Sequence[str]) -> tuple[int, ...] | None:
    """Which bands of an image file to read for a model of bands with these labels, by their descriptions.

    None where neither model nor file know any, and where the file calls all of them by other names.

    Raises:
        SceneError: only some of the model's bands are there.
    """
    if not wanted:
        return None
    with FileScene(path) as scene:
        labels, numbers = scene.band_descriptions, scene.band_numbers
    if not {label.casefold() for label in wanted} & {label.casefold() for label in labels if label}:
        return None
    places = places_of_bands(labels, wanted, f"Image {path}")
    return None if places is None else tuple(numbers[place] for place in places)


def find_sources(
    options: Mapping[str, str], flags: Mapping[str, bool], config: ModelConfig
) -> tuple[list[Source], list[Unusable]]:
    """All scenes, and those that are damaged. Maps must all exist and fit."""
    if options["images_directory"]:
        return find_files(options["images_directory"], options["images_format"], flags["e"], config)
    scenes = maps_of_scenes(options)
    if options["group"]:  # whose order says nothing where labels do
        places = places_of_bands(
            semantic_labels(scenes[0]), config.band_labels, f"The group <{options['group']}>"
        )
        scenes = scenes if places is None else [tuple(scenes[0][place] for place in places)]
    given = f"The group <{options['group']}> has" if options["group"] else "band1, band2, band3 give"
    if len(scenes[0]) != config.bands:
        raise SceneError(
            f"{given} {len(scenes[0])} bands, the model was trained on {config.bands}. "
            "Give the same bands in the same order as for training; group= takes any number"
        )
    extent = computational_region()
    sources, unusable = [], []
    for maps in scenes:
        try:
            sources.append(map_source(READER.find_bands(maps), extent))
        except DamagedMapError as error:
            unusable.append(Unusable(name=maps[0], error=str(error)))
            gs.warning(f"Scene {maps[0]} can't be used: {error}")
    if not sources:
        raise SceneError(f"None of {len(scenes)} scenes can be used. {unusable[0].error}")
    return sources, unusable


def find_files(
    directory: str, image_format: str, sidecars: bool, config: ModelConfig
) -> tuple[list[Source], list[Unusable]]:
    """Usable images of a directory as scenes, and what is wrong with the others."""
    images = find_images(directory, image_format)
    beside = find_sidecars(images) if sidecars else {}
    sources, unusable = [], []
    for path in images:
        try:
            sources.append(file_source(str(path), config, beside.get(path)))
        except SceneError as error:
            unusable.append(Unusable(name=path.name, error=str(error)))
            gs.warning(f"Scene {path.name} can't be used: {error}")
    if not sources:
        raise SceneError(f"None of {len(images)} images in <{directory}> can be used. {unusable[0].error}")
    return sources, unusable


def resampled_sources(sources: Sequence[Source], unusable: list[Unusable], resolution: float) -> list[Source]:
    """Those that can be seen with such pixels; the others are added to `unusable`."""
    usable = []
    for source in sources:
        try:
            check_resolution(source, resolution)
            usable.append(source)
        except SceneError as error:
            unusable.append(Unusable(name=source.name, error=str(error)))
            gs.warning(f"Scene {source.name} can't be used: {error}")
    if not usable:
        raise SceneError(unusable[-1].error)
    return usable


def warn_of_differences(sources: Sequence[Source], config: ModelConfig, resolution: float | None) -> None:
    """Warn of pixel sizes and values that are unlike those of the model's training."""
    for source in sources:
        if warning := pixel_size_warning(source, config, resolution):
            gs.warning(warning)
    if warning := values_warning(sources, config):
        gs.warning(warning)


def pixel_size_warning(source: Source, config: ModelConfig, resolution: float | None) -> str | None:
    """A warning if the cells are much larger or smaller than the pixels the model was trained on.

    None also where the size of either on the ground is not known.
    """
    own = ground_size(source.grid)
    if config.pixel_size is None or own is None:
        return None
    enlarged = 1.0 if resolution is None else resolution / source.grid.row_size
    ratio = own * enlarged / config.pixel_size
    if 1 / PIXEL_SIZE_TOLERANCE <= ratio <= PIXEL_SIZE_TOLERANCE:
        return None
    advice = "resample it to square cells of that size: r.resamp.interp, r.resamp.stats"
    if is_square(source.grid):
        wanted = source.grid.row_size * config.pixel_size / own
        advice = f"try resolution={wanted:.6g} ({map_units()})"
    return (
        f"Cells of {source.name} are {own * enlarged:.3g} m large on the ground, the model was trained on "
        f"{config.pixel_size:.3g} m. Objects look too {'small' if ratio > 1 else 'large'} to it; {advice}"
    )


def values_warning(sources: Sequence[Source], config: ModelConfig) -> str | None:
    """A warning if scenes hold values far from those of training; from a sample of some scenes.

    Scenes that can't be read are left to be reported when they are detected in.
    """
    chosen = sorted({round(place) for place in np.linspace(0, len(sources) - 1, SCENES_SAMPLED)})
    strange: dict[str, str] = {}
    for source in (sources[index] for index in chosen):
        try:
            with _open_own(source) as scene:
                values = sample_values(scene)
        except (AnnError, OSError):
            continue
        if found := unlike_training(values, config.band_mean, config.band_scale):
            strange[source.name] = found
    if not strange:
        return None
    first, *others = strange
    more = f" (and of {len(others)} more of {len(chosen)} scenes looked at)" if others else ""
    return (
        f"Values of {first}{more} are far from those of training: {strange[first]}. Detections will be poor. "
        "Scale the bands as they were for training (r.rescale, r.mapcalc), give them in the same order, or "
        "use a model that was trained on such values; mark fill values as NULL (r.null)"
    )


def check_resolution(source: Source, resolution: float) -> None:
    """SceneError if a scene can't be seen with pixels of that size, map units."""
    grid = source.grid
    if not is_square(grid):
        raise SceneError(
            f"Cells of {source.name} are not square ({grid.row_size:g} x {grid.column_size:g}), "
            "which resolution= needs. Resample the maps first: r.resamp.interp, r.resamp.stats"
        )
    if not round(min(grid.rows, grid.columns) * grid.row_size / resolution):
        raise SceneError(
            f"With resolution={resolution:g} nothing is left of {source.name}, whose {grid.rows} x "
            f"{grid.columns} cells are {grid.row_size:.6g} large. Both are in {map_units()}: give a finer one"
        )


def is_square(grid: Grid) -> bool:
    """Whether cells are as wide as high in map units."""
    return abs(grid.row_size - grid.column_size) <= SQUARENESS * grid.row_size


def _open_own(source: Source) -> AbstractContextManager[Scene]:
    """The scene with its own pixels."""
    if source.path is None:
        return READER.scene(source.bands, source.grid, source.name)
    return FileScene(source.path, source.file_bands)


def grid_to_work_in(source: Source, resolution: float | None) -> Grid:
    return source.grid if resolution is None else source.grid.resampled(resolution / source.grid.row_size)


def scene_file(source: Source, resolution: float | None) -> SceneFile | None:
    """What other machines read a scene from; None for maps, which this process alone can read."""
    if source.path is None:
        return None
    factor = resolution / source.grid.row_size if resolution else None
    return SceneFile(path=os.path.abspath(source.path), factor=factor, bands=source.file_bands)


@contextmanager
def open_source(source: Source, resolution: float | None) -> Iterator[tuple[Scene, Grid]]:
    """The scene and the grid of its pixels, which becomes the window of the process for writing."""
    with _open_own(source) as scene:
        grid = grid_to_work_in(source, resolution)
        if resolution is not None:
            check_resolution(source, resolution)
            scene = ResampledScene(scene, resolution / source.grid.row_size)
        use_grid(grid)
        yield scene, grid
