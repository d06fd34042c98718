"""The charts of the report that show detections."""

from __future__ import annotations

import numpy as np

from ann.evaluation.charts import COLOURS, chart, literal, png
from maskrcnn.scores.average_precision import RECALLS, Scores


def precision_recall_chart(scores: Scores, class_name: str) -> bytes:
    """Precision over recall of a class's masks, at IoU 0.5 and 0.75; a dot at the best confidence."""
    figure, axes = chart("recall: share of the objects found", "precision", size=(4.2, 3.3))
    for iou, colour in ((0.5, COLOURS[0]), (0.75, COLOURS[3])):
        average = scores.average_precision("mask", iou, class_name)
        values = scores.curve("mask", iou, class_name)
        axes.plot(RECALLS, values, color=colour, linewidth=1.8, label=f"IoU {iou:g}: AP {average:.2f}")
    confidence, precision, recall = scores.best_confidence("mask", class_name)
    if not np.isnan(confidence):
        label = f"confidence {confidence:.2f}"
        axes.plot([recall], [precision], "o", color=COLOURS[1], markersize=6, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_title(literal(class_name), fontsize=11, loc="left")
    axes.legend(fontsize=9, frameon=False, loc="best")
    return png(figure)
