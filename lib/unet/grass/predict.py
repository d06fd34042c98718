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

from ann.collecting import import_keras
from ann.errors import AnnError, SceneError
from ann.export.exported import Exported
from ann.grass.bands import CELL_NULL
from ann.grass.clear_up import clear_up
from ann.grass.exchange import FinishedMap, describe_failures, interruptions_told, names_given
from ann.grass.export import export_model
from ann.grass.modules import failure, module_errors
from ann.grass.options import positive, use_threads
from ann.grass.outputs import OutputNames, check_distinct, check_outputs, distinct, short_name
from ann.grass.progress import ProgressDisplay
from ann.grass.raster_output import RasterWriter, finish_class_raster, finish_score_raster
from ann.grass.region import cell_area, use_grid
from ann.grass.scenes import split
from ann.grass.sources import (
    Source,
    Unusable,
    find_sources,
    open_source,
    resampled_sources,
    warn_of_differences,
)
from ann.grass.temporary import TemporaryMaps
from ann.inference.cells import CellSettings, Part, cell_worker, predict_cells
from ann.inference.tile_rows import Here, Workers
from ann.multiples import check_multiple
from ann.weights import ModelFile
from unet.classes import class_of_probabilities
from unet.config import UNetConfig
from unet.model_file import read_model


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


@module_errors()
def run(options: Mapping[str, str], flags: Mapping[str, bool]) -> bool:
    """Predict as the options of i.ann.unet.predict say; True if no scene failed.

    Raises:
        AnnError: bad input, before any work; or no scene could be predicted.
    """
    if options["export"]:
        model, threads = choose_model(options), int(options["nprocs"] or 0)
        export_model(options["export"], lambda: exported(model, options["tile_size"]), threads=threads)
        return True
    start = time.perf_counter()
    clear_up()
    request = check_request(options, flags)
    warn_of_differences(request.sources, request.config, request.resolution)
    threads = int(options["nprocs"] or 0)
    use_threads(threads)
    network, settings = load(request, options, keras_only=flags["k"], threads=threads)
    workers = Here(cell_worker(network, settings))
    written: list[str] = []
    with interruptions_told(lambda: written):
        with TemporaryMaps() as temporary:
            finished, scenes = predict_scenes(request, workers, settings, temporary)
            failed = [scene for scene in scenes if scene["error"] is not None]
            if len(failed) == len(scenes):
                raise SceneError(
                    "Nothing was predicted: "
                    + "; ".join(f"{one['name']}: {one['error']}" for one in failed[:5])
                )
            with names_given(finished, temporary) as (named, failures):
                written += [one.name for one in named]
        if not written:
            raise AnnError(f"No map could be written: {describe_failures(failures)}")
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


def predict_scenes(
    request: Request, workers: Workers, settings: CellSettings, temporary: TemporaryMaps
) -> tuple[list[FinishedMap], list[dict]]:
    """Maps of all scenes, and what the summary says of each, with a warning for each that failed."""
    finished: list[FinishedMap] = []
    scenes: list[dict] = [{"name": one.name, "error": one.error} for one in request.unusable]
    progress = ProgressDisplay(len(request.sources), "Predicting")
    for number, source in enumerate(request.sources):
        progress.begin(number, source)
        try:
            maps, summary = predict(request, number, source, workers, settings, temporary, progress.report)
        except (AnnError, OSError, CalledModuleError) as error:
            summary = {"name": source.name, "error": failure(error)}
            gs.warning(f"Scene {source.name} failed: {summary['error']}")
        else:
            finished += maps
        scenes.append(summary)
    progress.end()
    return finished, scenes


def load(
    request: Request, options: Mapping[str, str], *, keras_only: bool, threads: int
) -> tuple[Callable[[np.ndarray], np.ndarray], CellSettings]:
    """The network, and how scenes are cut for it; imports Keras."""
    import_keras()
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


def exported(model: ModelFile, side: str) -> Exported:
    """The model for other programs; imports Keras. side: of tiles, by default that of training."""
    from unet.export import export_network
    from unet.prediction import load_network

    config = replace(model.config, image_shape=(int(side),) * 2) if side else model.config
    return export_network(load_network(model), config)


def check_request(options: Mapping[str, str], flags: Mapping[str, bool]) -> Request:
    """Turn options into a request.

    Raises:
        AnnError: the first thing that is wrong with them.
    """
    model = choose_model(options)
    threshold = float(options["threshold"] or 0.5)
    if not 0 < threshold < 1:
        raise AnnError(f"threshold={options['threshold']} is not between 0 and 1")
    resolution = positive(options["resolution"], "resolution")
    sources, unusable = find_sources(options, flags, model.config)
    if resolution is not None:
        sources = resampled_sources(sources, unusable, resolution)
    output = options["output"].removesuffix(f"@{gs.gisenv()['MAPSET']}")
    names = name_maps(split(options["output_type"]), output, model.config.classes, sources)
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


def choose_model(options: Mapping[str, str]) -> ModelFile:
    """The model, which can take tiles of the size asked for.

    Raises:
        AnnError: it can't be read, or can't.
    """
    model = read_model(options["model"])
    if options["tile_size"]:
        check_multiple("tile_size", int(options["tile_size"]), model.config.size_multiple)
    return model


def name_maps(
    kinds: Sequence[str], output: str, classes: Sequence[str], sources: Sequence[Source]
) -> dict[tuple[str, int, int], str]:
    """Names of the raster maps: the output's, behind it the scene's where there are several, and for
    probabilities the class's.

    Raises:
        AnnError: two of them would have one name.
    """
    bases = [output]
    if len(sources) > 1:
        bases = distinct([f"{output}_{short_name(source.name)}" for source in sources])
    names: dict[tuple[str, int, int], str] = {}
    for number, base in enumerate(bases):
        if "class" in kinds:
            names["class", number, 0] = base
        if "probability" in kinds:
            for class_id, name in enumerate(classes, 1):
                legal = legalize_vector_name(name, fallback_prefix="class_")
                names["probability", number, class_id] = f"{base}_{legal}"
    of_maps = {
        f"{sources[number].name} ({classes[class_id - 1] if class_id else kind})": name
        for (kind, number, class_id), name in names.items()
    }
    check_distinct(of_maps, "Write them one after the other, with other names for output=")
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
        use_grid(own)
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
    if summary["maps_failed"]:
        gs.error(f"Maps that could not be written: {describe_failures(summary['maps_failed'])}")
    gs.message(f"Done in {summary['seconds']:.1f} s")
