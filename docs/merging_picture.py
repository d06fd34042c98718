"""Draw docs/merging.png: the merge rule on two tiles, by the library itself.

Run from the repository: python docs/merging_picture.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "lib"))
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.patches import Rectangle  # noqa: E402

from ann.data.outlines.masks import crop_mask  # noqa: E402
from ann.inference.scene import ArrayScene  # noqa: E402
from maskrcnn.instances.instances import Instance  # noqa: E402
from maskrcnn.instances.pipeline import DetectionSettings, find_in_scene  # noqa: E402

HEIGHT, WIDTH, SIDE, OVERLAP = 64, 104, 64, 24
COLOURS = ("#2a78b8", "#d9822b")  # what the left and the right tile saw
RESULT_COLOURS = ("#6a51a3", "#2c9f67", "#b8860b", "#c8553d", "#4c6a92", "#7d6b5d")


def blob(row: float, column: float, high: float, wide: float) -> np.ndarray:
    """(HEIGHT, WIDTH) bool, a box with rounded corners."""
    rows, columns = np.indices((HEIGHT, WIDTH))
    return np.abs((rows - row) / high) ** 4 + np.abs((columns - column) / wide) ** 4 < 1


def drawn_sightings() -> list[list[tuple[str, np.ndarray, float]]]:
    """What the left and the right tile see: (name, mask, score)."""
    left = [
        ("a", blob(8, 50, 5, 7), 0.86),
        ("b", blob(22, 52, 5, 40), 0.91),
        ("c", blob(31, 52, 5, 40), 0.83),
        ("d", blob(45, 42, 4.6, 10), 0.84),
        ("e", blob(57, 32, 4.6, 8), 0.95),
    ]
    right = [
        ("a", blob(8.6, 51, 5, 7), 0.97),
        ("b", blob(22, 53, 4.6, 40), 0.88),
        ("c", blob(31, 52, 4.6, 41), 0.94),
        ("d", blob(45, 42.6, 4.4, 10), 0.96),
        ("e", blob(57, 33, 4.4, 9), 0.72),
        ("f", blob(52, 84, 6, 11), 0.93),
    ]
    for sightings, column in ((left, 0), (right, WIDTH - SIDE)):
        for _, mask, _ in sightings:
            mask[:, :column] = False
            mask[:, column + SIDE :] = False
    return [left, right]


def merged(sightings) -> tuple[np.ndarray, tuple]:
    """Instance ids and instances that the pipeline makes of the sightings."""

    def find(batch):
        return [
            [
                Instance(mask=crop_mask(mask), class_id=1, score=score)
                for _, mask, score in sightings[0 if tile.column == 0 else 1]
            ]
            for tile in batch.tiles
        ]

    scene = ArrayScene(np.ones((HEIGHT, WIDTH, 1), np.uint8))
    settings = DetectionSettings(
        band_mean=(0.0,), band_scale=(1.0,), tile_shape=(SIDE, SIDE), overlap=OVERLAP
    )
    (block,) = find_in_scene(scene, find, settings)
    return block.instance_ids, block.instances


def paint(axis, mask: np.ndarray, colour: str) -> None:
    """Fill the pixels of a mask; a darker line follows their edges."""
    picture = np.zeros((*mask.shape, 4))
    picture[mask] = (*matplotlib.colors.to_rgb(colour), 0.5)
    axis.imshow(picture, interpolation="nearest", zorder=1)
    fine = np.kron(np.pad(mask, 1), np.ones((8, 8)))
    places = [(np.arange(8 * (side + 2)) + 0.5) / 8 - 1.5 for side in mask.shape]
    axis.contour(places[1], places[0], fine, levels=[0.5], colors=[colour], linewidths=1.4, zorder=2)


def main() -> None:
    sightings = drawn_sightings()
    ids, instances = merged(sightings)
    figure, axes = plt.subplots(3, 1, figsize=(7.2, 12.6), constrained_layout=True)
    for axis, seen, colour, title in zip(
        axes, sightings, COLOURS, ("The left tile (blue) sees", "The right tile (orange) sees"), strict=False
    ):
        axis.set_title(title, loc="left", color=colour, fontweight="bold")
        for name, mask, score in seen:
            paint(axis, mask, colour)
            rows, columns = np.nonzero(mask)
            axis.text(
                columns.mean(), rows.mean(), f"{name} {score:.2f}", ha="center", va="center", fontsize=9
            )
    axes[2].set_title("What comes out", loc="left", fontweight="bold")
    for instance, colour in zip(instances, RESULT_COLOURS, strict=True):
        paint(axes[2], ids == instance.id, colour)
        text = f"{instance.id}: {instance.score:.2f}"
        axes[2].text(instance.column, instance.row, text, ha="center", va="center", fontsize=9)
    for axis in axes:
        for column, colour in ((0, COLOURS[0]), (WIDTH - SIDE, COLOURS[1])):
            axis.add_patch(
                Rectangle((column - 0.5, -0.5), SIDE, HEIGHT, fill=False, edgecolor=colour, lw=2.4, ls="--")
            )
        axis.axvspan(WIDTH - SIDE - 0.5, SIDE - 0.5, color="0.88", zorder=0)
        axis.text(WIDTH / 2 - 0.5, 1.0, "common zone", ha="center", va="center", fontsize=8, color="0.35")
        axis.set(xlim=(-2, WIDTH + 1), ylim=(HEIGHT + 1, -2), aspect="equal", xticks=[], yticks=[])
        axis.set_frame_on(False)
    figure.savefig(HERE / "merging.png", dpi=110)


if __name__ == "__main__":
    main()
