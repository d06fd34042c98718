"""One measurement of an experiment, in a process of its own: python scaling_run.py RUN, a `Run` as JSON.

Prints READY when it has warmed up for detection and then waits for a line, so that several processes begin
together; at the end RESULT and what was measured, as JSON. Nothing is measured here that the modules do not
do: training is `training.worker.train` (or `train_on_cluster`), detection the pipeline of the detect module.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from measuring import Clock, Reporter, describe_network, describe_unet, draw_scenes, object_count

DETECTIONS = 30  # in each tile: as many objects as a scene may show there
HELD_OUT = 0.25  # of the images, which the trained network is scored on
NO_END = 10**6  # steps of an epoch that the time will end


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is measured.

    work: prepare, train or detect; unit, units: what there are how many of (devices, threads, processes,
    nodes of a cluster, or gpus of this machine as workers of a cluster).
    network: maskrcnn or unet; loss: of the U-Net. dataset, classes: the images, drawn ones if it is empty;
    scenes: how many to draw.
    images: per device and step; batch: where above 0, images per step of all devices instead.
    steps: measured, after the first; epoch_images: where above 0, whole epochs of so many images are measured
    instead; minutes: where above 0, another training ends after them. scored: the trained network is scored
    on images that were held out.
    folder: what `prepare` has written; cluster: the address of the nodes, started here if it is empty.
    """

    work: str
    backend: str
    backbone: str
    size: int
    folder: str = ""
    network: str = "maskrcnn"
    loss: str = "both"
    dataset: str = ""
    classes: Sequence[str] = ()
    scenes: int = 4
    unit: str = "devices"
    units: int = 1
    images: int = 1
    batch: int = 0
    steps: int = 10
    epoch_images: int = 0
    minutes: float = 0.0
    scored: bool = False
    cluster: str = ""

    @property
    def device_count(self) -> int:
        """Devices of this machine that are used together."""
        return self.units if self.unit in ("devices", "gpus") else 1

    def as_json(self) -> str:
        return json.dumps(asdict(self))


class RunReporter(Reporter):
    """Also keeps what the devices are."""

    devices = ""

    def message(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        if text.startswith("Devices: "):
            self.devices = text.removeprefix("Devices: ").split(" (")[0]


def task_of(run: Run):
    """The network as the library deals with it."""
    if run.network == "unet":
        from unet.task import TASK
    else:
        from maskrcnn.task import TASK
    return TASK


def image_size(run: Run):
    """Samples of `run.size` pixels a side."""
    from ann.training.image_size import ImageSize

    if run.network == "unet":
        from unet.config import stride_of

        return ImageSize(0, run.size, False, multiple=stride_of(run.backbone))
    return ImageSize(run.size, run.size, False)


def open_images(run: Run):
    """The labelled images (pairs of rasters, or labels of objects), and those of them that are held out."""
    from ann.data.outlines.label_values import LabelValues
    from ann.data.readers.formats import open_dataset
    from ann.data.readers.pairs import find_pairs, read_pairs
    from ann.data.split import hold_out
    from drawing import CLASSES

    folder, classes = run.dataset or Path(run.folder, "scenes"), run.classes or CLASSES
    pairs = find_pairs(folder)
    dataset = (
        read_pairs(folder, pairs, classes, LabelValues(ids={})) if pairs else open_dataset(folder, classes)
    )
    return hold_out(dataset, HELD_OUT) if run.scored else (dataset, ())


def prepare(run: Run) -> dict:
    """Write scenes, and a model of random weights, from which all others start."""
    from ann.packages import import_keras

    import_keras()
    from ann.training.seeds import seed_everything
    from ann.weights import save_model

    folder, task = Path(run.folder), task_of(run)
    if not run.dataset:
        draw_scenes(folder / "scenes", run.size, run.scenes)
    dataset, _ = open_images(run)
    if run.network == "unet":
        config = describe_unet(dataset, image_size(run), architecture=run.backbone, loss=run.loss)
    else:
        config = describe_network(dataset, image_size(run), backbone=run.backbone)
    seed_everything(1)
    save_model(folder / "model.h5", task.layout(task.build_network(config)), config)
    return {}


def train(run: Run) -> dict:
    """Train on the devices of this machine, or on nodes."""
    from ann.training import worker

    if run.unit in ("nodes", "gpus"):
        return train_on_nodes(run)
    job, reporter = make_job(run, run.device_count), RunReporter(Clock())
    worker.train(job, reporter)
    return summarise(job, reporter) | (score(run, job) if run.scored else {})


def train_on_nodes(run: Run) -> dict:
    """Train on `run.units` nodes with all their GPUs; without GPUs each counts as one device."""
    from ann.cluster.connection import connect
    from ann.cluster.training import train_on_cluster

    with contextlib.ExitStack() as stack:
        address = run.cluster or stack.enter_context(ray_nodes(run))
        cluster = stack.enter_context(connect(address, ["pyarrow"]))
        gpus = max(node.gpus for node in cluster.nodes)
        count = run.units if run.unit == "gpus" else run.units * max(1, gpus)
        job, reporter = make_job(run, count), RunReporter(Clock())
        train_on_cluster(job, reporter, cluster)
        # what workers tell arrives up to half a second late: of no use for single steps
        found = summarise(job, reporter) | {"first_s": None, "step_s": None}
        if run.minutes:
            job = timed(job, run)
            train_on_cluster(job, RunReporter(), cluster)
    return found | (score(run, job) if run.scored else {})


@contextlib.contextmanager
def ray_nodes(run: Run) -> Iterator[str]:
    """Ray nodes on this machine, with one CPU each, or one with all GPUs of the run; gives their address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    gpus = run.units if run.unit == "gpus" else 0
    node = {"num_cpus": max(1, gpus), "num_gpus": gpus}
    node |= {"object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(0 if gpus else run.units - 1):
            cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def make_job(run: Run, device_count: int):
    """Training from the model that was prepared: `run.steps` steps after the first, or two epochs."""
    from ann.errors import AnnError
    from ann.training.job import Job
    from ann.training.settings import TrainingSettings
    from ann.weights import read_model

    if run.batch % device_count:
        raise AnnError(f"{run.batch} images per step can't be shared equally among {device_count} devices")
    task = task_of(run)
    images = run.batch // device_count or run.images
    epoch_steps = math.ceil(run.epoch_images / (images * device_count))
    settings = TrainingSettings(
        name="benchmark",
        prefix=task.prefix,
        logs=Path(tempfile.mkdtemp(dir=run.folder)),
        epochs=2 if run.epoch_images else 1,  # the first one compiles
        steps_per_epoch=epoch_steps or run.steps + 1,
        validation_steps=0,
        images_per_device=images,
        device_count=device_count,
        train_batch_norm=run.network == "unet",
    )
    model = read_model(Path(run.folder, "model.h5"), task.kind)
    dataset, _ = open_images(run)
    return Job(
        task=task,
        dataset=dataset,
        config=model.config,
        size=image_size(run),
        settings=settings,
        initial=model,
    )


def timed(job, run: Run):
    """The same training with a limit of time, as one epoch."""
    logs = Path(tempfile.mkdtemp(dir=run.folder))
    settings = replace(job.settings, logs=logs, epochs=1, steps_per_epoch=NO_END, minutes=run.minutes)
    return replace(job, settings=settings)


def summarise(job, reporter: RunReporter) -> dict:
    """Seconds of a training, and the part of it in which the load is wanted: after what compiles."""
    from ann.training import log

    settings, clock = job.settings, reporter.clock
    ended = clock.times[-1][0]
    elapsed, _ = clock.steps()
    found = {
        "images_per_device": settings.images_per_device,
        "first_s": elapsed[0],
        "minutes": (ended - clock.times[0][0]) / 60,
        "devices": reporter.devices,
        "ended": ended,
    }
    if settings.epochs == 1:
        # the mean: a device may be waited for in some steps only, but is in the first and the last one
        step = (ended - clock.times[1][0]) / (len(elapsed) - 1)
        images = settings.batch_size * (len(elapsed) - 1)
        seconds = {"begun": clock.times[1][0], "step_s": step}
        return found | seconds | {"images": images, "seconds_per_image": step / settings.batch_size}
    images = settings.batch_size * settings.steps_per_epoch
    seconds = float(log.read_rows(settings.table_path)[-1]["seconds"])
    return found | {
        "begun": ended - seconds,
        "epoch_s": seconds,
        "images": images,
        "seconds_per_image": seconds / images,
    }


def score(run: Run, job) -> dict:
    """Scores of the trained network on whole images that were held out, by name, and its steps."""
    from ann.training import log
    from ann.weights import load_weights, read_model

    row = log.read_rows(job.settings.table_path)[-1]
    model = read_model(job.settings.model_path(int(row["epoch"])), job.task.kind)
    network = job.task.build_network(job.config)
    load_weights(job.task.layout(network), model)
    _, held_out = open_images(run)
    scorer = job.task.make_scorer(replace(job, held_out=held_out), network)
    scores = scorer.test(str(model.path)).content["all"]
    return {"steps": int(row["steps"]), **{name: scores[name] for name in job.task.main_scores}}


def detect(run: Run) -> dict:
    """Detect in a scene of one column of tiles that look alike: `run.steps` batches for each device."""
    from detection import surviving

    from ann.data.samples.scaling import scale_pixels
    from ann.devices.available import list_devices
    from ann.inference.processes import device_processes, wants_processes
    from ann.inference.scene import ArrayScene
    from drawing import draw_scene
    from maskrcnn.cluster import DetectionWork
    from maskrcnn.detector import detection_workers, load_detectors
    from maskrcnn.instances.pipeline import DetectionSettings, find_by_workers
    from maskrcnn.model_file import read_model

    model = read_model(Path(run.folder, "model.h5"))
    config, count, size = model.config, run.device_count, run.size
    # OpenVINO would run on one device only, and beside one backend as beside another
    apart = wants_processes(count)
    detectors, _ = load_detectors(model, config, device_count=1 if apart else count, keras_only=True)
    tiles = run.steps * run.images * count
    height = tiles * (size - 1) + 1  # tiles share a row
    ground = draw_scene(height=size, width=size, objects=object_count(size), seed=1).image
    scene = ArrayScene(np.tile(ground, (math.ceil(height / size), 1, 1))[:height])
    batch = scale_pixels(np.stack([ground] * run.images), config.band_mean, config.band_scale)
    started = time.monotonic()
    confidence = surviving(detectors[0], batch, DETECTIONS)
    first = time.monotonic() - started
    for detector in detectors[1:]:
        detector(batch)
    settings = DetectionSettings.for_model(config, overlap=1, batch_size=run.images, confidence=confidence)
    if apart:
        work = DetectionWork(config=config, settings=settings, keras_only=True)
        at_work = device_processes(model.path, work, count)
    else:
        at_work = detection_workers(detectors, settings)
    with at_work as found:
        workers = found[0] if apart else found
        print("READY", flush=True)
        sys.stdin.readline()
        begun = time.monotonic()
        for _ in find_by_workers(scene, workers, settings):
            pass
        ended = time.monotonic()
    found = {"first_s": first, "devices": ", ".join(list_devices()[:count]), "images": tiles}
    return found | {"begun": begun, "ended": ended, "seconds_per_image": (ended - begun) / tiles}


def main(run: Run) -> None:
    from ann.errors import AnnError

    try:
        found = {"prepare": prepare, "train": train, "detect": detect}[run.work](run)
    except Exception as error:
        from ann.training import memory

        note = str(error).partition("\n")[0]
        if memory.is_exhausted(error):
            note = f"The memory does not suffice: {note}"
        elif not isinstance(error, AnnError):
            raise
        found = {"note": note}
    print("RESULT", json.dumps(found), flush=True)


if __name__ == "__main__":
    main(Run(**json.loads(sys.argv[1])))
