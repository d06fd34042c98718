#!/usr/bin/env python3
"""Train our U-Net over ResNet18, or that of segmentation-models-pytorch, on the same batches; score both.

usage: smp_comparison.py ours|smp TRAINING TEST --classes CLASSES [options]

TRAINING and TEST: directories of pairs of an image and a label raster. `smp` needs torch and
segmentation-models-pytorch; the library needs its own backend in either case.

The same for both: samples (crops, augmentation, order), batch size, steps, losses (cross entropy and Dice),
optimiser (AdamW, clipped gradients, warm-up, cosine), random first weights, bfloat16 with --precision, and
the scores: whole test images in tiles, as i.ann.unet.predict cuts them. A row is added to
docs/benchmarks/smp.csv.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import RESULTS, Clock, Reporter, add_rows, describe_unet

from ann.data.outlines.label_values import LabelValues
from ann.data.readers.pairs import find_pairs, read_pairs
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.settings import TrainingSettings
from unet.config import stride_of
from unet.scorer import CellScorer, Network
from unet.task import TASK

BACKBONE = "resnet18"
TABLE = RESULTS / "smp.csv"
SCORES = ("IoU", "Dice", "relaxed_F1", "accuracy")
COLUMNS = ("data", "program", "weights", "steps", "minutes", "cpu_minutes", "precision", *SCORES)


def make_job(arguments, folder: Path) -> Job:
    """The run of both programs: one epoch of so many steps."""
    classes = tuple(arguments.classes.split(","))
    training, test = (
        read_pairs(path, find_pairs(path), classes, LabelValues(ids={}))
        for path in (arguments.training, arguments.test)
    )
    size = ImageSize(0, arguments.size, False, multiple=stride_of(f"unet_{BACKBONE}"))
    config = describe_unet(training, size, architecture=f"unet_{BACKBONE}")
    settings = TrainingSettings(
        name="comparison",
        prefix=TASK.prefix,
        logs=folder,
        epochs=1,
        steps_per_epoch=arguments.steps,
        validation_steps=0,
        images_per_device=arguments.batch,
        precision=arguments.precision,
        train_batch_norm=True,
    )
    return Job(task=TASK, dataset=training, config=config, size=size, settings=settings, held_out=test.images)


def train_ours(job: Job, clock: Clock) -> tuple[Network, int]:
    """Train with the module's own loop: the network's probabilities, and how many weights it has."""
    from ann.devices.precision import choose_precision, use_precision
    from ann.training.loop import run_epochs
    from ann.training.seeds import seed_everything
    from unet.network.training import UNetTraining
    from unet.prediction import probability_network

    seed_everything(0)
    with use_precision(choose_precision(job.settings.precision)):
        network = TASK.build_network(job.config)
        TASK.set_trainable(network, "all", True)
        feed = TASK.make_feed(job, slice(None))
        model = UNetTraining(network, job.config)
        run_epochs(TASK, model, job.config, feed, job.settings, Reporter(clock, sys.stderr))
    return probability_network(network), network.count_params()


def train_smp(job: Job, clock: Clock) -> tuple[Network, int]:
    """As `train_ours`, with the other program's network in a plain loop."""
    import segmentation_models_pytorch as smp
    import torch
    from torch.nn import functional

    from ann.data.samples.prefetch import Prefetcher
    from ann.training.schedule import learning_rate_share

    settings, count = job.settings, len(job.config.classes)
    if count != 1:
        sys.exit("The comparison is made with one class")
    torch.manual_seed(0)
    model = smp.Unet(BACKBONE, encoder_weights=None, in_channels=job.config.bands, classes=count)
    model = model.to(memory_format=torch.channels_last)
    print(f"segmentation-models-pytorch {smp.__version__}, torch {torch.__version__}", file=sys.stderr)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    lower = torch.autocast("cpu", torch.bfloat16, enabled=settings.precision != "float32")

    def logits(images: np.ndarray):
        with lower:
            return model(torch.from_numpy(images).permute(0, 3, 1, 2))[:, 0].float()

    with Prefetcher(TASK.make_feed(job, slice(None)).training_batch, workers=settings.workers) as batches:
        for step in range(settings.steps_per_epoch):
            for group in optimizer.param_groups:
                rate = learning_rate_share(step, settings.steps_per_epoch)
                group["lr"] = settings.learning_rate * rate
            batch = next(batches)
            labels = torch.from_numpy(batch["labels"].astype(np.float32))
            known, truth = (labels >= 0).float(), (labels == 1).float()
            found = logits(batch["images"])
            entropy = functional.binary_cross_entropy_with_logits(found, truth, reduction="none")
            shown, right = torch.sigmoid(found) * known, truth * known
            overlap = (2 * (shown * right).sum((1, 2)) + 1) / (shown.sum((1, 2)) + right.sum((1, 2)) + 1)
            loss = (entropy * known).sum() / known.sum() + (1 - overlap).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            clock.tick()
    model.eval()

    def probabilities(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return torch.sigmoid(logits(images))[..., None].numpy()

    return probabilities, sum(parameter.numel() for parameter in model.parameters())


def score(job: Job, network: Network) -> dict[str, float]:
    """Scores on the whole test images."""
    from ann.inference.field_of_view import reach
    from unet.tiling import cell_settings

    largest = max(max(image.height, image.width) for image in job.held_out)
    seen = reach(TASK.build_network(job.config), job.config.size_multiple)
    scorer = CellScorer(job, network, cell_settings(job.config, seen, largest=largest))
    return scorer.test("").content["all"]


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("program", choices=("ours", "smp"))
    parser.add_argument("training")
    parser.add_argument("test")
    parser.add_argument("--classes", required=True)
    parser.add_argument("--steps", type=int, default=277)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    arguments = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(arguments, Path(folder))
        train = train_ours if arguments.program == "ours" else train_smp
        network, weights = train(job, clock)
        scores = score(job, network)
    elapsed, processor = clock.steps()
    row = {
        "data": Path(arguments.training).name,
        "program": arguments.program,
        "weights": weights,
        "steps": arguments.steps,
        "minutes": round(elapsed.sum() / 60, 2),
        "cpu_minutes": round(processor.sum() / 60, 2),
        "precision": arguments.precision,
        **{name: round(scores[name], 4) for name in SCORES},
    }
    add_rows(TABLE, [row], COLUMNS)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
