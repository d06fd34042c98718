"""A network trained from scratch learns four images by heart: every part of it, and of training it, works."""

from __future__ import annotations

import pytest

from ann.data.readers.formats import open_dataset
from ann.data.samples.batches import ValidationBatches
from ann.data.samples.samples import SampleSettings
from ann.training.image_size import ImageSize
from ann.training.job import Job, Silence
from ann.training.loop import run_epochs
from ann.training.seeds import seed_everything
from ann.training.settings import TrainingSettings
from drawing import CLASSES, draw_scene, write_training_directory
from maskrcnn.network.inference import Detector
from maskrcnn.network.model import build_network
from maskrcnn.network.training import TrainingNetwork
from maskrcnn.preparation import describe_model, make_feed
from maskrcnn.scores.average_precision import score
from maskrcnn.scores.windows import detect_windows
from maskrcnn.task import TASK

pytestmark = pytest.mark.usefixtures("quick_graphs")
SIDE = 64  # pixels
STEPS = 60


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    for number in range(4):
        scene = draw_scene(height=SIDE, width=SIDE, objects=4, seed=number)
        write_training_directory(folder, f"scene_{number}", scene)
    return open_dataset(folder, CLASSES)


def test_four_images_are_learnt_by_heart(dataset, tmp_path):
    seed_everything(0)
    size = ImageSize(SIDE, SIDE, False)
    config = describe_model(
        dataset,
        size,
        backbone="resnet18",
        rois_per_image=12,
        mini_mask_shape=None,
        initial=None,
        other_classes=False,
    )
    settings = TrainingSettings(
        name="four",
        logs=tmp_path,
        epochs=1,
        steps_per_epoch=STEPS,
        validation_steps=0,
        images_per_device=4,
        learning_rate=1e-3,
        augment=False,
    )
    network = build_network(config)
    feed = make_feed(
        Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings), slice(None)
    )
    run_epochs(TASK, TrainingNetwork(network), config, feed, settings, Silence())
    windows = ValidationBatches(dataset.images, config, SampleSettings(augment=False, zoom=False))
    scores = score(detect_windows(Detector(network), windows), CLASSES)
    assert scores.truth.sum() >= 8
    assert scores.average_precision("mask", 0.5) > 0.9
    assert scores.average_precision("box", 0.5) > 0.9
