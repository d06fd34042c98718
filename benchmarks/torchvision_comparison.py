#!/usr/bin/env python3
"""Train this network, or torchvision's `maskrcnn_resnet50_fpn`, from scratch on the same batches; score both.

usage: torchvision_comparison.py DATASET ANNOTATIONS [options]

DATASET is a COCO dataset with a validation part, ANNOTATIONS the COCO file of that part. Needs pycocotools,
and torchvision and torch with `--program torchvision`. Prints losses, seconds per step and COCO AP as JSON.

The same for both: samples (crops, augmentation, order), batch size, steps, anchors, regions sampled per image
and the share of objects among them, optimiser (AdamW, clipped gradients, warm-up, cosine), detection on whole
images with scores above 0.05, scoring. What is torchvision's own: backbone and its batch normalisation
(trained, since it starts from scratch), two-layer box head, ROI align, losses, thresholds. Objects that
this network ignores because a crop's border cuts them are left out there.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import Clock, Reporter, describe_network, peak_megabytes
from torchvision_network import build_torchvision

from ann.data.readers.formats import open_dataset
from ann.data.samples.scaling import scale_pixels
from ann.training.image_size import ImageSize
from ann.training.job import Job
from ann.training.settings import TrainingSettings
from maskrcnn.preparation import make_feed
from maskrcnn.task import TASK

LOWEST_SCORE = 0.05  # torchvision's own default
MOST_DETECTIONS = 100  # per image; COCO's AP counts no more
PARTS = 10  # mean losses are printed for each tenth of the steps


def prepare(arguments, folder: Path):
    """Dataset, model description and settings, the same for both programs."""
    dataset = open_dataset(arguments.dataset, arguments.classes.split(","))
    size = ImageSize(arguments.size, arguments.size, False)
    config = describe_network(dataset, size, backbone=arguments.backbone, rois_per_image=arguments.rois)
    settings = TrainingSettings(
        name="comparison",
        logs=folder,
        epochs=1 if arguments.time_only else PARTS,  # each saves a model
        steps_per_epoch=arguments.steps if arguments.time_only else arguments.steps // PARTS,
        validation_steps=0,
        images_per_device=arguments.batch,
        learning_rate=arguments.learning_rate,
    )
    return dataset, config, size, settings


def summarise(clock: Clock) -> dict:
    """Elapsed and processor seconds of the steps; the first one is apart."""
    elapsed, processor = clock.steps()
    return {
        "first_step_s": round(float(elapsed[0]), 2),
        "median_step_s": round(statistics.median(elapsed[1:]), 3),
        "median_step_cpu_s": round(statistics.median(processor[1:]), 3),
        "total_cpu_s": round(float(processor.sum()), 1),
    }


def train_ours(dataset, config, size, settings):
    """Train with the module's own loop: (function from a scaled image to detections, mean losses, clock)."""
    from ann.training.loop import run_epochs
    from ann.training.seeds import seed_everything
    from maskrcnn.instances.instances import paste_mask
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.model import build_network
    from maskrcnn.network.training import TrainingNetwork

    seed_everything(0)
    network = build_network(config)
    feed = make_feed(
        Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings), slice(None)
    )
    clock = Clock()
    run_epochs(TASK, TrainingNetwork(network), config, feed, settings, Reporter(clock, sys.stderr))
    with settings.table_path.open(newline="") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    detector = Detector(network)

    def detect(image):
        found = detector(image[None], confidence=LOWEST_SCORE)[0]
        height, width = image.shape[:2]
        for index in range(min(len(found.scores), MOST_DETECTIONS)):
            mask = paste_mask(found.masks[index], found.boxes[index], height, width)
            yield found.class_ids[index], found.scores[index], mask.astype(np.uint8)

    return detect, losses, clock


def train_torchvision(dataset, config, size, settings):
    """As `train_ours`, with torchvision's network in a plain loop."""
    import torch
    import torchvision

    from ann.data.samples.prefetch import Prefetcher
    from ann.training.schedule import learning_rate_share

    model = build_torchvision(config, lowest_score=LOWEST_SCORE, detections=MOST_DETECTIONS)
    print(f"torchvision {torchvision.__version__}, torch {torch.__version__}", file=sys.stderr)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
    feed = make_feed(
        Job(task=TASK, dataset=dataset, config=config, size=size, settings=settings), slice(None)
    )
    steps = settings.epochs * settings.steps_per_epoch
    clock, losses = Clock(), []
    model.train()
    with Prefetcher(feed.training_batch, workers=settings.workers) as batches:
        for step in range(steps):
            images, targets = torch_batch(next(batches), torch)
            for group in optimizer.param_groups:
                group["lr"] = settings.learning_rate * learning_rate_share(step, steps)
            loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            losses.append(float(loss.detach()))
            clock.tick()
            if (step + 1) % settings.steps_per_epoch == 0:
                print(f"step {step + 1}: loss {losses[-1]:.3f}", file=sys.stderr, flush=True)
    model.eval()

    def detect(image):
        model.transform.min_size, model.transform.max_size = (min(image.shape[:2]),), max(image.shape[:2])
        with torch.no_grad():
            found = model([torch.from_numpy(image).permute(2, 0, 1)])[0]
        for class_id, score, mask in zip(found["labels"], found["scores"], found["masks"], strict=True):
            yield int(class_id), float(score), (mask[0].numpy() >= 0.5).astype(np.uint8)

    return detect, [float(np.mean(part)) for part in np.array_split(losses, PARTS)], clock


def torch_batch(batch, torch):
    """Images and targets as torchvision wants them."""
    images, targets = [], []
    for image, class_ids, boxes, masks in zip(
        batch["images"], batch["class_ids"], batch["boxes"], batch["masks"], strict=True
    ):
        kept = np.flatnonzero(class_ids > 0)
        images.append(torch.from_numpy(image).permute(2, 0, 1))
        targets.append(
            {
                "boxes": torch.from_numpy(boxes[kept][:, [1, 0, 3, 2]]),
                "labels": torch.from_numpy(class_ids[kept].astype(np.int64)),
                "masks": torch.from_numpy(masks[kept]),
            }
        )
    return images, targets


def score(detect, dataset, config, annotations: Path) -> dict:
    """Box and mask AP on the whole validation images."""
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(annotations))
    numbers = {image["file_name"]: number for number, image in truth.imgs.items()}
    categories = {
        dataset.classes.index(entry["name"]) + 1: number
        for number, entry in truth.cats.items()
        if entry["name"] in dataset.classes
    }
    results, seconds = [], []
    for image in dataset.validation:
        example = image.read(None)
        pixels = scale_pixels(example.image, config.band_mean, config.band_scale)
        start = time.perf_counter()
        found = list(detect(pixels))
        seconds.append(time.perf_counter() - start)
        for class_id, value, mask in found:
            if not mask.any():
                continue
            packed = coco_mask.encode(np.asfortranarray(mask))
            box = coco_mask.toBbox(packed).tolist()
            results.append(
                {
                    "image_id": numbers[image.name],
                    "category_id": categories[int(class_id)],
                    "score": float(value),
                    "segmentation": packed,
                    "bbox": box,
                }
            )
    scores = {"detections": len(results), "median_detection_s": round(statistics.median(seconds), 2)}
    if not results:
        return scores | {"note": "nothing detected"}
    found = truth.loadRes(results)
    for kind, name in (("segm", "mask"), ("bbox", "box")):
        evaluation = COCOeval(truth, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        for key, index in (("AP", 0), ("AP50", 1), ("AP75", 2), ("AR100", 8)):
            scores[f"{name}_{key}"] = round(float(evaluation.stats[index]), 4)
    return scores


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("annotations", type=Path)
    parser.add_argument("--classes", default="field")
    parser.add_argument("--program", choices=["ours", "torchvision"], default="ours")
    parser.add_argument("--backbone", default="resnet50", help="of ours; torchvision's is resnet50")
    parser.add_argument("--size", type=int, default=256, help="side of the crops, pixels")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=400, help="a multiple of 10")
    parser.add_argument("--rois", type=int, default=64, help="regions sampled per image")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--time-only", action="store_true", help="no scoring")
    return parser.parse_args(arguments)


def main(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset, config, size, settings = prepare(arguments, Path(folder))
        if arguments.program == "ours":
            detect, losses, clock = train_ours(dataset, config, size, settings)
        else:
            detect, losses, clock = train_torchvision(dataset, config, size, settings)
        result = vars(arguments) | {"losses": [round(loss, 3) for loss in losses]} | summarise(clock)
        result["peak_MB"] = peak_megabytes()
        print(json.dumps(result, default=str), flush=True)
        if not arguments.time_only:
            print(json.dumps(score(detect, dataset, config, arguments.annotations)))


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
