"""A training job travels to other processes, and each knows its place among them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ann.data.readers.formats import open_dataset
from ann.data.samples.batches import TrainingBatches, ValidationBatches
from ann.data.samples.samples import SampleSettings
from ann.data.split import split_dataset
from ann.devices.place import Place
from ann.errors import DeviceError
from ann.packages import install_hint, missing_packages
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.settings import TrainingSettings
from drawing import CLASSES, draw_scene, write_training_directory
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.model_file import read_model
from maskrcnn.task import TASK

CONFIG = MaskRCNNConfig(classes=CLASSES, backbone="resnet18", image_shape=(64, 64), max_instances=10)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        scene = draw_scene(height=96, width=96, objects=5, seed=number)
        write_training_directory(folder, f"scene_{number}", scene)
    return split_dataset(open_dataset(folder, CLASSES), 0.3)


def test_a_job_that_was_pickled_gives_the_same_samples(dataset, tmp_path, tiny_model):
    job = Job(
        task=TASK,
        dataset=dataset,
        config=CONFIG,
        size=ImageSize(64, 64, False),
        settings=TrainingSettings(name="test", logs=tmp_path),
        initial=read_model(tiny_model),
    )
    copy = pickle.loads(pickle.dumps(job))
    assert (copy.config, copy.settings, copy.size) == (job.config, job.settings, job.size)
    assert copy.initial == job.initial

    def batch(job):
        return TrainingBatches(job.dataset.images, CONFIG, SampleSettings(min_dim=64)).batch(3)

    for name, values in batch(job).items():
        np.testing.assert_array_equal(batch(copy)[name], values)


def test_processes_make_their_own_rows_of_a_batch(dataset):
    settings = SampleSettings(min_dim=64)
    batches = TrainingBatches(dataset.images, CONFIG, settings, batch_size=4)
    checks = ValidationBatches(dataset.validation, CONFIG, settings, batch_size=4)
    for source in (batches, checks):
        whole = source.batch(0)
        places = [Place(rank=rank, world_size=2, address="here:1") for rank in range(2)]
        parts = [source.batch(0, place.share(4)) for place in places]
        for name, values in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "4", "SLURM_LOCALID": "1"},
        {
            "OMPI_COMM_WORLD_RANK": "1",
            "OMPI_COMM_WORLD_SIZE": "4",
            "OMPI_COMM_WORLD_LOCAL_RANK": "1",
        },
    ],
)
def test_the_place_is_what_the_launcher_says(variables):
    variables |= {"MASTER_ADDR": "node1", "MASTER_PORT": "4711"}
    place = Place.from_environment(variables)
    assert place == Place(rank=1, world_size=4, local_rank=1, address="node1:4711")
    assert not place.first and place.share(8) == slice(2, 4)


@pytest.mark.parametrize("variables", [{}, {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}])
def test_without_a_launcher_a_process_is_alone(variables):
    assert Place.from_environment(variables) == Place()
    assert Place().first and Place().share(3) == slice(0, 3)


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR"),
        ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "from 0 to 1"),
    ],
)
def test_a_place_that_cannot_be_is_refused(variables, text):
    with pytest.raises(DeviceError, match=text):
        Place.from_environment(variables)


def test_devices_that_cannot_be_shared_equally_are_refused():
    with pytest.raises(DeviceError, match="3 devices"):
        Place(rank=0, world_size=2, address="here:1").share(3)


def test_a_package_that_is_too_old_counts_as_missing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "oldish").mkdir()
    (tmp_path / "oldish" / "__init__.py").touch()
    for version, missing in (("3.9.1", True), ("3.14.0rc1", False), ("3.20.0", False), ("4.0", False)):
        (tmp_path / "oldish-1.dist-info").mkdir(exist_ok=True)
        metadata = f"Metadata-Version: 2.1\nName: oldish\nVersion: {version}\n"
        (tmp_path / "oldish-1.dist-info" / "METADATA").write_text(metadata)
        found = missing_packages(["numpy", "oldish>=3.14"], backend=False)
        assert found == (["oldish>=3.14"] if missing else []), version
    assert missing_packages(["oldish", "nothing_like_it"], backend=False) == ["nothing_like_it"]
    assert "install 'oldish>=3.14'" in install_hint(["oldish>=3.14"])
