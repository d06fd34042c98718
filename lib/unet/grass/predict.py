"""What the module i.ann.unet.predict does with its options: checks, then work, then a summary."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import grass.script as gs
from grass.exceptions import CalledModuleError
from grass.script.utils import legalize_vector_name

from ann.cluster.tiles import ClusterWorkers, Network, cluster_workers
from ann.errors import AnnError, SceneError
from ann.export.exported import Exported
from ann.grass.clear_up import clear_up
from ann.grass.database import connected_database
from ann.grass.exchange import FinishedMap, describe_failures, interruptions_told, names_given
from ann.grass.export import export_model
from ann.grass.modules import failure, module_errors
from ann.grass.options import positive, use_threads
from ann.grass.outputs import OutputNames, check_distinct, check_outputs, distinct, short_name, vector_name
from ann.grass.progress import ProgressDisplay
from ann.grass.scenes import split
from ann.grass.sources import (
    Source,
    Unusable,
    find_sources,
    grid_to_work_in,
    resampled_sources,
    warn_of_differences,
)
from ann.grass.temporary import TemporaryMaps
from ann.inference.cells import CellSettings, cell_worker, smallest_tile
from ann.inference.processes import device_processes, wants_processes
from ann.inference.tile_rows import Workers
from ann.inference.workers import workers_of
from ann.multiples import check_multiple
from ann.packages import import_keras
from ann.weights import ModelFile
from unet.classes import CellOutput
from unet.cluster import CellWork
from unet.config import UNetConfig
from unet.grass.areas import area_columns
from unet.grass.scene import Key, ScenePredictor, SceneResult, Wanted
from unet.model_file import read_model
from unet.tiling import cell_settings


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything about a run, checked. names: of the maps of each source; side: of tiles, None by default."""

    model: ModelFile
    sources: tuple[Source, ...]
    unusable: tuple[Unusable, ...]
    names: tuple[Mapping[Key, str], ...]
    wanted: Wanted
    side: int | None
    batch_size: int

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
    warn_of_differences(request.sources, request.config, request.wanted.resolution)
    gs.message(describe(request))
    written: list[str] = []
    with interruptions_told(lambda: written):
        with ExitStack() as stack:
            if options["cluster"]:
                made = workers_of_cluster(request, options["cluster"], flags["k"])
            else:
                made = workers_here(request, options, flags["k"])
            workers, settings = stack.enter_context(made)
            temporary = stack.enter_context(TemporaryMaps())
            predictor = ScenePredictor(
                workers=workers, settings=settings, wanted=request.wanted, temporary=temporary
            )
            results = predict_scenes(request, predictor)
            failed = [result for result in results if result.error is not None]
            if len(failed) == len(results):
                raise SceneError(
                    f"Nothing was predicted: {'; '.join(f'{one.name}: {one.error}' for one in failed[:5])}"
                )
            finished = [one for result in results for one in result.maps]
            with names_given(finished, temporary) as (named, failures):
                written += [one.name for one in named]
        if not named:
            raise AnnError(f"No map could be written: {describe_failures(failures)}")
        summary = summarise(request, results, named, failures, time.perf_counter() - start)
        if options["format"] == "json":
            print(json.dumps(summary, indent=2))
        report(summary)
    return not failed and not failures


def predict_scenes(request: Request, predictor: ScenePredictor) -> list[SceneResult]:
    """What became of each scene, with progress and a warning for each that failed."""
    results = [SceneResult(name=one.name, error=one.error) for one in request.unusable]
    progress = ProgressDisplay(len(request.sources), "Predicting")
    for number, (source, names) in enumerate(zip(request.sources, request.names, strict=True)):
        progress.begin(number, source)
        try:
            results.append(predictor.predict(source, names, progress.report))
        except (AnnError, OSError, CalledModuleError) as error:
            results.append(SceneResult(name=source.name, error=failure(error)))
            gs.warning(f"Scene {source.name} failed: {failure(error)}")
    progress.end()
    return results


@contextmanager
def workers_here(
    request: Request, options: Mapping[str, str], keras_only: bool
) -> Iterator[tuple[Workers, CellSettings]]:
    """The network on the devices of this machine, and how scenes are cut for it; imports Keras."""
    threads = int(options["nprocs"] or 0)
    use_threads(threads)
    import_keras()
    from unet.prediction import load_networks, network_reach

    output, device_count = request.wanted.output, int(options["gpu_count"] or 1)
    with ExitStack() as stack:
        if wants_processes(device_count):
            settings = settings_for(request, network_reach(request.config))
            work = CellWork(settings=settings, output=output, keras_only=True)
            made = device_processes(request.model.path, work, device_count)
            workers, runtime = stack.enter_context(made)
        else:
            networks, runtime, seen = load_networks(
                request.model, device_count=device_count, keras_only=keras_only, threads=threads
            )
            settings = settings_for(request, seen)
            functions = [cell_worker(output.seen_by(one), settings, output) for one in networks]
            workers = stack.enter_context(workers_of(functions))
        gs.message(f"The network runs on {runtime}")
        yield workers, settings


@contextmanager
def workers_of_cluster(
    request: Request, address: str, keras_only: bool
) -> Iterator[tuple[ClusterWorkers, CellSettings]]:
    """Workers that have the network loaded, on all nodes of a cluster."""
    import_keras()
    from unet.prediction import network_reach

    settings = settings_for(request, network_reach(request.config))
    work = CellWork(settings=settings, output=request.wanted.output, keras_only=keras_only)
    with cluster_workers(address, Network(model=request.model, work=work), gs.message) as workers:
        yield workers, settings


def settings_for(request: Request, reach: int) -> CellSettings:
    """How scenes are cut. reach: see `CellSettings`."""
    grids = [grid_to_work_in(source, request.wanted.resolution) for source in request.sources]
    enough = smallest_tile(reach, request.config.size_multiple)
    settings = cell_settings(
        request.config,
        reach,
        side=request.side,
        largest=max(max(grid.rows, grid.columns) for grid in grids),
        batch_size=request.batch_size,
    )
    if request.side and request.side < enough:
        times = (request.side / (request.side - 2 * settings.halo)) ** 2
        gs.warning(
            f"The network sees {reach} cells around each one, by which tiles overlap: with "
            f"tile_size={request.side} each cell is computed {times:.1f} times. "
            f"Use {enough} or more, or leave tile_size out"
        )
    return settings


def exported(model: ModelFile, side: str) -> Exported:
    """The model for other programs; imports Keras. side: of tiles, by default that of training."""
    import_keras()
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
    classes = model.config.classes
    kinds = split(options["output_type"]) or ["class"]
    for name in ("minimum_area", "regularize"):
        if options[name] and "area" not in kinds:
            raise AnnError(f"{name}= is for vector areas. Add area to output_type=, or leave it out")
    if "deviation" in kinds and not flags["t"]:
        raise AnnError(
            "Deviations are those of the eight flips and turns of a tile. Add the flag -t, or take deviation "
            "out of output_type="
        )
    wanted = Wanted(
        classes=classes,
        output=CellOutput(
            probabilities=bool({"probability", "deviation"} & set(kinds)),
            threshold=check_threshold(options["threshold"], classes),
            turns=flags["t"],
        ),
        resolution=positive(options["resolution"], "resolution"),
        minimum_area=positive(options["minimum_area"], "minimum_area"),
        regularize=positive(options["regularize"], "regularize"),
    )
    sources, unusable = find_sources(options, flags, model.config)
    if wanted.resolution is not None:
        sources = resampled_sources(sources, unusable, wanted.resolution)
    output = options["output"].removesuffix(f"@{gs.gisenv()['MAPSET']}")
    names = name_maps(kinds, output, classes, [source.name for source in sources])
    check_outputs(as_outputs(names))
    if "area" in kinds:
        wanted = replace(wanted, database=connected_database(area_columns()))
    return Request(
        model=model,
        sources=tuple(sources),
        unusable=tuple(unusable),
        names=tuple(names),
        wanted=wanted,
        side=int(options["tile_size"]) if options["tile_size"] else None,
        batch_size=int(options["batch_size"] or 1),
    )


def choose_model(options: Mapping[str, str]) -> ModelFile:
    """The model, which can take tiles of the size asked for.

    Raises:
        AnnError: it can't be read, or can't.
    """
    model = read_model(options["model"])
    if options["tile_size"]:
        check_multiple(
            "tile_size", int(options["tile_size"]), model.config.size_multiple, "the network's stride of "
        )
    return model


def check_threshold(text: str, classes: Sequence[str]) -> float:
    """The probability from which a cell is of the only class; 0.5 unless the user says otherwise."""
    if not text:
        return 0.5
    if len(classes) > 1:
        raise AnnError(
            f"threshold= is for models of one class, this one has {len(classes)} ({', '.join(classes)}), of "
            "which the most probable is chosen. Leave it out"
        )
    threshold = float(text)
    if not 0 < threshold < 1:
        raise AnnError(f"threshold={text} is not between 0 and 1")
    return threshold


def name_maps(
    kinds: Sequence[str], output: str, classes: Sequence[str], scenes: Sequence[str]
) -> list[dict[Key, str]]:
    """Names of the maps of each scene: the output's, behind it the scene's where there are several, and for
    probabilities the class's. The vector map of areas is called as the raster map of classes.

    Raises:
        AnnError: two of them would have one name.
    """
    bases = [output]
    if len(scenes) > 1:
        bases = distinct([f"{output}_{short_name(scene)}" for scene in scenes])
    names: list[dict[Key, str]] = []
    for base in bases:
        of_scene: dict[Key, str] = {}
        if "class" in kinds:
            of_scene["class", 0] = base
        for kind, ending in (("probability", ""), ("deviation", "_deviation")):
            if kind in kinds:
                for class_id, name in enumerate(classes, 1):
                    legal = legalize_vector_name(name, fallback_prefix="class_")
                    of_scene[kind, class_id] = f"{base}_{legal}{ending}"
        if "area" in kinds:
            of_scene["area", 0] = vector_name(base, "area_")
        names.append(of_scene)
    advice = "Write them one after the other, with other names for output="
    for of_kind in ({"class", "probability", "deviation"}, {"area"}):
        of_maps = {
            f"{scene} ({f'{kind} of {classes[class_id - 1]}' if class_id else kind})": name
            for scene, of_scene in zip(scenes, names, strict=True)
            for (kind, class_id), name in of_scene.items()
            if kind in of_kind
        }
        check_distinct(of_maps, advice)
    return names


def as_outputs(names: Sequence[Mapping[Key, str]]) -> OutputNames:
    """Names of maps as `check_outputs` wants them."""
    vectors, rasters = {}, {}
    for of_scene in names:
        for (kind, _), name in of_scene.items():
            part = vectors if kind == "area" else rasters
            part[kind, len(part)] = name
    return OutputNames(vectors=vectors, rasters=rasters)


def describe(request: Request) -> str:
    """What is about to be done, in a few words."""
    config = request.config
    return (
        f"Model {request.model.path}: {config.backbone}, {config.bands} bands, "
        f"classes {', '.join(config.classes)}. {len(request.sources)} scenes"
    )


def summarise(
    request: Request,
    results: Sequence[SceneResult],
    written: Sequence[FinishedMap],
    failures: Mapping[str, str],
    seconds: float,
) -> dict:
    """Cells and area of each class, maps, scenes and time, as it is printed as JSON."""
    good = [result for result in results if result.error is None]

    def by_class(results: Sequence[SceneResult]) -> dict[str, dict]:
        return {
            name: {
                "cells": sum(result.cells[class_id] for result in results),
                "area": sum(result.areas[class_id] for result in results),
            }
            for class_id, name in enumerate(request.config.classes, 1)
        }

    return {
        "model": str(request.model.path),
        "classes": by_class(good),
        "vector_maps": {one.name: one.features for one in written if one.kind == "vector"},
        "raster_maps": [one.name for one in written if one.kind == "raster"],
        "maps_failed": dict(failures),
        "scenes": [
            {"name": result.name, "error": result.error}
            if result.error is not None
            else {
                "name": result.name,
                "error": None,
                "cells": sum(result.cells),
                "classes": by_class([result]),
                "seconds": round(result.seconds, 3),
            }
            for result in results
        ],
        "seconds": round(seconds, 3),
    }


def report(summary: dict) -> None:
    """The summary for people."""
    for scene in summary["scenes"]:
        if scene["error"] is None:
            found = ", ".join(f"{name} {one['cells']} cells" for name, one in scene["classes"].items())
            gs.message(f"{scene['name']}: {found} of {scene['cells']}")
    if summary["vector_maps"]:
        gs.message(f"Vector maps: {', '.join(summary['vector_maps'])}")
    if summary["raster_maps"]:
        gs.message(f"Raster maps: {', '.join(summary['raster_maps'])}")
    failed = [scene for scene in summary["scenes"] if scene["error"] is not None]
    for scene in failed:
        gs.error(f"Scene {scene['name']} failed: {scene['error']}")
    if summary["maps_failed"]:
        gs.error(f"Maps that could not be written: {describe_failures(summary['maps_failed'])}")
    gs.message(f"Done in {summary['seconds']:.1f} s")
