"""Two machines out of one: Ray on two network namespaces, joined by a virtual cable that counts the traffic.

    sudo python benchmarks/cluster.py DATASET CLASSES SCENES [--train | --only-train]

DATASET, CLASSES: labelled images and their classes, as i.ann.maskrcnn.train takes them; SCENES: a directory
of images. Both "machines" see all paths, as on shared storage. Makes shards, detects in the scenes (with
random weights) and, with --train, trains, each here and on the cluster; in the middle of detection and
training a worker is killed. Compares the results and prints a table of seconds and of megabytes that crossed
the cable; the same is written to docs/benchmarks/cluster.csv.

On a real cluster the same work is done with cluster= of the modules.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import RESULTS, Reporter, describe_network, markdown, write_csv

from ann.training.image_size import ImageSize
from maskrcnn.task import TASK

RESULT = RESULTS / "cluster.csv"
MACHINES = {"maskrcnn_a": "10.77.0.1", "maskrcnn_b": "10.77.0.2"}
HEAD, OTHER = MACHINES
PORT = 6399
OBJECT_STORE = 200 * 2**20  # bytes
SIDE = 256  # pixels of the network's input
EPOCHS, STEPS = 4, 3


def command(*words: str, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Run a command quietly."""
    return subprocess.run(words, check=check, capture_output=True, text=True, **options)


@contextlib.contextmanager
def two_machines():
    """Two namespaces that reach nothing but each other."""
    command("ip", "link", "add", "cable_a", "type", "veth", "peer", "name", "cable_b")
    try:
        for (name, address), cable in zip(MACHINES.items(), ("cable_a", "cable_b"), strict=True):
            command("ip", "netns", "add", name)
            own = Path("/etc/netns") / name  # stands in for /etc in that namespace
            own.mkdir(parents=True, exist_ok=True)
            (own / "hosts").write_text(f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n")
            command("ip", "link", "set", cable, "netns", name)
            command("ip", "-n", name, "address", "add", f"{address}/24", "dev", cable)
            command("ip", "-n", name, "link", "set", cable, "up")
            command("ip", "-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in MACHINES:
            command("ip", "netns", "delete", name, check=False)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
        command("ip", "link", "delete", "cable_a", check=False)


@contextlib.contextmanager
def ray_nodes(folder: str):
    """A Ray node on each machine, one CPU each, in the foreground of processes that are ended here."""
    common = ["--block", "--num-cpus=1", f"--object-store-memory={OBJECT_STORE}"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *common]
    starts = {
        HEAD: [*ray, "--head", f"--port={PORT}", "--include-dashboard=false"],
        OTHER: [*ray, f"--address={MACHINES[HEAD]}:{PORT}"],
    }
    processes = []
    try:
        for name, words in starts.items():
            words = [*words, f"--node-ip-address={MACHINES[name]}", f"--temp-dir={folder}/{name}"]
            words = words if name == HEAD else [one for one in words if not one.startswith("--temp-dir")]
            processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", name, *words],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )
            time.sleep(8)
        yield
    finally:
        for process in reversed(processes):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def cable_bytes() -> int:
    """Bytes that crossed the cable so far, both directions."""
    counted = json.loads(command("ip", "-n", HEAD, "-s", "-j", "link", "show", "dev", "cable_a").stdout)
    statistics = counted[0]["stats64"]
    return statistics["rx"]["bytes"] + statistics["tx"]["bytes"]


def drive(arguments, folder: Path) -> list[dict]:
    """The work itself, in the namespace of the head; returns the rows of the table."""
    from ann.cluster.connection import connect
    from ann.cluster.prepare import write_dataset
    from ann.data.readers import shard_writing
    from ann.data.readers.formats import open_dataset

    shard_writing.SHARD_BYTES = 8 * 2**20  # so that a small dataset makes several shards
    rows: list[dict] = []

    def measure(what: str, work, units: int, unit: str):
        before, start = cable_bytes(), time.perf_counter()
        result = work()
        row = {"work": what, "count": units, "unit": unit}
        row["seconds"] = round(time.perf_counter() - start, 2)
        row["MB_on_the_cable"] = round((cable_bytes() - before) / 1e6, 3)
        rows.append(row)
        print(row, flush=True)
        return result

    classes = arguments.classes.split(",")
    dataset = open_dataset(arguments.dataset, classes)
    options = {"side": 2 * SIDE, "validation_share": 0.0, "overwrite": True}
    tiles = measure_tiles(dataset, options["side"])
    here = measure(
        "shards, one process", lambda: write_dataset(dataset, str(folder / "here"), **options), tiles, "tiles"
    )
    address = f"{MACHINES[HEAD]}:{PORT}"
    with connect(address, ["pyarrow"]) as cluster:
        there = measure(
            "shards, two nodes",
            lambda: write_dataset(dataset, str(folder / "there"), cluster=cluster, **options),
            tiles,
            "tiles",
        )
        compare_shards(folder, classes)
        assert here["instances"] == there["instances"]
        written = sum(shard["bytes"] for shard in there["shards"])
        rows.append(
            {"work": "size of the shards", "count": tiles, "unit": "tiles", "MB": round(written / 1e6, 1)}
        )
        if not arguments.only_train:
            detect(arguments, folder, cluster, measure)
    if arguments.train or arguments.only_train:
        train(folder, classes, measure)
    return rows


def measure_tiles(dataset, side: int) -> int:
    """Number of tiles that a dataset is cut into."""
    from ann.data.readers.shard_writing import even_windows

    images = (*dataset.images, *dataset.validation)
    return sum(len(even_windows(image.height, image.width, side)) for image in images)


def compare_shards(folder: Path, classes: list[str]) -> None:
    """All tiles of both sets are the same."""
    from ann.data.readers.formats import open_dataset

    sets = [open_dataset(folder / name, classes) for name in ("here", "there")]
    pairs = zip(*((*one.images, *one.validation) for one in sets), strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(one.read(None).image, other.read(None).image)
        assert one.class_ids.tolist() == other.class_ids.tolist()


def make_model(path: Path, bands: int, classes: list[str]) -> None:
    """A model file of random weights."""
    from ann.training.seeds import seed_everything
    from ann.weights import save_model
    from maskrcnn.config import MaskRCNNConfig
    from maskrcnn.network.layout import legacy_layout
    from maskrcnn.network.model import build_network

    seed_everything(1)
    config = MaskRCNNConfig(
        classes=tuple(classes),
        backbone="resnet18",
        image_shape=(SIDE, SIDE),
        band_mean=(120.0,) * bands,
        band_scale=(60.0,) * bands,
        proposals_detection=200,
        max_detections=30,
    )
    save_model(path, legacy_layout(build_network(config)), config)


def detect(arguments, folder: Path, cluster, measure) -> None:
    """Detect in all scenes: here, on two nodes that read the files, and with pixels that are sent to them."""
    from ann.cluster.tile_worker import SceneFile
    from ann.cluster.tiles import Network, start_workers
    from ann.inference.files import FileScene
    from ann.inference.tiles import cut_tiles
    from maskrcnn.cluster import DetectionWork
    from maskrcnn.detector import load_detectors
    from maskrcnn.instances.pipeline import DetectionSettings, detect_scene, find_by_workers
    from maskrcnn.model_file import read_model

    paths = sorted(
        str(path) for path in Path(arguments.scenes).iterdir() if path.suffix in (".tif", ".jpg", ".png")
    )
    with FileScene(paths[0]) as scene:
        bands = scene.bands
    make_model(folder / "model.h5", bands, arguments.classes.split(","))
    model = read_model(folder / "model.h5")
    settings = DetectionSettings.for_model(model.config, confidence=0.0)
    tiles = 0
    for path in paths:
        with FileScene(path) as scene:
            tiles += len(cut_tiles(scene.height, scene.width, settings.tile_shape, settings.overlap))
    (detector,), _ = load_detectors(model, model.config, threads=1)

    def collect(find):
        found = []
        for path in paths:
            with FileScene(path) as scene:
                for block in find(scene, path):
                    found.append((block.row, block.instance_ids, block.instances))
        return found

    expected = measure(
        "detection, one process",
        lambda: collect(lambda scene, path: detect_scene(scene, detector, settings)),
        tiles,
        "tiles",
    )
    network = Network(model=model, work=DetectionWork(config=model.config, settings=settings))
    with start_workers(cluster, network, print) as workers:

        def files(scene, path):
            return find_by_workers(scene, workers.for_scene(SceneFile(path=path)), settings)

        def pixels(scene, path):
            return find_by_workers(scene, workers.for_scene(None), settings)

        def files_and_a_death(scene, path):
            for number, block in enumerate(files(scene, path)):
                if path == paths[0] and number == 0:
                    os.kill(workers.processes()[0], signal.SIGKILL)
                yield block

        measure("start of two workers", lambda: next(iter(pixels(FileScene(paths[0]), None))), 2, "workers")
        for what, find in (
            ("detection, workers read the files", files),
            ("detection, pixels are sent", pixels),
            ("detection, a worker killed", files_and_a_death),
        ):
            found = measure(what, lambda find=find: collect(find), tiles, "tiles")
            for one, other in zip(found, expected, strict=True):
                np.testing.assert_array_equal(one[1], other[1])
                assert one[0] == other[0] and one[2] == other[2]
    print(f"{sum(len(one[2]) for one in expected)} instances each time")


def train(folder: Path, classes: list[str], measure) -> None:
    """Train the same steps as one process with two images and as two with one each; compare the weights."""
    weights = {}
    for name, address, what in (
        ("one", "", "training, one process"),
        ("two", f"{MACHINES[HEAD]}:{PORT}", "training, two nodes"),
        ("mortal", f"{MACHINES[HEAD]}:{PORT}", "training, two nodes, a worker killed"),
    ):
        words = [sys.executable, __file__, str(folder / "there"), ",".join(classes), "-", "--training"]
        run = [*words, json.dumps({"name": name, "address": address, "logs": str(folder / "logs")})]
        environment = os.environ | {"KERAS_BACKEND": "jax"}
        work = functools.partial(subprocess.run, run, env=environment, check=True)
        measure(what, work, EPOCHS * STEPS, "steps")
        weights[name] = read_weights(folder / "logs" / f"mask_rcnn_{name}_{EPOCHS}.h5")
    for name in ("two", "mortal"):
        far = max(float(np.abs(weights[name][key] - value).max()) for key, value in weights["one"].items())
        print(f"Largest difference of a weight, {name} against one: {far:.2g}", flush=True)


def read_weights(path: Path) -> dict[tuple[str, int], np.ndarray]:
    """All arrays of a model file."""
    from maskrcnn.model_file import read_model

    model = read_model(path)
    return {
        (layer, number): model.read(layer, number)
        for layer, arrays in model.layers.items()
        for number in range(len(arrays))
    }


def train_once(arguments) -> None:
    """One of the trainings of `train`, in a process of its own."""
    from ann.cluster.connection import connect
    from ann.cluster.training import train_on_cluster
    from ann.data.readers.formats import open_dataset
    from ann.training.job import Job
    from ann.training.settings import TrainingSettings
    from ann.training.worker import train as train_here

    run = json.loads(arguments.training)
    count = 2 if run["address"] else 1
    settings = TrainingSettings(
        name=run["name"],
        logs=Path(run["logs"]),
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        images_per_device=2 // count,
        device_count=count,
        workers=1,
    )
    settings.logs.mkdir(exist_ok=True)
    dataset = open_dataset(arguments.dataset, arguments.classes.split(","))
    size = ImageSize(64, SIDE, False)
    config = describe_network(dataset, size, backbone="resnet18", rois_per_image=16)
    job = Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings)
    reporter = (Murderer if run["name"] == "mortal" else Reporter)(messages=sys.stdout)
    if not run["address"]:
        train_here(job, reporter)
        return
    with connect(run["address"], ["pyarrow"]) as cluster:
        train_on_cluster(job, reporter, cluster)


class Murderer(Reporter):
    """Kills the worker on the other machine in the first step of the third epoch."""

    done = False

    def percent(self, done: int, total: int) -> None:
        if self.done or done <= 2 * STEPS:
            return
        self.done = True
        for pid in command("ip", "netns", "pids", OTHER).stdout.split():
            if b"TrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                print(f"Killing the worker on {OTHER}", flush=True)
                os.kill(int(pid), signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("classes")
    parser.add_argument("scenes")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--only-train", action="store_true", help="leave detection out")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--training", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.training:
        train_once(arguments)
        return
    if arguments.inside:
        rows = drive(arguments, Path(arguments.inside))
        columns = list(dict.fromkeys(column for row in rows for column in row))
        write_csv(RESULT, rows, columns)
        print(markdown(columns, ([row.get(column, "") for column in columns] for row in rows)))
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that the namespaces go away
    with tempfile.TemporaryDirectory(prefix="mrc") as folder, two_machines(), ray_nodes(folder):
        words = [sys.executable, __file__, *sys.argv[1:], "--inside", folder]
        subprocess.run(["ip", "netns", "exec", HEAD, *words], check=True)


if __name__ == "__main__":
    main()
