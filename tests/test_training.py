"""The training run: its schedule, its records, and that it resumes as if it had not been interrupted."""

from __future__ import annotations

import csv
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from ann.data.dataset import Dataset, LabelledImage
from ann.data.readers.formats import open_dataset
from ann.data.split import split_dataset
from ann.devices.available import check_device_count, list_devices
from ann.devices.precision import cpu_has_bfloat16, use_precision
from ann.errors import AnnError, DatasetError, DeviceError
from ann.training import log, loop, preparation, schedule, state
from ann.training.image_size import ImageSize, network_input_shape
from ann.training.job import Job
from ann.training.loop import run_epochs
from ann.training.schedule import TimeBudget, choose_stage, learning_rate_share, plan_stages
from ann.training.seeds import seed_everything
from ann.training.settings import TrainingSettings
from ann.weights import load_weights
from drawing import CLASSES, draw_scene, write_training_directory
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.model_file import KIND, read_model
from maskrcnn.network.model import build_network
from maskrcnn.network.training import TrainingNetwork
from maskrcnn.preparation import anchor_scales, make_feed, summary
from maskrcnn.task import TASK
from model_files import weights_of
from tiny_network import TinyTraining
from tiny_task import TASK as TINY_TASK

pytestmark = pytest.mark.usefixtures("quick_graphs")


class Quiet:
    def __init__(self):
        self.texts, self.percents = [], []

    def message(self, text):
        self.texts.append(text)

    def percent(self, done, total):
        self.percents.append((done, total))


class Impatient(Quiet):
    """Presses Ctrl-C in the middle of the second epoch."""

    def percent(self, done, total):
        if done == 3:
            raise KeyboardInterrupt


class Copier(Quiet):
    """Copies the files of a run in the middle of the second epoch."""

    def __init__(self, logs, copy):
        super().__init__()
        self.logs, self.copy = logs, copy

    def percent(self, done, total):
        super().percent(done, total)
        if done == 3:
            shutil.copytree(self.logs, self.copy)


class Clock(Quiet):
    """Time that passes by a second with each step of a training, and not otherwise."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.now = 0.0
        for module in (loop, schedule):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now))

    def percent(self, done, total):
        super().percent(done, total)
        self.now += 1


@pytest.fixture
def deterministic():
    """Sums of many numbers come out the same in each run, which TensorFlow does not promise otherwise."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for number in range(3):
        scene = draw_scene(height=96, width=96, objects=5, seed=number)
        write_training_directory(folder, f"scene_{number}", scene)
    return split_dataset(open_dataset(folder, CLASSES), 0.3)


def small_config(**changes):
    values = {
        "classes": CLASSES,
        "backbone": "resnet18",
        "image_shape": (64, 64),
        "band_mean": (120.0, 110.0, 100.0),
        "band_scale": (50.0, 50.0, 50.0),
        "anchor_scales": (16, 32, 64, 128, 256),
        "max_instances": 10,
        "rois_per_image": 8,
        "proposal_candidates": 100,
        "proposals_training": 20,
    }
    return MaskRCNNConfig(**values | changes)


def run(dataset, logs, *, task=TINY_TASK, first_epoch=1, initial=None, reporter=None, score=None, **changes):
    seed_everything(1)
    config = small_config()
    values = {"name": "test", "epochs": 2, "steps_per_epoch": 2, "validation_steps": 1}
    settings = TrainingSettings(logs=logs, **values | changes)
    network = task.build_network(config)
    if initial:
        load_weights(task.layout(network), read_model(initial))
    size = ImageSize(64, 64, False)
    feed = make_feed(
        Job(task=task, dataset=dataset, config=config, size=size, settings=settings), slice(None)
    )
    training_class, arguments = task.training_model(network, config)
    model = training_class(*arguments)
    result = run_epochs(
        task, model, config, feed, settings, reporter or Quiet(), first_epoch=first_epoch, score=score
    )
    return result, settings


def test_stages_cover_all_epochs_once():
    for epochs in (1, 2, 3, 7, 20, 200):
        for staged in (False, True):
            stages = plan_stages(epochs, staged=staged)
            trained = [epoch for stage in stages for epoch in range(stage.first, stage.last + 1)]
            assert trained == list(range(1, epochs + 1))


def test_initial_weights_are_adapted_from_the_heads_downwards():
    assert [stage.layers for stage in plan_stages(200, staged=True)] == ["heads", "4+", "all"]
    assert [stage.last for stage in plan_stages(200, staged=True)] == [28, 85, 200]
    assert [stage.layers for stage in plan_stages(200, staged=False)] == ["all"]


def test_stages_are_shares_of_the_time_where_that_is_limited():
    stages = plan_stages(200, staged=True)
    stage, seen = None, []
    for epoch, time_used in enumerate((0.0, 0.1, 0.15, 0.42, 0.43, 0.9), 1):
        stage = choose_stage(stages, epoch, time_used, stage)
        seen.append((stage.layers, stage.first))
    assert seen == [("heads", 1), ("heads", 1), ("4+", 3), ("4+", 3), ("all", 5), ("all", 5)]
    assert choose_stage(stages, 2, 0.5, stages[0]).layers == "all"  # a stage whose time is over is left out
    # epochs count where they are ahead of the time, and nothing goes back, however many epochs are asked for
    assert choose_stage(stages, 29, 0.01, stages[0]).layers == "4+"
    assert choose_stage(stages, 4, 0.01, stages[2]).layers == "all"


def test_the_learning_rate_of_each_stage_follows_its_share_of_the_time(tmp_path):
    settings = TrainingSettings(name="test", logs=tmp_path, staged=True, steps_per_epoch=10_000)
    heads, upper, whole = plan_stages(200, staged=True)
    for stage in (heads, upper, whole):
        peak = settings.peak_learning_rate * stage.learning_rate_factor
        middle, end = (stage.begin + share * (stage.end - stage.begin) for share in (0.5, 1))
        rates = [loop.learning_rate(settings, stage, stage.first, 50, time) for time in (middle, end)]
        assert rates == pytest.approx([0.51 * peak, 0.02 * peak])


def test_time_goes_on_after_an_interruption_and_begins_anew_once_it_is_used_up():
    heads, _, whole = plan_stages(7, staged=True)
    assert TimeBudget.resume(10, 150, heads).used() == pytest.approx(0.25, abs=0.01)
    assert TimeBudget.resume(10, 150, heads).seconds_left() == pytest.approx(450, abs=1)
    anew = TimeBudget.resume(10, 0, whole)
    assert anew.seconds_left() == pytest.approx(600, abs=1) and anew.used() == pytest.approx(3 / 7, abs=0.01)
    assert TimeBudget(seconds=60, started=time.monotonic() - 61).seconds_used() == 0
    assert TimeBudget.resume(0, 99, whole).used() == 0


def test_a_run_keeps_model_row_and_curve_of_each_epoch_and_resumes_exactly(dataset, tmp_path, deterministic):
    (tmp_path / "whole").mkdir()
    reporter = Copier(tmp_path / "whole", tmp_path / "parts")
    result, whole = run(dataset, tmp_path / "whole", task=TASK, reporter=reporter)
    assert (result.last_epoch, result.interrupted) == (2, False)
    assert reporter.percents == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert read_model(whole.model_path(2)).config == small_config()
    with whole.table_path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(np.isfinite(float(row["val_mrcnn_mask_loss"])) for row in rows)
    assert whole.curve_path.read_bytes().startswith(b"\x89PNG")

    # what there was in the middle of the second epoch suffices to go on
    _, parts = run(
        dataset,
        tmp_path / "parts",
        task=TASK,
        first_epoch=2,
        initial=tmp_path / "parts" / whole.state_path.name,
        validation_steps=0,
    )
    expected, received = weights_of(whole.model_path(2)), weights_of(parts.model_path(2))
    assert expected.keys() == received.keys()
    before = weights_of(whole.model_path(1))
    assert any(not np.allclose(before[name], expected[name], atol=1e-5) for name in expected)
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_interrupted_run_keeps_the_epochs_before(dataset, tmp_path):
    result, settings = run(dataset, tmp_path, reporter=Impatient())
    assert (result.last_epoch, result.interrupted) == (1, True)
    assert settings.model_path(1).exists() and not settings.model_path(2).exists()
    assert preparation.epoch_to_resume(settings, settings.model_path(1), KIND) == 1


def test_the_run_ends_when_no_model_has_been_better_for_a_while(dataset, tmp_path):
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.9])
    result, settings = run(
        dataset, tmp_path, epochs=5, steps_per_epoch=1, patience=2, score=lambda: {"mask_AP": next(scores)}
    )
    assert (result.last_epoch, result.best_epoch) == (4, 2)
    assert "since 2" in result.ended_early
    expected, received = weights_of(settings.model_path(2)), weights_of(settings.best_path)
    for name, values in expected.items():
        np.testing.assert_array_equal(values, received[name], err_msg=name)
    assert read_model(settings.best_path).extra["mask_AP"] == 0.5


def test_a_run_of_limited_time_trains_all_stages_and_goes_on_where_it_was(dataset, tmp_path, monkeypatch):
    reporter = Clock(monkeypatch)
    options = {"epochs": 50, "steps_per_epoch": 10_000, "minutes": 0.5, "staged": True}
    _, settings = run(dataset, tmp_path, reporter=reporter, **options)
    rows = log.read_rows(settings.table_path)
    steps = {"heads": 0, "4+": 0, "all": 0}
    for row in rows:
        steps[row["stage"]] += int(row["steps"])
        assert int(row["steps"]) <= 4  # a tenth, and the step that is being made then
    assert list(steps.values()) == [5, 8, 17]  # a seventh, three sevenths, all of 30 seconds
    assert reporter.percents[-1][0] > 0.5 * reporter.percents[-1][1]
    told = [text for text in reporter.texts if " left" in text and "not known" not in text]
    assert told and not any(" h " in text for text in told)  # 500,000 steps would take hours
    progress = state.read_progress(settings.state_path, KIND)
    assert progress.batches == sum(int(row["steps"]) for row in rows)
    first = 1 + [row["stage"] for row in rows].index("all")
    assert (progress.layers, progress.stage_first, progress.seconds) == ("all", first, 0)
    options |= {"first_epoch": len(rows) + 1, "epochs": len(rows) + 1, "steps_per_epoch": 1}
    run(dataset, tmp_path, initial=settings.state_path, **options)
    assert log.read_rows(settings.table_path)[-1]["stage"] == "all"
    assert state.read_progress(settings.state_path, KIND).batches == progress.batches + 1


def test_only_the_last_stage_is_ended_early(dataset, tmp_path):
    scores = iter([0.9] + [0.1] * 20)
    result, settings = run(
        dataset,
        tmp_path,
        epochs=14,
        steps_per_epoch=1,
        validation_steps=0,
        patience=2,
        staged=True,
        score=lambda: {"mask_AP": next(scores)},
    )
    stages = [row["stage"] for row in log.read_rows(settings.table_path)]
    assert stages == ["heads"] * 2 + ["4+"] * 4 + ["all"] * 2
    assert result.best_epoch == 1 and "since 1" in result.ended_early


def test_losses_are_those_of_the_epoch_and_of_validation_each_by_itself(dataset, tmp_path):
    """Keras below 3.15 goes on with its means over all batches, those of validation too."""
    seed_everything(1)
    config, size = small_config(), ImageSize(64, 64, False)
    settings = TrainingSettings(
        name="test", logs=tmp_path, steps_per_epoch=2, epochs=2, validation_steps=1, learning_rate=1e-12
    )
    model = TinyTraining(TINY_TASK.build_network(config))
    feed = make_feed(
        Job(task=TINY_TASK, dataset=dataset, config=config, size=size, settings=settings), slice(None)
    )

    def loss_of(batch):
        return float(sum(model.loss_values(model(batch)).values()))

    expected = [loss_of(feed.training_batch(step)) for step in range(4)]
    validation = loss_of(feed.validation_batch(0))
    assert abs(validation - np.mean(expected)) > 0.01  # else nothing could be told apart
    run_epochs(TINY_TASK, model, config, feed, settings, Quiet())
    first, second = log.read_rows(settings.table_path)
    assert float(first["loss"]) == pytest.approx(np.mean(expected[:2]), rel=1e-3)
    assert float(second["loss"]) == pytest.approx(np.mean(expected[2:]), rel=1e-3)
    assert [float(row["val_loss"]) for row in (first, second)] == pytest.approx([validation] * 2, rel=1e-3)


def test_the_run_ends_in_time_and_keeps_the_epoch_that_was_cut_short(dataset, tmp_path):
    result, settings = run(dataset, tmp_path, epochs=1, steps_per_epoch=10_000, minutes=0.002)
    assert result.last_epoch == 1 and not result.interrupted
    assert "minutes are over" in result.ended_early
    (row,) = log.read_rows(settings.table_path)
    assert int(row["steps"]) < 100 and np.isfinite(float(row["val_loss"]))
    assert settings.model_path(1).exists() and settings.best_path.exists()


def test_the_learning_rate_rises_and_falls():
    shares = [learning_rate_share(step, 1000) for step in range(1000)]
    assert shares[0] == pytest.approx(0.01, rel=0.01)
    assert np.argmax(shares) == 99 and max(shares) > 0.97
    assert np.all(np.diff(shares[100:]) < 0)
    assert shares[-1] == pytest.approx(0.02, rel=0.01)
    assert learning_rate_share(500, 1000, time_used=1.0) == pytest.approx(0.02)


def test_without_scores_the_best_epoch_has_the_lowest_validation_loss(tmp_path):
    table = tmp_path / "log.csv"
    for epoch, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        log.write_row(table, {"epoch": epoch, "loss": 9.0 - epoch, "val_loss": loss})
    assert log.best_epoch(table, "mask_AP") == 2
    for epoch, score in ((4, 0.0), (5, 0.3), (6, 0.3), (7, float("nan"))):
        log.write_row(table, {"epoch": epoch, "loss": 1.0, "val_loss": 2.0 + (epoch == 5), "mask_AP": score})
    assert log.best_epoch(table, "mask_AP") == 6


def test_in_bfloat16_weights_and_losses_stay_float32(dataset, tmp_path):
    with use_precision("bfloat16"):
        network = build_network(small_config())
    assert network.backbone.layers[2].compute_dtype == "bfloat16"
    assert {variable.dtype for variable in network.trainable_variables} == {"float32"}
    assert keras.config.dtype_policy().name == "float32"
    settings = TrainingSettings(name="test", logs=tmp_path)
    size = ImageSize(64, 64, False)
    config = small_config()
    feed = make_feed(
        Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings), slice(None)
    )
    losses = TrainingNetwork(network)(feed.training_batch(0), training=True)
    assert {keras.backend.standardize_dtype(total.dtype) for total, _ in losses.values()} == {"float32"}
    assert all(np.isfinite(float(total)) for total, _ in losses.values())


def test_processors_made_for_bfloat16_are_known_by_their_flags(tmp_path):
    description = tmp_path / "cpuinfo"
    for flags, expected in (("fma avx2", False), ("avx512_bf16 fma", True), ("amx_bf16", True)):
        description.write_text(f"processor : 0\nflags : {flags}\n")
        assert cpu_has_bfloat16(description) is expected
    assert not cpu_has_bfloat16(tmp_path / "missing")


def test_a_run_goes_on_only_from_its_own_last_model(dataset, tmp_path):
    settings = TrainingSettings(name="test", logs=tmp_path, epochs=5)
    assert preparation.epoch_to_resume(settings, None, KIND) == 0
    assert preparation.epoch_to_resume(settings, tmp_path / "mask_rcnn_test_3.h5", KIND) == 0


def test_rows_of_an_epoch_that_is_trained_again_are_replaced(tmp_path):
    table = tmp_path / "log.csv"
    for epoch, loss in ((1, 3.0), (2, 2.0), (3, 1.0), (2, 1.5)):
        log.write_row(table, {"epoch": epoch, "loss": loss})
    assert [(row["epoch"], row["loss"]) for row in log.read_rows(table)] == [("1", "3"), ("2", "1.5")]


def test_noise_and_samples_do_not_depend_on_the_batch_size(dataset, tmp_path):
    config, size = small_config(), ImageSize(64, 64, False)

    def rows(batch_size, steps):
        settings = TrainingSettings(name="test", logs=tmp_path, images_per_device=batch_size)
        feed = make_feed(
            Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings), slice(None)
        )
        batches = [feed.training_batch(step) for step in range(steps)]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    single, paired = rows(1, 4), rows(2, 2)
    for name, values in single.items():
        np.testing.assert_array_equal(values, paired[name], err_msg=name)


@pytest.mark.parametrize(
    ("low", "high", "text"), [(100, 256, "100"), (64, 200, "192 or 256"), (256, 128, "larger")]
)
def test_sides_that_the_network_cannot_take_are_refused(low, high, text):
    with pytest.raises(AnnError, match=text):
        ImageSize(low, high, False)


def test_without_resizing_images_must_have_sides_that_the_network_takes(dataset):
    with pytest.raises(DatasetError, match="96 x 96"):
        network_input_shape(dataset.images, ImageSize(64, 64, True))


def square_objects(*sides, image_side=1024):
    """An image with an object of each side, as far as anchors need to know it."""
    boxes = np.array([[0, 0, side, side] for side in sides], np.int32)
    return LabelledImage(
        name="s",
        path="s.tif",
        height=image_side,
        width=image_side,
        bands=3,
        dtype="uint8",
        instance_counts=(len(boxes),),
        boxes=boxes.reshape(-1, 4),
        class_ids=np.ones(len(boxes), np.int32),
        source="s.tif",
        pixel_size=None,
        read=None,
    )


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        ([], (32, 64, 128, 256, 512)),
        ([40] * 20, (32, 64, 128, 256, 512)),
        ([20] * 20, (16, 32, 64, 128, 256)),
        ([3] * 20, (8, 16, 32, 64, 128)),
        ([20] * 99 + [1000], (16, 32, 64, 128, 256)),  # one of a hundred
        ([10] * 10 + [400] * 10, (10, 25, 63, 159, 400)),  # from 10 to 400, by the fourth root of 40
        ([100] * 10 + [900] * 10, (100, 200, 400, 800, 1600)),
    ],
)
def test_anchors_follow_the_smallest_and_the_largest_objects(sides, expected):
    assert anchor_scales([square_objects(*sides)], (1024, 1024), 0) == expected


def test_anchors_suit_objects_as_the_network_sees_them():
    small = square_objects(*[10] * 20, image_side=256)
    assert anchor_scales([small], (1024, 1024), 0)[0] == 8
    assert anchor_scales([small], (1024, 1024), 1024)[0] == 32  # enlarged four times
    # of 2000 pixels no window shows more than 256
    assert max(anchor_scales([square_objects(*[8, 2000] * 9)], (256, 256), 0)) == 256


@pytest.mark.parametrize("mean", [-1e36, float("nan")])
def test_statistics_of_shards_that_counted_missing_data_are_refused(mean):
    dataset = Dataset(
        classes=("tree",), images=(square_objects(9),), band_statistics=((0.5, mean), (0.2, 0.2))
    )
    with pytest.raises(DatasetError, match=r"band 2 has the mean .* write the shards again"):
        preparation.band_scaling(dataset)


def test_regions_to_ignore_do_not_move_the_anchors():
    image = square_objects(*[40] * 20, *[4] * 20)
    image.class_ids[20:] = -1
    assert anchor_scales([image], (1024, 1024), 0)[0] == 32


def job_of(dataset, config, size):
    settings = TrainingSettings(name="test", logs=Path())
    return Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings)


def test_more_objects_than_places_are_told_at_the_start():
    dataset = Dataset(classes=("tree",), images=(square_objects(*[8] * 50),))
    size = ImageSize(64, 64, False)
    places = small_config(max_instances=40)
    text = summary(job_of(dataset, places, size))
    assert "Up to 50 instances are in view at a time, but 40 at most" in text
    assert "in view" not in summary(job_of(dataset, small_config(max_instances=50), size))


def test_more_devices_than_there_are_is_an_error_that_lists_them():
    with pytest.raises(DeviceError, match=list_devices()[0].split(":")[0]):
        check_device_count(len(list_devices()) + 1)


@pytest.mark.parametrize("name", ["", "a/b", "../up", "..", "."])
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(AnnError):
        preparation.check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("mask_rcnn_town[1]_1.h5", "mask_rcnn_town[1]_12.h5", "mask_rcnn_town[1]_best.h5"),
        *("mask_rcnn_town[1].state.h5", "town[1].csv", "town[1].html", "town[1]_test.json"),
        *("tensorboard/town[1]/events.out.tfevents.1",),
    ],
)
def test_files_that_a_run_would_write_are_not_overwritten_unasked(tmp_path, name):
    settings = TrainingSettings(name="town[1]", logs=tmp_path)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(AnnError, match=r"town\[1\].*--overwrite"):
        preparation.prepare_logs(settings, overwrite=False, resuming=False)
    preparation.prepare_logs(settings, overwrite=True, resuming=False)
    preparation.prepare_logs(settings, overwrite=False, resuming=True)


def test_files_of_other_names_are_no_hindrance(tmp_path):
    for name in ("town_north", "town1", "town[1]", "TOWN.", "a_town", "town_1"):
        for path in (f"mask_rcnn_{name}_1.h5", f"mask_rcnn_{name}_best.h5", f"{name}.csv"):
            (tmp_path / path).touch()
    for name in ("town", "town?", "*", "town[1-9]", "town_"):
        settings = TrainingSettings(name=name, logs=tmp_path)
        preparation.prepare_logs(settings, overwrite=False, resuming=False)


def test_a_name_too_long_for_the_files_is_said_before_the_work(tmp_path):
    settings = TrainingSettings(name="n" * 235, logs=tmp_path, epochs=1000)
    with pytest.raises(AnnError, match="too long"):
        preparation.prepare_logs(settings, overwrite=False, resuming=False)
    assert not list(tmp_path.iterdir())


def test_models_of_an_earlier_run_are_not_overwritten_unasked(tmp_path):
    settings = TrainingSettings(name="test", logs=tmp_path)
    preparation.prepare_logs(settings, overwrite=False, resuming=False)
    settings.model_path(1).touch()
    with pytest.raises(AnnError, match="--overwrite"):
        preparation.prepare_logs(settings, overwrite=False, resuming=False)
    preparation.prepare_logs(settings, overwrite=True, resuming=False)
    preparation.prepare_logs(settings, overwrite=False, resuming=True)
