"""What the module i.ann.unet.predict does with its options: checks, then work, then a summary."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import grass.script as gs
import numpy as np
from grass.exceptions import CalledModuleError
from grass.script.utils import legalize_vector_name

from ann.errors import AnnError, SceneError
from ann.grass.bands import CELL_NULL
from ann.grass.clear_up import clear_up
from ann.grass.exchange import FinishedMap, exchange
from ann.grass.modules import interruptions_held, module_failure
from ann.grass.options import positive, use_threads
from ann.grass.outputs import OutputNames, check_outputs
from ann.grass.progress import ProgressDisplay
from ann.grass.raster_output import RasterWriter, finish_class_raster, finish_score_raster
from ann.grass.region import Grid, cell_area
from ann.grass.scenes import split
from ann.grass.sources import (
    Source,
    Unusable,
    find_sources,
    open_source,
    pixel_size_warning,
    resampled_sources,
    values_warning,
)
from ann.grass.temporary import TemporaryMaps
from ann.inference.cells import CellSettings, Part, cell_worker, predict_cells
from ann.inference.tile_rows import Here, Workers
from ann.weights import ModelFile
from unet.classes import class_of_probabilities
from unet.config import UNetConfig
from unet.model_file import read_model

KINDS = ("class", "probability")


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything about a run, checked. names: of maps, by (kind, number of the scene, class id or 0)."""

    model: ModelFile
    sources: tuple[Source, ...]
    unusable: tuple[Unusable, ...]
    names: Mapping[tuple[str, int, int], str]
    threshold: float
    resolution: float | None

    @property
    def config(self) -> UNetConfig:
        """The model's description."""
        return self.model.config


def run(options: Mapping[str, str], flags: Mapping[str, bool]) -> bool:
    """Predict as the options of i.ann.unet.predict say; True if no scene failed.

    Raises:
        AnnError: bad input, before any work; or no scene could be predicted.
    """
    try:
        return _run(options, flags)
    except CalledModuleError as error:
        raise AnnError(module_failure(error)) from error


def _run(options: Mapping[str, str], flags: Mapping[str, bool]) -> bool:
    start = time.perf_counter()
    clear_up()
    request = check_request(options, flags)
    for source in request.sources:
        if warning := pixel_size_warning(source, request.config, request.resolution):
            gs.warning(warning)
    if warning := values_warning(request.sources, request.config):
        gs.warning(warning)
    threads = int(options["nprocs"] or 0)
    use_threads(threads)
    network, settings = load(request, options, keras_only=flags["k"], threads=threads)
    workers = Here(cell_worker(network, settings))
    scenes: list[dict] = [{"name": one.name, "error": one.error} for one in request.unusable]
    with TemporaryMaps() as temporary:
        finished: list[FinishedMap] = []
        progress = ProgressDisplay(len(request.sources), "Predicting")
        for number, source in enumerate(request.sources):
            progress.begin(number, source)
            try:
                maps, summary = predict(
                    request, number, source, workers, settings, temporary, progress.report
                )
            except (AnnError, OSError, CalledModuleError) as error:
                message = module_failure(error) if isinstance(error, CalledModuleError) else str(error)
                gs.warning(f"Scene {source.name} failed: {message}")
                scenes.append({"name": source.name, "error": message})
                continue
            finished += maps
            scenes.append(summary)
        progress.end()
        failed = [scene for scene in scenes if scene["error"] is not None]
        if len(failed) == len(scenes):
            raise SceneError(
                "Nothing was predicted: " + "; ".join(f"{one['name']}: {one['error']}" for one in failed[:5])
            )
        with interruptions_held() as waiting:
            failures = exchange(finished, waiting)
            written = [one.name for one in finished if one.name not in failures]
            for one in finished:
                if one.name not in failures:
                    temporary.finished(one.temporary)
    summary = {
        "model": str(request.model.path),
        "raster_maps": written,
        "maps_failed": failures,
        "scenes": scenes,
        "seconds": round(time.perf_counter() - start, 3),
    }
    if options["format"] == "json":
        print(json.dumps(summary, indent=2))
    report(summary)
    return not failed and not failures


def load(
    request: Request, options: Mapping[str, str], *, keras_only: bool, threads: int
) -> tuple[Callable[[np.ndarray], np.ndarray], CellSettings]:
    """The network, and how scenes are cut for it; imports Keras."""
    from unet.prediction import cell_settings, fastest_network, load_network

    network = load_network(request.model)
    settings = cell_settings(
        network,
        request.config,
        side=int(options["tile_size"]) if options["tile_size"] else None,
        batch_size=int(options["batch_size"] or 1),
    )
    run_network, runtime = fastest_network(network, keras_only=keras_only, threads=threads)
    gs.message(f"The network runs on {runtime}")
    return run_network, settings


def check_request(options: Mapping[str, str], flags: Mapping[str, bool]) -> Request:
    """Turn options into a request.

    Raises:
        AnnError: the first thing that is wrong with them.
    """
    model = read_model(options["model"])
    threshold = float(options["threshold"] or 0.5)
    if not 0 < threshold < 1:
        raise AnnError(f"threshold={options['threshold']} is not between 0 and 1")
    side = options["tile_size"]
    if side and int(side) % model.config.size_multiple:
        multiple = model.config.size_multiple
        lower = int(side) // multiple * multiple
        raise AnnError(
            f"tile_size={side} is not a multiple of {multiple}, the stride of the model's network. "
            f"Use {lower or multiple} or {lower + multiple}"
        )
    resolution = positive(options["resolution"], "resolution")
    sources, unusable = find_sources(options, flags, model.config)
    if resolution is not None:
        sources = resampled_sources(sources, unusable, resolution)
    names = name_maps(split(options["output_type"]), options["output"], model.config.classes, sources)
    check_outputs(
        OutputNames(
            vectors={}, rasters={(key[0], place): name for place, (key, name) in enumerate(names.items())}
        )
    )
    return Request(
        model=model,
        sources=tuple(sources),
        unusable=tuple(unusable),
        names=names,
        threshold=threshold,
        resolution=resolution,
    )


def name_maps(
    kinds: Sequence[str], output: str, classes: Sequence[str], sources: Sequence[Source]
) -> dict[tuple[str, int, int], str]:
    """Names of the raster maps: the output's, with the scene's behind where there are several, and the
    class's
    behind for probabilities.

    Raises:
        AnnError: two of them would have one name.
    """
    names: dict[tuple[str, int, int], str] = {}
    for number, source in enumerate(sources):
        base = output
        if len(sources) > 1:
            stem = source.name.split("@")[0].rsplit(".", 1)[0]
            base = f"{output}_{legalize_vector_name(stem, fallback_prefix='')}"
        if "class" in kinds:
            names["class", number, 0] = base
        if "probability" in kinds:
            for class_id, name in enumerate(classes, 1):
                legal = legalize_vector_name(name, fallback_prefix="class_")
                names["probability", number, class_id] = f"{base}_{legal}"
    seen: dict[str, tuple] = {}
    for key, name in names.items():
        if name.lower() in seen:
            raise AnnError(f"Two raster maps would be called <{name}>. Give scenes or classes other names")
        seen[name.lower()] = key
    return names


def seen_source(source: Source, halo: int) -> tuple[Source, Part]:
    """The scene with what the network sees around it of the map, and which part of that is wanted.

    The grid of the ground is the map's own: its first cell is (0, 0).
    """
    grid = source.grid
    if not source.bands:
        return source, Part(row=0, column=0, height=grid.rows, width=grid.columns)
    whole = source.bands[0].grid
    row = round((whole.north - grid.north) / whole.row_size)
    column = round((grid.west - whole.west) / whole.column_size)
    inside = 0 <= row <= whole.rows - grid.rows and 0 <= column <= whole.columns - grid.columns
    if not inside:  # a map around the Earth, whose columns have no first one
        return source, Part(row=0, column=0, height=grid.rows, width=grid.columns)
    top, left = min(halo, row), min(halo, column)
    below = min(halo, whole.rows - row - grid.rows)
    right = min(halo, whole.columns - column - grid.columns)
    seen = whole.part(row - top, column - left, grid.rows + top + below, grid.columns + left + right)
    part = Part(row=top, column=left, height=grid.rows, width=grid.columns, origin=(row - top, column - left))
    return replace(source, grid=seen), part


def predict(
    request: Request,
    number: int,
    source: Source,
    workers: Workers,
    settings: CellSettings,
    temporary: TemporaryMaps,
    report: Callable,
) -> tuple[list[FinishedMap], dict]:
    """Predict a scene: maps that are complete but for their names, and what the summary says."""
    start = time.perf_counter()
    config = request.config
    resampled = request.resolution is not None
    shown, part = (source, None) if resampled else seen_source(source, settings.halo)
    cells = np.zeros(config.class_count, dtype=np.int64)
    areas = np.zeros(config.class_count)
    wanted = {key: name for key, name in request.names.items() if key[1] == number}
    maps = {key: temporary.raster(key[0]) for key in wanted}
    with open_source(shown, request.resolution) as (scene, grid), ExitStack() as stack:
        if part is None:
            part = Part(row=0, column=0, height=grid.rows, width=grid.columns)
        own = grid.part(part.row, part.column, part.height, part.width)
        use_output(own)
        writers = {
            key: stack.enter_context(
                RasterWriter(name, own, dtype=np.int32 if key[0] == "class" else np.float32)
            )
            for key, name in maps.items()
        }
        for rows in predict_cells(scene, part, workers, settings, report):
            classes = class_of_probabilities(rows.values, request.threshold)
            for key, writer in writers.items():
                if key[0] == "class":
                    writer.write(np.where(rows.valid, classes, CELL_NULL))
                else:
                    channel = 0 if rows.values.shape[-1] == 1 else key[2]
                    writer.write(np.where(rows.valid, rows.values[..., channel], np.nan))
            for index, line in enumerate(classes):
                counts = np.bincount(line[rows.valid[index]], minlength=config.class_count)
                cells += counts
                areas += counts * cell_area(own, rows.row + index)
    for (kind, _, class_id), name in maps.items():
        if kind == "class":
            title = "Classes of cells"
            finish_class_raster(name, config.classes, grid=own, source=source.name, title=title)
        else:
            title = f"Probability of {config.classes[class_id - 1]}"
            finish_score_raster(name, grid=own, source=source.name, title=title)
    finished = [FinishedMap(kind="raster", temporary=name, name=wanted[key]) for key, name in maps.items()]
    classes_found = {
        name: {"cells": int(cells[class_id]), "area": float(areas[class_id])}
        for class_id, name in enumerate(config.classes, 1)
    }
    return finished, {
        "name": source.name,
        "error": None,
        "cells": int(cells.sum()),
        "classes": classes_found,
        "seconds": round(time.perf_counter() - start, 3),
    }


def use_output(grid: Grid) -> None:
    """Make a grid the window that new maps are written in; scenes are read by a process of their own."""
    from ann.grass.region import use_grid

    use_grid(grid)


def report(summary: dict) -> None:
    """The summary for people."""
    for scene in summary["scenes"]:
        if scene["error"] is None:
            found = ", ".join(f"{name} {one['cells']} cells" for name, one in scene["classes"].items())
            gs.message(f"{scene['name']}: {found} of {scene['cells']}")
    if summary["raster_maps"]:
        gs.message(f"Raster maps: {', '.join(summary['raster_maps'])}")
    failed = [scene for scene in summary["scenes"] if scene["error"] is not None]
    for scene in failed:
        gs.error(f"Scene {scene['name']} failed: {scene['error']}")
    for name, why in summary["maps_failed"].items():
        gs.error(f"Raster map <{name}> could not be written: {why}")
    gs.message(f"Done in {summary['seconds']:.1f} s")
