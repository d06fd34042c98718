"""The training of one process, alone or as one of several: no matter who started it, or with what options."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace

from ann.devices.place import Place
from ann.evaluation.report import count
from ann.packages import configured_backend, import_keras
from ann.training.job import Job, Reporter, Silence, TrainingResult
from ann.weights import load_weights, read_model


def train(job: Job, reporter: Reporter) -> TrainingResult:
    """Train on `job.settings.device_count` devices of this machine.

    Raises:
        AnnError: there are fewer devices, or the training failed.
    """
    count = job.settings.device_count
    if count > 1 and configured_backend() == "torch":  # the others import Keras, not this process
        from ann.devices.available import check_device_count
        from ann.training.processes import train_in_processes

        check_device_count(count)
        if job.imagenet:  # once, before all processes want them
            from ann.backbones import imagenet

            imagenet.fetch(job.config.backbone_name)
        return train_in_processes(job, reporter)
    return train_worker(job, reporter, Place())


def train_worker(job: Job, reporter: Reporter, place: Place) -> TrainingResult:
    """Train as the process at `place`; all processes are given the same job. Imports Keras.

    Only the first process writes files and reports.

    Raises:
        AnnError: there are fewer devices than this process should use, or the training failed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import_keras()
    import keras

    from ann.backbones import imagenet
    from ann.devices.available import missing_gpu
    from ann.devices.precision import choose_precision, use_precision
    from ann.training.loop import run_epochs
    from ann.training.record import RunRecord
    from ann.training.replicas import use_devices
    from ann.training.seeds import seed_everything

    task, config, settings = job.task, job.config, job.settings
    if not place.first:
        reporter = Silence()
    with ExitStack() as stack:
        devices = stack.enter_context(use_devices(settings.device_count, place))
        precision = choose_precision(settings.precision)  # asks the devices, once they are set up
        stack.enter_context(use_precision(precision))
        seed_everything(settings.seed)
        network = task.build_network(config)
        height, width = config.image_shape
        backend = f"Keras {keras.version()} on {keras.backend.backend()}, {precision}"
        facts = {
            "Model": f"{config.backbone}, {network.count_params():,} weights, "
            f"input of {height} x {width} pixels in {config.bands} bands",
            "Devices": f"{devices.names} ({backend}), {settings.batch_size} images per step",
        }
        for name, value in facts.items():
            reporter.message(f"{name}: {value}")
        if missing_gpu():
            reporter.message(missing_gpu())
        if job.imagenet:
            reporter.message(
                imagenet.transfer(imagenet.fetch(config.backbone_name), task.backbone(network), config)
            )
        if job.initial:
            report = load_weights(task.layout(network), job.initial, skip_heads=job.skip_heads)
            reporter.message(f"{job.initial.path}: {report.summary()}")
        if job.epoch:
            reporter.message(f"Going on after epoch {job.epoch}")
        feed = task.make_feed(job, place.share(settings.batch_size))
        scored, update = devices.local(lambda: task.build_network(config), network)
        record = RunRecord(job, task.make_scorer(job, scored, devices.sharing), facts, writes=devices.first)

        def score() -> dict[str, float]:
            update()
            return record.score()

        training_class, arguments = task.training_model(network, config)
        result = run_epochs(
            task,
            devices.training_model(training_class, *arguments),
            config,
            feed,
            settings,
            reporter,
            first_epoch=job.epoch + 1,
            score=score,
            record=record.write,
            devices=devices,
        )
        if job.held_out and result.last_epoch and not result.interrupted:
            devices.agree(0)  # by then the first process has written the model
            try:
                test_model(job, result.last_epoch, scored, record, reporter)
            except KeyboardInterrupt:
                return replace(result, interrupted=True)
        return result


def test_model(job: Job, last_epoch: int, network, record, reporter) -> None:
    """Score the best model of a finished run, or the last one, on the images that were left out."""
    path = job.settings.best_path
    if not path.exists():  # of a run that began with a version that kept none
        path = job.settings.model_path(last_epoch)
    load_weights(job.task.layout(network), read_model(path, job.task.kind))
    reporter.message(f"Testing {path} on the {count(len(job.held_out), 'image')} left out...")
    outcome = record.test(path.name)
    reporter.message(f"Scores on the images left out: {outcome.text}")
