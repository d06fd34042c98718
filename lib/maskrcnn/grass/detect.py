"""What the module i.ann.maskrcnn.detect does with its options: checks, then work, then a summary."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import grass.script as gs

from ann.cluster.tiles import ClusterWorkers, Network, cluster_workers
from ann.data.text import join_names, split_names
from ann.errors import AnnError, ModelFileError, SceneError
from ann.export.exported import Exported
from ann.grass.clear_up import clear_up
from ann.grass.database import connected_database
from ann.grass.exchange import describe_failures, interruptions_told
from ann.grass.export import export_model
from ann.grass.modules import module_errors
from ann.grass.options import check_outlines, positive, use_threads
from ann.grass.outputs import OutputNames, check_outputs, name_outputs
from ann.grass.progress import ProgressDisplay
from ann.grass.region import Grid
from ann.grass.scenes import split
from ann.grass.sources import (
    Source,
    find_sources,
    grid_to_work_in,
    resampled_sources,
    warn_of_differences,
)
from ann.grass.temporary import TemporaryMaps
from ann.grass.vector_output import table_columns
from ann.inference.processes import device_processes, wants_processes
from ann.inference.tile_rows import Workers
from ann.multiples import check_multiple
from ann.packages import import_keras
from ann.weights import ModelFile
from ann.weights.checkpoint import is_checkpoint
from maskrcnn.cluster import DetectionWork
from maskrcnn.config import SIZE_MULTIPLE, MaskRCNNConfig
from maskrcnn.detector import detection_workers, load_detectors, load_network
from maskrcnn.foreign import open_model, parse_settings
from maskrcnn.foreign.converting import is_imported, write_model
from maskrcnn.grass.run import DetectionRun, OutputSettings, SceneResult
from maskrcnn.instances.pipeline import DetectionSettings
from maskrcnn.model_file import read_model

CONFIDENCE = 0.7  # lowest score, where nothing else is asked for
TILES_ON_GPU = 4  # that go through the network at once, the same


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything about a run, checked. unusable: scenes that can't be opened, found out before the work."""

    model: ModelFile
    config: MaskRCNNConfig
    sources: tuple[Source, ...]
    unusable: tuple[SceneResult, ...]
    settings: DetectionSettings
    outputs: OutputSettings


@module_errors()
def run(options: Mapping[str, str], flags: Mapping[str, bool]) -> bool:
    """Detect as the options of i.ann.maskrcnn.detect say; True if no scene failed.

    Raises:
        AnnError: bad input, before any work; or nothing could be detected in any scene.
    """
    if options["export"]:
        model, config = choose_model(options)
        config = replace(config, image_shape=config.tile_shape or config.image_shape)
        for note in model.notes:
            gs.message(note)
        lowest = float(options["confidence"] or CONFIDENCE)
        export_model(
            options["export"],
            lambda: exported(model, config, lowest),
            threads=int(options["nprocs"] or 0),
        )
        return True
    start = time.perf_counter()
    clear_up()
    request = check_request(options, flags)
    warn_of_differences(request.sources, request.config, request.outputs.resolution)
    gs.message(describe(request))
    for note in request.model.notes:
        gs.message(note)
    work = None
    with interruptions_told(lambda: work.written if work else ()):
        with ExitStack() as stack:
            if options["cluster"]:
                settings = request.settings
                workers = stack.enter_context(workers_of_cluster(request, options, flags["k"]))
            else:
                settings = settings_here(request, options)
                workers = stack.enter_context(workers_here(request, settings, options, flags["k"]))
            temporary = stack.enter_context(TemporaryMaps())
            work = DetectionRun(workers, request.sources, settings, request.outputs, temporary)
            results = [*request.unusable, *detect_scenes(work, request.sources)]
            failed = [result for result in results if result.error is not None]
            if len(failed) == len(results):
                raise SceneError(
                    f"Nothing was detected: {'; '.join(f'{one.name}: {one.error}' for one in failed[:5])}"
                )
            work.finish()
        if not work.written:
            raise AnnError(f"No map could be written: {describe_failures(work.failures)}")
        summary = summarise(request, results, work, time.perf_counter() - start)
        if options["format"] == "json":
            print(json.dumps(summary, indent=2))
        report(summary)
    return not failed and not work.failures


def exported(model: ModelFile, config: MaskRCNNConfig, confidence: float) -> Exported:
    """The model for other programs; imports Keras."""
    import_keras()
    from maskrcnn.export import export_network

    return export_network(load_network(model, config), confidence)


def detect_scenes(work: DetectionRun, sources: Sequence[Source]) -> list[SceneResult]:
    """What became of each scene, with progress and a warning for each that failed."""
    progress = ProgressDisplay(len(sources))
    for number, source in enumerate(sources):
        progress.begin(number, source)
        work.detect(number, source, progress.report)
    progress.end()
    return work.results


def settings_here(request: Request, options: Mapping[str, str]) -> DetectionSettings:
    """The settings on this machine, where a GPU takes several tiles at a time; imports Keras."""
    use_threads(int(options["nprocs"] or 0))
    from ann.devices.available import gpu_in_use

    if options["batch_size"] or not gpu_in_use():
        return request.settings
    return replace(request.settings, batch_size=TILES_ON_GPU)


@contextmanager
def workers_here(
    request: Request, settings: DetectionSettings, options: Mapping[str, str], keras_only: bool
) -> Iterator[Workers]:
    """The network on the devices of this machine; imports Keras."""
    from ann.devices.available import missing_gpu

    device_count, precision = int(options["gpu_count"] or 1), options["precision"]
    with ExitStack() as stack:
        if wants_processes(device_count):
            model = stack.enter_context(described(request.model))
            work = DetectionWork(
                config=request.config, settings=settings, keras_only=True, precision=precision
            )
            workers, runtime = stack.enter_context(device_processes(model.path, work, device_count))
        else:
            detectors, runtime = load_detectors(
                request.model,
                request.config,
                device_count=device_count,
                keras_only=keras_only,
                threads=int(options["nprocs"] or 0),
                precision=precision,
            )
            workers = stack.enter_context(detection_workers(detectors, settings))
        gs.message(f"The network runs on {runtime}")
        if missing_gpu():
            gs.message(missing_gpu())
        yield workers


@contextmanager
def workers_of_cluster(
    request: Request, options: Mapping[str, str], keras_only: bool
) -> Iterator[ClusterWorkers]:
    """Workers that have the network loaded, on all nodes of a cluster."""
    work = DetectionWork(
        config=request.config,
        settings=request.settings,
        keras_only=keras_only,
        precision=options["precision"],
    )
    with (
        described(request.model) as model,
        cluster_workers(options["cluster"], Network(model=model, work=work), gs.message) as workers,
    ):
        yield workers


@contextmanager
def described(model: ModelFile) -> Iterator[ModelFile]:
    """A model whose file describes itself: other processes load it from there."""
    with tempfile.TemporaryDirectory() as folder:
        if is_imported(model):
            write_model(model, os.path.join(folder, "model.h5"))
            model = read_model(os.path.join(folder, "model.h5"))
        yield model


def check_request(options: Mapping[str, str], flags: Mapping[str, bool]) -> Request:
    """Turn options into a request.

    Raises:
        AnnError: the first thing that is wrong with them.
    """
    model, config = choose_model(options)
    resolution = positive(options["resolution"], "resolution")
    sources, unusable = find_sources(options, flags, config)
    if resolution is not None:
        sources = resampled_sources(sources, unusable, resolution)
    tiles = choose_tiles(config, [grid_to_work_in(source, resolution) for source in sources])
    if flags["t"] and tiles[0] != tiles[1]:
        raise AnnError(
            f"The flag -t turns tiles, so they must be square, and those of the model are {tiles[0]} x "
            f"{tiles[1]} pixels. Give a size: tile_size={max(tiles)}"
        )
    overlap = int(options["overlap"] or min(tiles) // 8)
    if overlap >= min(tiles):
        raise AnnError(f"Expected an overlap below the tile size of {min(tiles)} pixels, received {overlap}")
    generalize, regularize = check_outlines(options)
    kinds = split(options["output_type"]) or ["area"]
    names = name_outputs(kinds, options["output"], config.classes, [source.name for source in sources])
    label_next = check_label_next(options["label_next"], names)
    check_outputs(names, [label_next] if label_next else [])
    return Request(
        model=model,
        config=config,
        sources=tuple(sources),
        unusable=tuple(SceneResult(name=one.name, error=one.error) for one in unusable),
        settings=DetectionSettings.for_model(
            config,
            tile_shape=tiles,
            overlap=overlap,
            batch_size=int(options["batch_size"] or 1),
            confidence=float(options["confidence"] or CONFIDENCE),
            turns=flags["t"],
            find_doubtful=label_next is not None,
        ),
        outputs=OutputSettings(
            names=names,
            classes=config.classes,
            resolution=resolution,
            generalize=generalize,
            regularize=regularize,
            label_next=label_next,
            database=connected_database(table_columns()) if names.vectors or label_next else None,
        ),
    )


def choose_model(options: Mapping[str, str]) -> tuple[ModelFile, MaskRCNNConfig]:
    """The model, and its description with the classes and the tile size that are asked for.

    Raises:
        AnnError: the first thing that is wrong with them.
    """
    classes = split_names(options["classes"] or "")
    settings = parse_settings(split(options["model_settings"]))
    if classes and "classes" not in settings and is_checkpoint(options["model"]):
        settings["classes"] = classes
    model = open_model(options["model"], settings)
    config = name_classes(model, classes)
    if options["tile_size"]:
        side = int(options["tile_size"])
        check_multiple("tile_size", side, SIZE_MULTIPLE)
        config = replace(config, image_shape=(side, side), tile_shape=None)
    return model, config


def choose_tiles(config: MaskRCNNConfig, grids: Sequence[Grid]) -> tuple[int, int]:
    """(height, width) of the tiles for scenes of these grids, pixels."""
    return config.tile_for(max(grid.rows for grid in grids), max(grid.columns for grid in grids))


def name_classes(model: ModelFile, classes: Sequence[str]) -> MaskRCNNConfig:
    """The model's description with the classes' names as given, by order.

    Raises:
        ModelFileError: none given for a file that does not know them, or not as many as the model has.
        AnnError: a name twice, or an empty one.
    """
    config = model.config
    if not classes:
        if model.has_description or is_imported(model):
            return config
        raise ModelFileError(
            f"Model file {model.path} does not know the names of its {len(config.classes)} classes. "
            "Give them in the order of training: classes=first,second,..."
        )
    if len(classes) != len(config.classes):
        known = f" ({', '.join(config.classes)})" if model.has_description else ""
        raise ModelFileError(
            f"Model file {model.path} has {len(config.classes)} classes{known}, but classes= names "
            f"{len(classes)} ({', '.join(classes)}). Name all of them in the order of training"
        )
    if "" in classes or len(set(classes)) != len(classes):
        raise AnnError(f"Expected distinct class names, none of them empty, received: {join_names(classes)}")
    return replace(config, classes=tuple(classes))


def check_label_next(text: str, names: OutputNames) -> str | None:
    """The name of the map of windows, if one is asked for; AnnError if another new map has it."""
    name = text.removesuffix(f"@{gs.gisenv()['MAPSET']}")
    if name.lower() in {one.lower() for one in names.vectors.values()}:
        raise AnnError(f"label_next={name} is the name of another new map. Give it another one")
    return name or None


def describe(request: Request) -> str:
    """What is about to be done, in a few words."""
    config, settings = request.config, request.settings
    height, width = settings.tile_shape
    return (
        f"Model {request.model.path}: {config.backbone}, {config.bands} bands, "
        f"classes {', '.join(config.classes)}. "
        f"{len(request.sources)} scenes, tiles of {height} x {width} pixels, {settings.overlap} shared"
    )


def summarise(request: Request, results: Sequence[SceneResult], work: DetectionRun, seconds: float) -> dict:
    """Counts per class, maps, scenes, time and throughput, as it is printed as JSON."""
    good = [result for result in results if result.error is None]
    detecting = sum(result.seconds for result in good)
    cells = sum(result.cells for result in good)
    return {
        "model": str(request.model.path),
        "classes": {
            name: sum(result.counts.get(class_id, 0) for result in good)
            for class_id, name in enumerate(request.config.classes, 1)
        },
        "vector_maps": {name: count for name, count in work.written.items() if count is not None},
        "raster_maps": [name for name, count in work.written.items() if count is None],
        "maps_failed": work.failures,
        "scenes": [
            {
                "name": result.name,
                "instances": sum(result.counts.values()),
                "cells": result.cells,
                "tiles": result.tiles,
                "tiles_skipped": result.tiles_skipped,
                "seconds": round(result.seconds, 3),
                "seconds_network": round(result.seconds_network, 3),
                "error": result.error,
            }
            for result in results
        ],
        "seconds": round(seconds, 3),
        "cells_per_second": round(cells / detecting) if detecting else 0,
    }


def report(summary: dict) -> None:
    """The summary for people."""
    for name, count in summary["classes"].items():
        gs.message(
            f"{name}: {count} detected" if count else f"{name}: nothing detected, its vector map is empty"
        )
    if summary["vector_maps"]:
        gs.message(f"Vector maps: {', '.join(summary['vector_maps'])}")
    if summary["raster_maps"]:
        gs.message(f"Raster maps: {', '.join(summary['raster_maps'])}")
    if summary["maps_failed"]:
        gs.error(f"Maps that could not be written: {describe_failures(summary['maps_failed'])}")
    gs.message(f"Done in {summary['seconds']:.1f} s, {summary['cells_per_second']} cells per second")
    if skipped := sum(scene["tiles_skipped"] for scene in summary["scenes"]):
        gs.message(
            f"{skipped} of {sum(scene['tiles'] for scene in summary['scenes'])} tiles are without data"
        )
    failed = [scene for scene in summary["scenes"] if scene["error"] is not None]
    if failed:
        gs.error(
            f"{len(failed)} of {len(summary['scenes'])} scenes failed: "
            + "; ".join(f"{scene['name']}: {scene['error']}" for scene in failed)
        )
