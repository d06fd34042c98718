"""What is written of a run: scores, the report, event files for TensorBoard. No network is needed for it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from ann.data.readers.formats import open_dataset
from ann.evaluation.charts import class_chart
from ann.evaluation.event_file import EventFile
from ann.evaluation.pictures import stretch
from ann.training import log
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.record import RunRecord
from ann.training.settings import TrainingSettings
from labelled_files import noise, rectangle, write_raster, write_scene
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.scores.scorer import DetectionScorer
from maskrcnn.task import TASK

CLASSES = ("house", "<b>tree</b>")
FILE_CLASSES = ("house", "tree")
BOX = (8, 8, 30, 40)  # of the only thing that the detector below ever sees


def detector(images, windows, confidence):
    """One house with a score of 0.9 in each image, at the same place."""
    y1, x1 = windows[0, :2].astype(int)
    boxes = np.array([BOX], np.int32) + np.array([y1, x1, y1, x1])
    one = SimpleNamespace(
        boxes=boxes,
        class_ids=np.ones(1, np.int32),
        scores=np.full(1, 0.9, np.float32),
        masks=np.pad(np.ones((1, 26, 26), np.float32), ((0, 0), (1, 1), (1, 1)), "edge"),
    )
    return [one] * len(images)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for number in range(4):
        write_scene(root, f"s{number}", [("house", BOX)], size=(48, 64), seed=number)
    write_scene(root, "s4", [("house", BOX), ("tree", (34, 4, 46, 30))], size=(48, 64), seed=4)
    found = open_dataset(root, FILE_CLASSES)
    return replace(
        found, classes=CLASSES, images=found.images[:2], validation=found.images[2:4], notes=("A <note>",)
    ), found.images[4:]


def make_job(dataset, logs, **changes):
    data, held_out = dataset
    config = MaskRCNNConfig(
        classes=CLASSES,
        image_shape=(64, 64),
        band_mean=(128.0,) * 3,
        band_scale=(60.0,) * 3,
        max_detections=5,
    )
    values = {
        "task": TASK,
        "dataset": data,
        "config": config,
        "size": ImageSize(0, 64, False),
        "settings": TrainingSettings(name="test", logs=logs, epochs=3),
        "held_out": held_out,
        "options": {"classes": "house,tree", "flags": "s"},
    }
    return Job(**values | changes)


def run_epoch(record, job, epoch, loss=1.0):
    """What the training loop does with a record."""
    row = {"epoch": epoch, "stage": "all", "learning_rate": 1e-4, "seconds": 100.0, "loss": loss}
    row |= {"rpn_class_loss": 0.4, "val_rpn_class_loss": 0.5, "val_loss": loss + 0.1} | record.score()
    log.write_row(job.settings.table_path, row)
    record.write(row)
    return row


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags, self.words = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "data", "action")]

    def handle_data(self, data):
        self.words.append(data)


def read_page(job):
    text = job.settings.report_path.read_text(encoding="utf-8")
    page = Page(text)
    assert all(re.match(r"data:image/(png|jpeg);base64,[\w+/=]+$", address) for address in page.addresses)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert not re.search(r"https?:|url\(|@import", text)
    assert len(text) < 3_000_000
    return page, " ".join(page.words)


def test_the_report_of_a_run_stands_alone_and_names_everything(dataset, tmp_path):
    job = make_job(dataset, tmp_path)
    record = RunRecord(job, DetectionScorer(job, detector), {"Devices": "one <CPU>"})
    row = run_epoch(record, job, 1)
    assert row["mask_AP50"] == pytest.approx(1) and row["scoring_seconds"] > 0
    page, words = read_page(job)
    for text in ("<b>tree</b>", "house", "A <note>", "one <CPU>", "After epoch 1 of 3", "numpy"):
        assert text in words, text
    assert "Test" not in words
    assert page.tags.count("img") == 4 + 1 + 2 * 2  # charts, one class with objects, two windows
    run_epoch(record, job, 2, loss=2.0)
    assert "After epoch 2 of 3" in read_page(job)[1]
    assert not list(tmp_path.glob("*.part"))


def test_charts_show_the_names_of_classes_as_they_are():
    def chart(*classes):
        row = {"epoch": "1"} | {f"mask_AP_{name}": "0.5" for name in classes}
        return class_chart([row], "mask_AP", "mask AP", classes)

    assert chart("cost_$^$", "price $5").startswith(b"\x89PNG")  # as a formula, an error
    assert chart("$a$") != chart("$b$") and chart("$a$") != chart("a")
    assert chart("_roof") != chart("_barn")  # not hidden from the legend


def test_a_resumed_run_goes_on_in_the_same_files(dataset, tmp_path):
    job = make_job(dataset, tmp_path)
    first = RunRecord(job, DetectionScorer(job, detector), {})
    run_epoch(first, job, 1)
    run_epoch(first, job, 2)
    resumed = replace(job, epoch=1)
    run_epoch(RunRecord(resumed, DetectionScorer(resumed, detector), {}), resumed, 2)
    assert "After epoch 2 of 3" in read_page(job)[1]
    assert len(list(job.settings.events_path.iterdir())) == 2
    run_epoch(RunRecord(job, DetectionScorer(job, detector), {}), job, 1)
    assert len(list(job.settings.events_path.iterdir())) == 1  # a run that begins anew


def test_images_left_out_are_scored_as_a_whole(dataset, tmp_path):
    job = make_job(dataset, tmp_path)
    record = RunRecord(job, DetectionScorer(job, detector), {})
    run_epoch(record, job, 1)
    outcome = record.test("mask_rcnn_test_best.h5")
    content = json.loads(job.settings.test_path.read_text())
    assert content["images"] == ["s4/s4.png"]
    assert content["all"]["mask_AP50"] == pytest.approx(0.5)
    assert content["classes"]["house"]["objects"] == 1
    assert content["classes"]["house"]["mask_AP50"] == pytest.approx(1)
    assert content["classes"]["<b>tree</b>"] == {"objects": 1} | dict.fromkeys(
        [f"{kind}_{name}" for kind in ("box", "mask") for name in ("AP", "AP50", "AP75", "AR")], 0.0
    )
    assert "AP50 0.500" in outcome.text
    words = read_page(job)[1]
    assert "Test: images that were left out" in words and "s4/s4.png" in words


def test_without_validation_images_there_is_a_report_without_scores(dataset, tmp_path):
    data, _ = dataset
    job = make_job((replace(data, validation=()), ()), tmp_path)
    record = RunRecord(job, DetectionScorer(job, detector), {})
    assert record.score() == {}
    row = {"epoch": 1, "stage": "all", "learning_rate": 1e-4, "seconds": 3.0, "loss": 1.0, "a_loss": 1.0}
    log.write_row(job.settings.table_path, row)
    record.write(row)
    page, words = read_page(job)
    assert page.tags.count("img") == 2 and "mask AP" not in words


def test_tensorboard_reads_what_is_written(tmp_path):
    tensorflow = pytest.importorskip("tensorflow")
    events = EventFile(tmp_path)
    events.add(1, {"loss/loss": 1.5, "scores/mask_AP": 0.25, "scores/nothing": float("nan")})
    events.add(300, {"loss/loss": 1e-7})
    (path,) = tmp_path.iterdir()
    found = [
        (event.step, value.tag, value.simple_value)
        for event in tensorflow.compat.v1.train.summary_iterator(str(path))  # checks the checksums
        for value in event.summary.value
    ]
    assert found == [
        (1, "loss/loss", 1.5),
        (1, "scores/mask_AP", 0.25),
        (300, "loss/loss", pytest.approx(1e-7)),
    ]
    resumed = EventFile(tmp_path, first_step=5)
    resumed.add(5, {"loss/loss": 2.0})
    (second,) = set(tmp_path.iterdir()) - {path}
    started = [
        event.step
        for event in tensorflow.compat.v1.train.summary_iterator(str(second))
        if event.HasField("session_log") and event.session_log.status == event.session_log.START
    ]
    assert started == [5]


def test_pictures_show_bytes_as_they_are_and_stretch_the_rest():
    pixels = np.arange(300, dtype=np.float32).reshape(10, 10, 3)[..., [0, 1, 2, 0]] / 2
    np.testing.assert_array_equal(stretch(pixels, "uint8"), np.uint8(pixels[..., :3] + 0.5))
    shown = stretch(pixels * 100 + 300, "uint16")
    assert shown.shape == (10, 10, 3) and shown.min() == 0 and shown.max() == 255
    grey = stretch(pixels[..., :2], "float32")
    assert grey.shape == (10, 10, 3) and (grey[..., 0] == grey[..., 2]).all()
    assert stretch(np.full((4, 4, 1), np.nan, np.float32), "float32").max() == 0


def test_multi_band_scenes_have_pictures(tmp_path):
    for number in range(2):
        image = noise(48, 64, 4, seed=number).astype(np.uint16) * 40
        write_raster(tmp_path / f"s{number}" / f"s{number}.tif", image)
        write_raster(tmp_path / f"s{number}" / f"s{number}-house-1.png", rectangle(48, 64, BOX))
    found = open_dataset(tmp_path, ["house"])
    data = replace(found, images=found.images[:1], validation=found.images[1:])
    config = MaskRCNNConfig(
        classes=("house",), image_shape=(64, 64), band_mean=(5000.0,) * 4, band_scale=(2000.0,) * 4
    )
    job = make_job((data, ()), tmp_path / "logs", config=config)
    job.settings.logs.mkdir()
    run_epoch(RunRecord(job, DetectionScorer(job, detector), {}), job, 1)
    page, words = read_page(job)
    assert page.tags.count("img") == 3 + 1 + 2
    assert "1 object, 0 missed; 1 detection, 0 wrong" in words
