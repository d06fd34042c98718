"""How well class maps of i.ann.unet.predict agree with labels: IoU, Dice, relaxed F1 over all maps.

Run it in GRASS, with the names of the classes in the model's order and, behind them, map=labels: a map and a
label raster, which is a file or a raster map of class numbers:

    grass PROJECT/MAPSET --exec python benchmarks/class_scores.py road roads_1=masks/1.png roads_2=masks/2.png
    grass PROJECT/MAPSET --exec python benchmarks/class_scores.py building roofs=labels

value:class and value: (left out) between classes and maps say what other values or colours of files mean.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from measuring import markdown

from ann.data.outlines.class_raster import UNKNOWN
from ann.data.outlines.label_values import parse_label_values
from ann.data.pixels.windows import whole
from ann.data.readers.pairs import LabelRaster
from ann.grass.bands import find_band, read_cells
from unet.scores import CellScores, add_up, count_cells

TITLES = ("IoU", "Dice", "precision", "recall", "relaxed_precision", "relaxed_recall", "relaxed_F1")


def read_map(name: str) -> np.ndarray:
    """Class ids (H, W) int16 of a raster map, UNKNOWN where it is NULL."""
    band = find_band(name)
    cells, valid = read_cells((band,), band.grid)
    return np.where(valid, cells[..., 0], UNKNOWN).astype(np.int16)


def main(arguments: list[str]) -> None:
    pairs = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    meanings = dict(
        argument.split(":", 1) for argument in arguments if ":" in argument and "=" not in argument
    )
    classes = tuple(argument for argument in arguments if "=" not in argument and ":" not in argument)
    ignored = [value for value, name in meanings.items() if not name]
    values = parse_label_values({value: name for value, name in meanings.items() if name}, ignored, classes)
    counts = []
    for name, labels in pairs.items():
        predicted = read_map(name)
        if Path(labels).exists():
            raster = LabelRaster(path=labels, values=values, class_count=len(classes))
            truth = raster(whole(*predicted.shape))
        else:
            truth = read_map(labels)
        counts.append(count_cells(np.where(predicted < 0, UNKNOWN, truth), predicted, len(classes)))
    scores = CellScores(classes, add_up(counts, len(classes)))
    rows = [
        [name, *(f"{scores.of_class(index)[title]:.3f}" for title in TITLES)]
        for index, name in enumerate(classes, 1)
    ]
    if len(classes) > 1:
        rows.append(["all (mean)", *(f"{scores.mean(title):.3f}" for title in TITLES)])
    print(markdown(["class", *(title.replace("_", " ") for title in TITLES)], rows))
    print(f"\naccuracy {scores.accuracy:.3f}, {len(counts)} maps, {scores.counts.confusion.sum():,} cells")


if __name__ == "__main__":
    main(sys.argv[1:])
