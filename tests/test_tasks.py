"""Tasks and their data reach the processes that train for this one."""

from __future__ import annotations

import pickle

import pytest

from ann.data.outlines.label_values import LabelValues
from ann.data.readers.class_folders import find_class_files
from ann.data.readers.image_classes import open_class_files
from ann.data.readers.pairs import find_pairs, read_pairs
from class_images import write_class_folders
from classifier.task import TASK as CLASSIFIER
from labelled_files import noise, write_raster
from maskrcnn.task import TASK as MASK_RCNN
from unet.task import TASK as UNET


@pytest.mark.parametrize("task", [MASK_RCNN, UNET, CLASSIFIER], ids=lambda task: task.name)
def test_a_task_can_be_sent(task):
    assert pickle.loads(pickle.dumps(task)) == task


def test_labelled_cells_can_be_sent(tmp_path):
    for folder, image in (("images", noise(32, 40)), ("masks", noise(32, 40)[..., :1] // 128 * 255)):
        write_raster(tmp_path / folder / "a.png", image)
    dataset = read_pairs(tmp_path, find_pairs(tmp_path), ("road",), LabelValues(ids={}))
    there = pickle.loads(pickle.dumps(dataset))
    sent, kept = (one.images[0].read(None) for one in (there, dataset))
    assert (sent.image == kept.image).all() and (sent.class_raster == kept.class_raster).all()


def test_classes_of_images_can_be_sent(tmp_path):
    write_class_folders(tmp_path, {"field": 2, "water": 1})
    names, files, _ = find_class_files(tmp_path, ())
    images = open_class_files(files, len(names), 64)
    for one, other in zip(pickle.loads(pickle.dumps(images)), images, strict=True):
        assert (one.read(None).image == other.read(None).image).all()
