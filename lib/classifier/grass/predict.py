"""What the module i.ann.classifier.predict does with its options: checks, then work, then a summary."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grass.script as gs

from ann.cluster.tiles import Network, cluster_workers
from ann.errors import AnnError, SceneError
from ann.grass.areas import find_vector
from ann.grass.clear_up import clear_up
from ann.grass.columns import check_columns, table_of
from ann.grass.database import connected_database
from ann.grass.exchange import describe_failures, interruptions_told, names_given
from ann.grass.features import read_features
from ann.grass.files import find_images
from ann.grass.modules import module_errors
from ann.grass.options import positive, use_threads
from ann.grass.outputs import OutputNames, check_outputs
from ann.grass.progress import Percent
from ann.grass.region import metres_per_map_unit
from ann.grass.sources import Source, find_sources, values_warning
from ann.grass.temporary import TemporaryMaps
from ann.inference.processes import device_processes, wants_processes
from ann.inference.tile_rows import Workers
from ann.inference.values import unlike_training
from ann.inference.workers import workers_of
from ann.packages import import_keras
from ann.weights import ModelFile
from classifier.cluster import ClassWork
from classifier.config import ClassifierConfig
from classifier.grass.images import ImageFiles
from classifier.grass.told_columns import told_columns
from classifier.grass.vectors import MapFeatures, Target
from classifier.grass.windows import MapWindows
from classifier.grass.work import Work
from classifier.inference import Told, class_worker, tell_classes
from classifier.model_file import read_model

NAMED = 100  # images or features that the summary names, of those that failed or show no data


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything about a run, checked."""

    model: ModelFile
    work: Work
    batch_size: int


@dataclass(kw_only=True)
class Tally:
    """What was told so far. failed, empty: the first names of each, and how many there are."""

    counts: Counter[str]
    failed: dict[str, str]
    failures: int
    empty: list[str]
    without_data: int


@module_errors()
def run(options: Mapping[str, str], flags: Mapping[str, bool]) -> bool:
    """Tell classes as the options of i.ann.classifier.predict say; True if nothing failed.

    Raises:
        AnnError: bad input, before any work; or no image could be read.
    """
    start = time.perf_counter()
    clear_up()
    request = check_request(options, flags)
    written: list[str] = []
    with interruptions_told(lambda: written):
        with TemporaryMaps() as temporary:
            with workers_of_run(request, options, keras_only=flags["k"]) as workers:
                tally = tell(request, workers, temporary)
            if not tally.counts and len(request.work):
                reasons = "; ".join(f"{name}: {why}" for name, why in list(tally.failed.items())[:5])
                raise SceneError(f"Nothing was classified: {reasons or 'nothing shows any data'}")
            with names_given(request.work.finish(temporary), temporary) as (named, failures):
                written += [one.name for one in named]
        classes = request.model.config.classes
        summary = {
            "model": str(request.model.path),
            "classes": {name: tally.counts[name] for name in classes},
            "failed": tally.failed,
            "failures": tally.failures,
            "without_data": tally.without_data,
            "without_data_names": tally.empty,
            "maps": written,
            "maps_failed": failures,
            "table": options["table"] or None,
            "seconds": round(time.perf_counter() - start, 3),
        }
        if options["format"] == "json":
            print(json.dumps(summary, indent=2))
        report(summary)
    return not tally.failures and not failures


def tell(request: Request, workers: Workers, temporary: TemporaryMaps) -> Tally:
    """Do the work, and count what is told."""
    tally = Tally(counts=Counter(), failed={}, failures=0, empty=[], without_data=0)
    work, config = request.work, request.model.config
    with work.opened(temporary):
        told = tell_classes(work, config, workers, request.batch_size)
        progress = Percent()
        for number, one in enumerate(work.take(told), 1):
            count(tally, work, config, one)
            progress(number, len(work))
    return tally


def count(tally: Tally, work: Work, config: ClassifierConfig, told: Told) -> None:
    """Add what was told of an image."""
    if told.probabilities is not None:
        tally.counts[config.classes[int(told.probabilities.argmax())]] += 1
    elif told.error:
        tally.failures += 1
        name = work.name(told.index)
        if len(tally.failed) < NAMED:
            tally.failed[name] = told.error
            gs.warning(f"{name}: {told.error}")
    else:
        tally.without_data += 1
        if len(tally.empty) < NAMED:
            tally.empty.append(work.name(told.index))


@contextmanager
def workers_of_run(request: Request, options: Mapping[str, str], *, keras_only: bool) -> Iterator[Workers]:
    """The network on the nodes of a cluster, or on the devices of this machine; imports Keras."""
    if options["cluster"]:
        work = ClassWork(batch_size=request.batch_size, keras_only=keras_only)
        network = Network(model=request.model, work=work)
        with cluster_workers(options["cluster"], network, gs.message) as workers:
            yield workers.for_scene(None)
        return
    threads, device_count = int(options["nprocs"] or 0), int(options["gpu_count"] or 1)
    use_threads(threads)
    with ExitStack() as stack:
        if wants_processes(device_count):
            work = ClassWork(batch_size=request.batch_size, keras_only=True)
            workers, runtime = stack.enter_context(device_processes(request.model.path, work, device_count))
        else:
            import_keras()
            from classifier.prediction import load_networks

            networks, runtime = load_networks(
                request.model, device_count=device_count, keras_only=keras_only, threads=threads
            )
            functions = [class_worker(network, request.batch_size) for network in networks]
            workers = stack.enter_context(workers_of(functions))
        gs.message(f"The network runs on {runtime}")
        yield workers


def check_request(options: Mapping[str, str], flags: Mapping[str, bool]) -> Request:
    """Turn options into a request.

    Raises:
        AnnError: the first thing that is wrong with them.
    """
    model = read_model(options["model"])
    output = options["output"].removesuffix(f"@{gs.gisenv()['MAPSET']}") or None
    if options["images_directory"]:
        work = photos(options, model.config, output)
    else:
        sources, unusable = find_sources(options, flags, model.config)
        if len(sources) + len(unusable) > 1:
            raise AnnError("vector= and window= take the bands of one scene. Run the module for each")
        if warning := values_warning(sources, model.config):  # chips are resized, whatever their pixels
            gs.warning(warning)
        if options["vector"]:
            work = features(options, flags, sources[0], model.config, output)
        else:
            work = windows(options, sources[0], model.config, output)
    return Request(model=model, work=work, batch_size=int(options["batch_size"]))


def photos(options: Mapping[str, str], config: ClassifierConfig, output: str | None) -> ImageFiles:
    """The images of a directory."""
    if not output and not options["table"]:
        raise AnnError(
            "Say where the classes of the images go: table= for a file, output= for a map of points"
        )
    paths = find_images(options["images_directory"], options["images_format"])
    table = check_table(options["table"]) if options["table"] else None
    database = None
    if output:
        check_outputs(OutputNames(vectors={("point", 0): output}, rasters={}))
        database = connected_database("cat INTEGER")
    images = ImageFiles(paths, config, table=table, output=output, database=database)
    if strange := unlike_training(images.sample_values(), config.band_mean, config.band_scale):
        gs.warning(f"Values of the images are far from those of training: {strange}. Classes will be wrong")
    return images


def features(
    options: Mapping[str, str],
    flags: Mapping[str, bool],
    source: Source,
    config: ClassifierConfig,
    output: str | None,
) -> MapFeatures:
    """The features of a vector map."""
    full_name = find_vector(options["vector"])
    mapset = full_name.partition("@")[2]
    if flags["u"] and mapset != gs.gisenv()["MAPSET"]:
        raise AnnError(
            f"The flag -u can't change <{full_name}>, which is in another mapset. Give output= the name of a "
            "new map instead"
        )
    if not flags["u"] and not output:
        raise AnnError("Give output= the name of a new map, or use the flag -u to update the given one")
    if output:
        check_outputs(OutputNames(vectors={("area", 0): output}, rasters={}))
    database = connected_database("cat INTEGER")
    table = table_of(full_name)
    if flags["u"] and table is None:
        raise AnnError(f"Vector map <{full_name}> has no attribute table. Add one: v.db.addtable {full_name}")
    check_columns(
        full_name,
        told_columns(config.classes, options["prefix"]),
        table.link.driver if flags["u"] else database.driver,
    )
    found = read_features(full_name)
    if found.without:
        gs.warning(f"{found.without} {found.kind}s of <{full_name}> have no category and get no class")
    target = Target(output=None if flags["u"] else output, prefix=options["prefix"], database=database)
    return MapFeatures(source, found, config, chip_side(options["chip_size"], config), target)


def windows(
    options: Mapping[str, str], source: Source, config: ClassifierConfig, output: str | None
) -> MapWindows:
    """Windows over the maps."""
    side = positive(options["window"], "window")
    if not output:
        raise AnnError("Give output= the name of the raster map of classes")
    step = positive(options["step"], "step") or side
    names = {("class", 0): output, ("score", 0): f"{output}_probability"}
    check_outputs(OutputNames(vectors={}, rasters=names))
    return MapWindows(source, config, output, side, step)


def chip_side(text: str, config: ClassifierConfig) -> float | None:
    """The side of chips in map units, as asked for or as the model was trained; None: that of the
    features."""
    if text:
        return positive(text, "chip_size")
    return None if config.chip_size is None else config.chip_size / (metres_per_map_unit() or 1.0)


def check_table(name: str) -> Path:
    """The file that a table goes to.

    Raises:
        AnnError: it exists and may not be overwritten, or can't be written there.
    """
    path = Path(name)
    if path.suffix.lower() not in (".csv", ".json"):
        raise AnnError(f"table={name} is called neither .csv nor .json. Give it one of these endings")
    if path.exists() and not gs.overwrite():
        raise AnnError(f"{path} exists. Use --overwrite, or another name")
    if not path.absolute().parent.is_dir():
        raise AnnError(f"The directory of {path} does not exist. Make it first")
    return path


def report(summary: dict) -> None:
    """The summary for people."""
    found = ", ".join(f"{name} {number}" for name, number in summary["classes"].items())
    gs.message(f"{found} of {sum(summary['classes'].values())}")
    if summary["without_data"]:
        names = ", ".join(summary["without_data_names"][:5])
        gs.message(f"{summary['without_data']} lie outside of the maps or show no data: {names}, no class")
    if summary["maps"]:
        gs.message(f"Maps: {', '.join(summary['maps'])}")
    if summary["table"]:
        gs.message(f"Table: {summary['table']}")
    if summary["failures"]:
        gs.error(f"{summary['failures']} failed, see the warnings above")
    if summary["maps_failed"]:
        gs.error(f"Maps that could not be written: {describe_failures(summary['maps_failed'])}")
    gs.message(f"Done in {summary['seconds']:.1f} s")
