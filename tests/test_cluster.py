"""Work on a Ray cluster of two nodes, both on this machine: as without one, even when a worker is killed."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace

import numpy as np
import pytest
from rasterio.transform import from_origin

from ann.cluster.connection import Cluster, Node, check_nodes, connect
from ann.cluster.prepare import write_dataset
from ann.cluster.tile_worker import SceneFile
from ann.cluster.tiles import Network, Seat, plan_seats, start_workers
from ann.cluster.training import Team, plan_team
from ann.data.readers.directories import read_directories
from ann.data.readers.formats import open_dataset
from ann.errors import ClusterError, DatasetError, SceneError
from ann.inference.files import FileScene
from ann.inference.resample import ResampledScene
from ann.inference.scene import ArrayScene
from drawing import CLASSES, CRS, draw_scene, write_geotiff, write_training_directory
from drawn_scenes import join_blocks
from labelled_files import write_raster
from maskrcnn.cluster import DetectionWork
from maskrcnn.instances.pipeline import DetectionSettings, detect_scene, find_by_workers
from maskrcnn.model_file import read_model
from ray_nodes import RAY_NODE

pytest.importorskip("ray")


@pytest.fixture
def cluster(nodes):
    """The same, connected."""
    with connect(nodes.address, ["pyarrow"]) as connected:
        yield connected


def test_an_address_without_cluster_is_said_within_seconds(monkeypatch):
    start = time.monotonic()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        with (
            pytest.raises(ClusterError, match=f"127.0.0.1:{port} .*ray start --head"),
            connect(f"127.0.0.1:{port}"),
        ):
            pass
        monkeypatch.setattr("ann.cluster.connection.ANSWER_SECONDS", 4)
        silent.listen()
        with (
            pytest.raises(ClusterError, match="does not answer as a Ray cluster"),
            connect(f"127.0.0.1:{port}"),
        ):
            pass
    for address in ("nowhere.invalid:6379", "here", "localhost:99999"):
        with pytest.raises(ClusterError, match=address.split(":")[0]), connect(address):
            pass
    assert time.monotonic() - start < 30


def test_nodes_with_other_versions_are_named(nodes, tmp_path):
    for name, version in (("keras", "2.0.1"), ("numpy", "1.99.0")):
        (tmp_path / f"{name}-{version}.dist-info").mkdir()
        (tmp_path / f"{name}-{version}.dist-info" / "METADATA").write_text(
            f"Name: {name}\nVersion: {version}\n"
        )
    old = nodes.add_node(**RAY_NODE, env_vars={"PYTHONPATH": str(tmp_path)})
    try:
        with (
            pytest.raises(ClusterError, match=r"has keras 2\.0\.1, this machine 3") as raised,
            connect(nodes.address),
        ):
            pass
        assert "numpy" not in str(raised.value)  # may differ
        assert "Install the same versions" in str(raised.value)
    finally:
        nodes.remove_node(old)


def test_nodes_that_lack_a_package_are_named(cluster):
    with pytest.raises(ClusterError, match=r"lacks nothing_like_it \(1.0 is installed here\)"):
        check_nodes(cluster.nodes, {"numpy": np.__version__, "nothing_like_it": "1.0"})
    check_nodes(cluster.nodes, {"nothing_like_it": ""})  # optional, and missing everywhere


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Four labelled scenes of 150 x 200 pixels."""
    folder = tmp_path_factory.mktemp("training")
    for number in range(4):
        scene = draw_scene(height=150, width=200, objects=8, seed=number)
        write_training_directory(folder, f"scene_{number}", scene)
    return folder


def test_shards_written_on_nodes_are_those_written_here(cluster, images, tmp_path, monkeypatch):
    monkeypatch.setattr("ann.data.readers.shard_writing.SHARD_BYTES", 100_000)
    dataset = read_directories(images, CLASSES)
    options = {"side": 128, "validation_share": 0.25, "overwrite": False}
    reports = []
    here = write_dataset(dataset, str(tmp_path / "here"), **options)
    there = write_dataset(
        dataset,
        str(tmp_path / "there"),
        cluster=cluster,
        report=lambda *done: reports.append(done),
        **options,
    )
    assert len(there["shards"]) == 4 and reports == [(number, 4) for number in range(1, 5)]
    for one, other in zip(there["shards"], here["shards"], strict=True):
        assert one.pop("name")[:11] == other.pop("name")[:11]
    assert there == here
    pairs = zip(
        open_dataset(tmp_path / "there", CLASSES).images,
        open_dataset(tmp_path / "here", CLASSES).images,
        strict=True,
    )
    for one, other in pairs:
        np.testing.assert_array_equal(one.read(None).image, other.read(None).image)
        assert one.read(None).class_ids.tolist() == other.read(None).class_ids.tolist()


def test_a_scene_that_cannot_be_read_on_a_node_is_named(cluster, images, tmp_path):
    dataset = read_directories(images, CLASSES)
    missing = images / "scene_2" / "scene_2.tif"
    content = missing.read_bytes()
    missing.unlink()
    try:
        with pytest.raises(DatasetError, match=r"scene_2\.tif can't be read.*cluster's node"):
            write_dataset(
                dataset, str(tmp_path / "set"), side=128, validation_share=0, overwrite=False, cluster=cluster
            )
    finally:
        missing.write_bytes(content)
    assert not (tmp_path / "set" / "shards.json").exists()


def test_workers_follow_the_gpus_or_cpus_of_the_nodes():
    small, large = (Node(id=str(cpus), address="", cpus=cpus, gpus=0) for cpus in (2, 10))
    with_gpus = Node(id="gpus", address="", cpus=32, gpus=2)
    assert plan_seats((small,)) == [Seat(node=small, threads=2, gpus=0)]
    assert plan_seats((large, with_gpus)) == [
        *[Seat(node=large, threads=5, gpus=0)] * 2,
        *[Seat(node=with_gpus, threads=0, gpus=1)] * 2,
    ]


@pytest.fixture(scope="module")
def network(tiny_model):
    """A small network of random weights, every detection of which counts."""
    model = read_model(tiny_model)
    settings = DetectionSettings.for_model(model.config, confidence=0.0, batch_size=2)
    return Network(model=model, work=DetectionWork(config=model.config, settings=settings))


@pytest.fixture(scope="module")
def detect_here(network):
    """Detection in this process: a scene's ids and instances."""
    from maskrcnn.detector import load_detectors

    (detector,), _ = load_detectors(network.model, network.work.config, threads=1)

    def detect(scene):
        return join_blocks(detect_scene(scene, detector, network.work.settings), (scene.height, scene.width))

    return detect


def assert_same(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    assert found[1] == expected[1] and expected[1]


def test_detection_on_nodes_is_that_of_one_process_even_if_a_worker_is_killed(
    cluster, network, detect_here, tmp_path
):
    pixels = draw_scene(height=250, width=300, objects=12, seed=3).image
    pixels[:130, :120] = 0  # hence tiles without data in the file
    write_geotiff(tmp_path / "scene.tif", pixels)
    messages = []
    with start_workers(cluster, network, messages.append) as workers:
        assert workers.count == 2

        def detect(scene, file, victim=None):
            blocks = []
            found = find_by_workers(scene, workers.for_scene(file), network.work.settings)
            for number, block in enumerate(found):
                blocks.append(block)
                if victim is not None and number == 0:
                    os.kill(workers.processes()[victim], signal.SIGKILL)
            return join_blocks(blocks, (scene.height, scene.width))

        scene = ArrayScene(pixels)
        assert_same(detect(scene, None, victim=0), detect_here(scene))
        died = [text for text in messages if "died" in text]
        assert len(died) == 1 and "Another one is started" in died[0]

        path = str(tmp_path / "scene.tif")
        with FileScene(path) as opened:
            assert_same(detect(opened, SceneFile(path=path)), detect_here(opened))
            smaller = ResampledScene(opened, 1.3)
            assert_same(detect(smaller, SceneFile(path=path, factor=1.3)), detect_here(smaller))
        with pytest.raises(SceneError, match=r"nowhere\.tif.*on the cluster's node"):
            detect(scene, SceneFile(path=str(tmp_path / "nowhere.tif")))
        assert_same(detect(scene, None), detect_here(scene))  # an error does not cost the workers


def test_detection_and_classification_in_grass_are_the_same_on_a_cluster(
    nodes, session, installed, tiny_model, tiny_classifier, tmp_path
):
    session = session.on("torch")  # which workers import soonest
    (tmp_path / "scenes").mkdir()
    for number in range(2):
        scene = draw_scene(height=100, width=90, objects=5, seed=number)
        write_geotiff(tmp_path / "scenes" / f"scene_{number}.tif", scene.image)
    options = [f"images_directory={tmp_path}/scenes", f"model={tiny_model}", "confidence=0.1"]
    session.run("i.ann.maskrcnn.detect", *options, "output=here_", "nprocs=1")
    there = session.run("i.ann.maskrcnn.detect", *options, "output=there_", f"cluster={nodes.address}")
    assert "2 nodes with 2 CPUs" in there.stderr
    assert session.rows("there_house") == session.rows("here_house") != []
    assert session.topology("there_tree") == session.topology("here_tree")

    options = [f"images_directory={tmp_path}/scenes", f"model={tiny_classifier}"]
    session.run("i.ann.classifier.predict", *options, f"table={tmp_path}/here.csv")
    there = ("i.ann.classifier.predict", *options, f"table={tmp_path}/there.csv", f"cluster={nodes.address}")
    assert "2 nodes with 2 CPUs" in session.run(*there).stderr
    assert (tmp_path / "there.csv").read_text() == (tmp_path / "here.csv").read_text()


def test_class_rasters_go_from_tasks_to_training_to_prediction_on_a_cluster(
    nodes, session, installed, tmp_path
):
    for number in range(4):
        labels = np.zeros((64, 96), np.uint8)
        labels[8 + number : 30, 10:] = 255
        image = np.repeat(labels[..., None] // 2 + 60, 3, axis=-1)
        ground = {"crs": CRS, "transform": from_origin(500_000 + 100 * number, 5_500_000, 1, 1)}
        write_raster(tmp_path / "data" / "images" / f"{number}.tif", image, **ground)
        write_raster(tmp_path / "data" / "masks" / f"{number}.tif", labels, **ground)
    cluster, session = f"cluster={nodes.address}", session.on("torch")
    train = ("i.ann.unet.train", "classes=road", "architecture=unet_vgg", "tile_size=32", cluster)
    done = session.run(*train, f"training_dataset={tmp_path}/data", f"shards={tmp_path}/set")
    assert "Wrote 8 tiles in 1 shards" in " ".join(done.stderr.split())
    options = ("gpu_count=2", "epochs=1", "steps_per_epoch=2", "validation_steps=1", "name=roads")
    done = session.run(*train, f"training_dataset={tmp_path}/set", f"logs={tmp_path}/logs", *options)
    assert "2 images per step" in " ".join(done.stderr.split())
    refused = session.run(
        "i.ann.maskrcnn.train", "classes=road", f"training_dataset={tmp_path}/set", f"logs={tmp_path}/logs",
        "name=x", check=False,
    )  # fmt: skip
    assert "learns from labelled objects. Use i.ann.unet.train" in " ".join(refused.stderr.split())

    predict = (
        "i.ann.unet.predict",
        f"images_directory={tmp_path}/data/images",
        "output_type=probability",
        "-k",
    )
    model = f"model={tmp_path}/logs/unet_roads_1.h5"
    session.run(*predict, model, "output=here", "nprocs=1")
    session.run(*predict, model, "output=there", cluster)
    for number in range(4):
        session.run("g.region", f"raster=here_{number}_road")
        session.calc(f"difference = abs(here_{number}_road - there_{number}_road)")
        values = session.values("r.univar", "-g", "map=difference")
        assert int(values["n"]) == 64 * 96 and float(values["max"]) < 1e-5


def test_a_cluster_that_is_not_there_ends_the_modules_before_the_work(session, installed, tiny_model, images):
    options = [f"images_directory={images}/scene_0", f"model={tiny_model}", "cluster=localhost:1"]
    done = session.run("i.ann.maskrcnn.detect", *options, check=False)
    assert done.returncode == 1
    assert "No cluster can be reached at localhost:1" in " ".join(done.stderr.split())


def test_the_devices_are_shared_out_by_machine():
    cpu = Node(id="cpu", address="1.2.3.4", cpus=8, gpus=0)
    gpu = Node(id="gpu", address="1.2.3.5", cpus=8, gpus=4)
    cpus, gpus = Cluster("here", (cpu, cpu)), Cluster("here", (gpu, gpu))
    assert plan_team(cpus, 2, "jax") == Team(count=2, gpus=0)
    assert plan_team(gpus, 8, "jax") == Team(count=2, gpus=4)
    assert plan_team(gpus, 8, "torch") == Team(count=8, gpus=1)
    assert plan_team(gpus, 3, "jax") == Team(count=1, gpus=3)
    assert plan_team(gpus, 6, "jax") == Team(count=2, gpus=3)
    unlike = Cluster("here", tuple(replace(gpu, id=str(count), gpus=count) for count in (8, 4, 4, 0)))
    assert plan_team(unlike, 16, "jax") == Team(count=4, gpus=4)
    assert plan_team(unlike, 16, "torch") == Team(count=16, gpus=1)
    assert plan_team(unlike, 8, "jax") == Team(count=1, gpus=8)
    assert plan_team(unlike, 12, "jax") == Team(count=3, gpus=4)
    assert plan_team(unlike, 10, "jax") == Team(count=5, gpus=2)
    assert plan_team(unlike, 13, "jax") == Team(count=13, gpus=1)
    assert plan_team(cpus, 1, "tensorflow") == Team(count=1, gpus=0)
    for cluster, count, backend, words in (
        (cpus, 3, "jax", "more devices than the cluster has: 2"),
        (gpus, 9, "jax", "more devices than the cluster has: 8"),
        (unlike, 17, "jax", "more devices than the cluster has: 16"),
        (cpus, 2, "tensorflow", "KERAS_BACKEND to jax or torch"),
    ):
        with pytest.raises(ClusterError, match=words):
            plan_team(cluster, count, backend)
