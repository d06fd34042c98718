"""The main job from end to end, as a user would do it: draw, train, detect, compare with the truth.

Draws labelled scenes, makes a GRASS project, installs the addon with g.extension, trains a small model on the
CPU, detects in a scene it has never seen and prints precision and recall against the drawn truth. Everything
is written to demo-output/.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import rasterio
from rasterio.features import rasterize

from drawing import CLASSES, CRS, draw_scene, write_geotiff, write_training_directory

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "demo-output"
MAPSET = OUTPUT / "grassdata" / "demo" / "PERMANENT"
TRAINING_SCENES = 24
SAME_OBJECT = 0.5  # intersection over union from which a detection counts as the drawn object


def main():
    started = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    os.environ["GRASS_ADDON_BASE"] = str(OUTPUT / "addons")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    print("1. Drawing labelled scenes and a larger scene to detect in")
    for number in range(TRAINING_SCENES):
        scene = draw_scene(height=256, width=256, objects=14, seed=100 + number)
        write_training_directory(OUTPUT / "training", f"scene_{number:02}", scene)
    truth = draw_scene(height=768, width=1024, objects=110, seed=7)
    write_geotiff(OUTPUT / "scene.tif", truth.image)

    print("2. Making a GRASS project and installing the addon")
    run("grass", "-c", CRS, "-e", str(MAPSET.parent))
    source = OUTPUT / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".git", OUTPUT.name, "*cache*"))
    grass("g.extension", "extension=i.ann.maskrcnn", f"url={source}", check=False)
    grass("r.in.gdal", f"input={OUTPUT / 'scene.tif'}", "output=scene")
    grass("g.region", "raster=scene.red")

    print("3. Training a small network, which starts from ImageNet weights")
    grass(
        "i.ann.maskrcnn.train",
        f"training_dataset={OUTPUT / 'training'}",
        f"classes={','.join(CLASSES)}",
        f"logs={OUTPUT / 'logs'}",
        "name=demo",
        "-i",
        "backbone=efficientnet_lite0",
        "images_max_dim=128",
        "images_min_dim=128",
        "images_per_gpu=4",
        "rois_per_image=32",
        "epochs=5",
        "steps_per_epoch=50",
        "validation_steps=6",
    )

    print("4. Detecting in the other scene")
    grass(
        "i.ann.maskrcnn.detect",
        *(f"band{number}=scene.{colour}" for number, colour in enumerate(("red", "green", "blue"), 1)),
        f"model={OUTPUT / 'logs' / 'mask_rcnn_demo_best.h5'}",
    )

    print("5. Comparing with the truth")
    detected = [(name, read_masks(name, truth.labels.shape)) for name in CLASSES]
    report(truth, detected)
    draw_picture(truth, detected, OUTPUT / "detections.png")
    print(
        f"Picture: {OUTPUT / 'detections.png'}. Finished in {(time.monotonic() - started) / 60:.1f} minutes."
    )


def run(*command, check=True):
    """Run a command; its output is shown, and a failure ends the demo."""
    print(" $", " ".join(command), flush=True)
    if subprocess.run(command).returncode and check:
        sys.exit(f"The command failed: {' '.join(command)}")


def grass(*command, check=True):
    """Run a GRASS module in the demo's mapset."""
    run("grass", str(MAPSET), "--exec", *command, check=check)


def read_masks(class_name, shape):
    """Masks (n, height, width) bool of the features of a vector map, and their scores (n,)."""
    path = OUTPUT / f"{class_name}.json"
    grass("v.out.ogr", f"input={class_name}", "type=area", f"output={path}", "format=GeoJSON", "--quiet")
    with rasterio.open(OUTPUT / "scene.tif") as scene:
        transform = scene.transform
    features = json.loads(path.read_text())["features"]
    masks = [
        rasterize([feature["geometry"]], shape, transform=transform, dtype="uint8") for feature in features
    ]
    scores = [feature["properties"]["score"] for feature in features]
    return np.array(masks, bool).reshape(-1, *shape), np.array(scores)


def match(truth, class_name, masks, scores):
    """Number of detections that are a drawn object of the class (each counted once), and of such objects."""
    objects = [number for number, name in enumerate(truth.class_names, 1) if name == class_name]
    found = set()
    for mask in masks[np.argsort(-scores)]:
        for number in objects:
            drawn = truth.labels == number
            if number not in found and (mask & drawn).sum() >= SAME_OBJECT * (mask | drawn).sum():
                found.add(number)
                break
    return len(found), len(objects)


def report(truth, detected):
    """Print precision and recall of each class."""
    print(f"\n{'class':10} {'drawn':>6} {'found':>6} {'right':>6} {'precision':>10} {'recall':>7}")
    for class_name, (masks, scores) in detected:
        right, drawn = match(truth, class_name, masks, scores)
        precision = right / len(masks) if len(masks) else float("nan")
        print(f"{class_name:10} {drawn:6} {len(masks):6} {right:6} {precision:10.2f} {right / drawn:7.2f}")
    print()


def draw_picture(truth, detected, path):
    """Draw the outlines of what was detected over the scene."""
    from matplotlib.figure import Figure

    height, width = truth.labels.shape
    figure = Figure(figsize=(width / 80, height / 80), layout="constrained")
    axes = figure.subplots()
    axes.imshow(truth.image)
    for colour, (class_name, (masks, _)) in zip(("yellow", "cyan"), detected, strict=True):
        for mask in masks:
            axes.contour(mask, [0.5], colors=[colour], linewidths=1.5)
        axes.plot([], [], color=colour, label=f"{class_name} ({len(masks)})")
    axes.legend(loc="upper right")
    axes.set_axis_off()
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    main()
