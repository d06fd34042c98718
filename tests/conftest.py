"""Fixtures: a temporary GRASS project, and the addon as `g.extension` installs it. Made once, on demand."""

from __future__ import annotations

import gc
import os
import re
import signal
from pathlib import Path

# Two workers share the cores, and programs that they start: threads of OpenMP that wait for each other would
# spin. It is read when a backend is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from drawing import draw_scene, write_training_directory
from grass_session import (
    REPOSITORY,
    GrassSession,
    common_variables,
    create_mapset,
    create_project,
    export_checkout,
    open_session,
    warm_python,
)
from quick_graphs import skip_graph_optimisation

# PyTorch's own ways, for runs on that backend
collect_ignore = [] if os.environ.get("KERAS_BACKEND") == "torch" else ["test_pytorch.py"]

# `make test` gives whole files to two workers. A worker that begins a slow one last keeps the other waiting,
# so these come first, the slowest at the top; the others, seconds each, fill the gaps.
SLOW_FILES = [
    f"test_{name}.py"
    for name in (
        "devices",
        "train_module",
        "detect_module",
        "legacy_numbers",
        "network",
        "legacy_training",
        "export",
        "foreign_numbers",
        "foreign_module",
        "efficientnet",
        "overfitting",
        "manuals",
        "training",
        "benchmarks",
        "openvino",
        "cluster_training",
        "unet_module",
        "detect_keeps",
        "grass_output",
        "grass_hard_scenes",
        "cluster",
        "unet_training",
    )
]


def pytest_collection_modifyitems(items):
    items.sort(
        key=lambda item: SLOW_FILES.index(item.path.name) if item.path.name in SLOW_FILES else len(SLOW_FILES)
    )


def pytest_configure():
    # shells start background jobs with Ctrl-C ignored, and modules that the tests start would inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()


def pytest_collection_finish():
    # What backend and tests made when they were imported stays: it is never looked through for garbage.
    # Graphs make many objects as well.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    gc.enable()


@pytest.fixture(scope="session")
def grass_folder(tmp_path_factory) -> Path:
    """Where projects, sessions and addons of this test run lie."""
    return tmp_path_factory.mktemp("grass")


@pytest.fixture(scope="session")
def project(grass_folder) -> Path:
    """A GRASS project in UTM zone 33."""
    return create_project(grass_folder / "project", "EPSG:32633")


@pytest.fixture(scope="session")
def addons(grass_folder) -> Path:
    """The directory that addons are installed to; empty at first."""
    (grass_folder / "addons").mkdir()
    return grass_folder / "addons"


@pytest.fixture(scope="session")
def installed(grass_folder, project, addons) -> Path:
    """The addon directory after `g.extension` has installed the toolset from a copy of the working tree."""
    source = export_checkout(grass_folder / "checkout")
    session = open_session(project, "PERMANENT", addons, grass_folder)
    done = session.run("g.extension", "extension=i.ann.maskrcnn", f"url={source}", check=False)
    # It also wants to reach the index of addons, so its exit code says little: what is installed counts.
    assert (addons / "scripts" / "i.ann.maskrcnn.detect").exists(), done.stdout + done.stderr
    (addons / "messages.txt").write_text(done.stdout + done.stderr)
    return addons


@pytest.fixture
def session(request, grass_folder, project, addons) -> GrassSession:
    """A new mapset for this test, named after its file too: others have tests of the same name."""
    name = re.sub(r"\W", "_", f"{request.path.stem.removeprefix('test_')}_{request.node.name}")[:120]
    create_mapset(project, name)
    return open_session(project, name, addons, grass_folder)


@pytest.fixture(scope="session")
def tiny_model(grass_folder) -> Path:
    """A model file of random weights for two classes, house and tree, and tiles of 64 x 64 pixels."""
    code = """
import sys
from ann.training.seeds import seed_everything
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.network.layout import legacy_layout
from maskrcnn.network.model import build_network
from ann.weights import save_model
seed_everything(3)
config = MaskRCNNConfig(classes=("house", "tree"), backbone="resnet18", image_shape=(64, 64), pixel_size=1.0,
                     anchor_scales=(8, 16, 32, 64, 128), proposal_candidates=200, proposals_detection=20,
                     max_detections=5)
save_model(sys.argv[1], legacy_layout(build_network(config)), config)
"""
    return _make_model(code, grass_folder / "tiny.h5")


@pytest.fixture(scope="session")
def tiny_unet(grass_folder) -> Path:
    """A U-Net file of random weights for the class road, which it sees in some cells of any scene."""
    code = """
import sys
from ann.training.seeds import seed_everything
from ann.weights import save_model
from ann.weights.layout import layer_groups
from unet.config import UNetConfig
from unet.network.model import build_network
seed_everything(3)
config = UNetConfig(classes=("road",), backbone="unet_vgg", image_shape=(64, 64), pixel_size=1.0,
                    band_mean=(100.0,) * 3, band_scale=(50.0,) * 3)
save_model(sys.argv[1], layer_groups(build_network(config)), config)
"""
    return _make_model(code, grass_folder / "tiny_unet.h5")


@pytest.fixture(scope="session")
def tiny_classifier(grass_folder) -> Path:
    """A classifier file of random weights for the classes wood and stone."""
    code = """
import sys
from ann.training.seeds import seed_everything
from ann.weights import save_model
from ann.weights.layout import layer_groups
from classifier.config import ClassifierConfig
from classifier.network.model import build_network
seed_everything(3)
config = ClassifierConfig(classes=("wood", "stone"), backbone="resnet18", image_shape=(32, 32),
                          band_mean=(100.0,) * 3, band_scale=(50.0,) * 3)
save_model(sys.argv[1], layer_groups(build_network(config)), config)
"""
    return _make_model(code, grass_folder / "tiny_classifier.h5")


def _make_model(code: str, path: Path) -> Path:
    """Run code that writes a model file; Keras stays out of this process."""
    variables = common_variables() | {"PYTHONPATH": str(REPOSITORY / "lib")}
    done = warm_python(None).run(["-c", code, str(path)], variables)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def quick_graphs():
    """TensorFlow does not optimise graphs; it does again afterwards, for results differ in the last digit."""
    skip_graph_optimisation()
    yield
    skip_graph_optimisation(False)


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """A directory of four labelled images of 96 x 96 pixels; the first has five instances or more."""
    folder = tmp_path_factory.mktemp("training")
    for number in range(4):
        write_training_directory(
            folder, f"scene_{number}", draw_scene(height=96, width=96, objects=6, seed=number)
        )
    return folder


@pytest.fixture(scope="module")
def nodes():
    """A Ray cluster of two nodes with one CPU each; nobody is connected to it."""
    pytest.importorskip("ray")
    from ray_nodes import two_nodes

    with two_nodes() as cluster:
        yield cluster
