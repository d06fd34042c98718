"""One measurement of `scaling.py`, in a process of its own: python scaling_run.py RUN, a `Run` as JSON.

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
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from measuring import Clock, Reporter, describe_network, draw_scenes, object_count

from maskrcnn.task import TASK

DETECTIONS = 30  # in each tile: as many objects as a scene may show there


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is measured.

    work: prepare, train or detect; unit, units: what there are how many of (devices, threads, processes,
    nodes); images: per device and step; steps: measured, after the first; epoch_images: where above 0,
    whole epochs of so many images are measured instead; folder: what `prepare` has written; cluster: the
    address of the nodes, started here if it is empty.
    """

    work: str
    backend: str
    folder: str
    backbone: str
    size: int
    unit: str = "devices"
    units: int = 1
    images: int = 1
    steps: int = 10
    epoch_images: int = 0
    cluster: str = ""

    @property
    def device_count(self) -> int:
        """Devices of this machine that are used together."""
        return self.units if self.unit == "devices" else 1

    def as_json(self) -> str:
        return json.dumps(asdict(self))


class RunReporter(Reporter):
    """Also keeps what the devices are."""

    devices = ""

    def message(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
        if text.startswith("Devices: "):
            self.devices = text.removeprefix("Devices: ").split(" (")[0]


def prepare(run: Run) -> dict:
    """Write scenes, and a model of random weights, from which all others start."""
    import keras

    from ann.data.readers.formats import open_dataset
    from ann.training.image_size import ImageSize
    from ann.weights import save_model
    from drawing import CLASSES
    from maskrcnn.network.layout import legacy_layout
    from maskrcnn.network.model import build_network

    folder = Path(run.folder)
    draw_scenes(folder / "scenes", run.size)
    dataset = open_dataset(folder / "scenes", CLASSES)
    config = describe_network(dataset, ImageSize(run.size, run.size, False), backbone=run.backbone)
    keras.utils.set_random_seed(1)
    save_model(folder / "model.h5", legacy_layout(build_network(config)), config)
    return {}


def train(run: Run) -> dict:
    """Train on the devices of this machine, or on nodes."""
    from ann.training import worker

    if run.unit == "nodes":
        return train_on_nodes(run)
    job, reporter = make_job(run, run.device_count), RunReporter(Clock())
    worker.train(job, reporter)
    return summarise(job, reporter)


def train_on_nodes(run: Run) -> dict:
    """Train on `run.units` nodes with all their GPUs; without GPUs each counts as one device."""
    from ann.cluster.connection import connect
    from ann.cluster.training import train_on_cluster

    with contextlib.ExitStack() as stack:
        address = run.cluster or stack.enter_context(ray_nodes(run.units))
        cluster = stack.enter_context(connect(address, ["pyarrow"]))
        job = make_job(run, run.units * max(1, *(node.gpus for node in cluster.nodes)))
        reporter = RunReporter(Clock())
        train_on_cluster(job, reporter, cluster)
    # what workers tell arrives up to half a second late: of no use for single steps
    return summarise(job, reporter) | {"first_s": None, "median_step_s": None}


@contextlib.contextmanager
def ray_nodes(count: int) -> Iterator[str]:
    """Ray nodes on this machine, with one CPU each; gives their address."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 0, "object_store_memory": 100 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        for _ in range(count - 1):
            cluster.add_node(**node)
        yield cluster.address
    finally:
        cluster.shutdown()


def make_job(run: Run, device_count: int):
    """Training from the model that was prepared: `run.steps` steps after the first, or two epochs."""
    from ann.data.readers.formats import open_dataset
    from ann.training.image_size import ImageSize
    from ann.training.job import Job
    from ann.training.settings import TrainingSettings
    from drawing import CLASSES
    from maskrcnn.model_file import read_model

    epoch_steps = math.ceil(run.epoch_images / (run.images * device_count))
    settings = TrainingSettings(
        name="benchmark",
        logs=Path(tempfile.mkdtemp(dir=run.folder)),
        epochs=2 if run.epoch_images else 1,  # the first one compiles
        steps_per_epoch=epoch_steps or run.steps + 1,
        validation_steps=0,
        images_per_device=run.images,
        device_count=device_count,
    )
    model = read_model(Path(run.folder, "model.h5"))
    return Job(
        task=TASK,
        dataset=open_dataset(Path(run.folder, "scenes"), CLASSES),
        config=model.config,
        size=ImageSize(run.size, run.size, False),
        settings=settings,
        initial=model,
    )


def summarise(job, reporter: RunReporter) -> dict:
    """Seconds of a training, and the part of it in which the load is wanted: after what compiles."""
    from ann.training import log

    settings, clock = job.settings, reporter.clock
    ended = clock.times[-1][0]
    elapsed, _ = clock.steps()
    found = {"first_s": elapsed[0], "devices": reporter.devices, "ended": ended}
    if settings.epochs == 1:
        step = float(np.median(elapsed[1:]))
        images = settings.batch_size * (len(elapsed) - 1)
        seconds = {"begun": clock.times[1][0], "median_step_s": step}
        return found | seconds | {"images": images, "seconds_per_image": step / settings.batch_size}
    images = settings.batch_size * settings.steps_per_epoch
    seconds = float(log.read_rows(settings.table_path)[-1]["seconds"])
    return found | {
        "begun": ended - seconds,
        "epoch_s": seconds,
        "images": images,
        "seconds_per_image": seconds / images,
    }


def detect(run: Run) -> dict:
    """Detect in a scene of one column of tiles that look alike: `run.steps` batches for each device."""
    from detection import surviving

    from ann.data.samples.scaling import scale_pixels
    from ann.devices.available import list_devices
    from ann.inference.scene import ArrayScene
    from drawing import draw_scene
    from maskrcnn.detector import detection_workers, load_detectors
    from maskrcnn.instances.pipeline import DetectionSettings, find_by_workers
    from maskrcnn.model_file import read_model

    model = read_model(Path(run.folder, "model.h5"))
    config, count, size = model.config, run.device_count, run.size
    # OpenVINO would run on one device only, and beside one backend as beside another
    detectors, _ = load_detectors(model, config, device_count=count, keras_only=True)
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
    print("READY", flush=True)
    sys.stdin.readline()
    begun = time.monotonic()
    with detection_workers(detectors, settings) as workers:
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
