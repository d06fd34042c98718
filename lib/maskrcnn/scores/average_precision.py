"""Average precision and recall as COCO defines them, of boxes and of masks, over all and per class.

Computed by pycocotools, with two differences to its usual summary: all detections count (it takes the best
100 of an image, which dense scenes exceed), and objects of all sizes are one group.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from maskrcnn.scores.results import ImageResult, Objects

KINDS = {"box": "bbox", "mask": "segm"}  # ours and COCO's names
IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
RECALLS = np.linspace(0, 1, 101)
ALL_SIZES = [0, 1e10]  # pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Scores of a model on some images; K classes, T = 10 IoU thresholds, R = 101 recalls (`RECALLS`).

    precision: {"box": (T, R, K), "mask": (T, R, K)}: the best precision at that recall or a higher one.
    recall: {"box": (T, K), "mask": (T, K)}: share of the objects that were found at all.
    thresholds: {"box": (T, R, K), "mask": ...}: the lowest score with which that recall is reached, 0 where
        it is not.
    truth, found: (K,) int, number of labelled objects and of detections.
    Values are NaN for a class without any labelled object.
    """

    classes: tuple[str, ...]
    images: int
    precision: dict[str, np.ndarray]
    recall: dict[str, np.ndarray]
    thresholds: dict[str, np.ndarray]
    truth: np.ndarray
    found: np.ndarray

    def average_precision(self, kind: str, iou: float | None = None, class_name: str | None = None) -> float:
        """AP of boxes or masks: at one IoU or the mean over 0.5 to 0.95; of one class or the mean of all.

        NaN without any labelled object.
        """
        return _mean(self._select(self.precision[kind], iou, class_name))

    def average_recall(self, kind: str, class_name: str | None = None) -> float:
        """AR: recall with all detections, the mean over IoU 0.5 to 0.95. NaN without any labelled object."""
        return _mean(self._select(self.recall[kind], None, class_name))

    def curve(self, kind: str, iou: float, class_name: str) -> np.ndarray:
        """(R,) precision of a class at each of `RECALLS`."""
        return self._select(self.precision[kind], iou, class_name)[0, :, 0]

    def best_confidence(self, kind: str, class_name: str) -> tuple[float, float, float]:
        """(score, precision, recall) where a class has the highest F1 measure at IoU 0.5; NaN if nowhere."""
        precision = self.curve(kind, 0.5, class_name)
        f1 = 2 * precision * RECALLS / np.maximum(precision + RECALLS, 1e-9)
        if np.isnan(f1).any() or not f1.any():
            return (float("nan"),) * 3
        best = int(np.argmax(f1))
        score = self._select(self.thresholds[kind], 0.5, class_name)[0, best, 0]
        return float(score), float(precision[best]), float(RECALLS[best])

    def _select(self, values: np.ndarray, iou: float | None, class_name: str | None) -> np.ndarray:
        if iou is not None:
            index = IOU_THRESHOLDS.index(iou)
            values = values[index : index + 1]
        if class_name is not None:
            index = self.classes.index(class_name)
            values = values[..., index : index + 1]
        return values

    def columns(self) -> dict[str, float]:
        """The main scores by the names they have in tables, NaN for what has no labelled object."""
        values = {}
        for kind in KINDS:
            values |= {f"{kind}_{name}": value for name, value in self.summary(kind).items()}
        for class_name in self.classes:
            values[f"mask_AP_{class_name}"] = self.average_precision("mask", None, class_name)
            values[f"mask_AP50_{class_name}"] = self.average_precision("mask", 0.5, class_name)
        return values

    def summary(self, kind: str, class_name: str | None = None) -> dict[str, float]:
        """AP, AP50, AP75 and AR of boxes or masks, of one class or all."""
        return {
            "AP": self.average_precision(kind, None, class_name),
            "AP50": self.average_precision(kind, 0.5, class_name),
            "AP75": self.average_precision(kind, 0.75, class_name),
            "AR": self.average_recall(kind, class_name),
        }


def score(results: Sequence[ImageResult], classes: Sequence[str]) -> Scores:
    """Score the detections of some images.

    Labelled regions with a negative class id are COCO's crowds: a detection of that class that lies mostly
    (by the IoU threshold) inside of one counts neither as right nor as wrong.
    """
    limit = max([1, *(len(result.found.class_ids) for result in results)])
    precision, recall, thresholds = {}, {}, {}
    for kind, coco_kind in KINDS.items():
        precision[kind], recall[kind], thresholds[kind] = _evaluate(results, len(classes), coco_kind, limit)
    return Scores(
        classes=tuple(classes),
        images=len(results),
        precision=precision,
        recall=recall,
        thresholds=thresholds,
        truth=_count([result.truth for result in results], len(classes)),
        found=_count([result.found for result in results], len(classes)),
    )


def _evaluate(results, class_count, coco_kind, limit):
    """Precision (T, R, K), recall (T, K) and score thresholds (T, R, K) of boxes or masks."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        run = SparseEvaluation(
            _dataset(results, class_count, lambda result: result.truth),
            _dataset(results, class_count, lambda result: result.found),
            coco_kind,
        )
        run.params.iouThrs = np.array(IOU_THRESHOLDS)
        run.params.recThrs = RECALLS
        run.params.areaRng, run.params.areaRngLbl = [ALL_SIZES], ["all"]
        run.params.maxDets = [limit]
        run.evaluate()
        run.accumulate()
    precision, recall = (run.eval[name] for name in ("precision", "recall"))
    missing = recall[:, :, 0, 0] < 0
    return (
        np.where(missing[:, None], np.nan, precision[..., 0, 0]),
        np.where(missing, np.nan, recall[..., 0, 0]),
        np.where(missing[:, None], np.nan, run.eval["scores"][..., 0, 0]),
    )


class SparseEvaluation(COCOeval):
    """COCO's evaluation that looks only at pairs that overlap enough to match at any threshold.

    The same matches as `COCOeval`'s own, which looks at every pair in Python: a scene of 1000 objects and
    2000 detections takes it 8 seconds, and this 0.1.
    """

    def evaluateImg(self, imgId, catId, aRng, maxDet):
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        if not truth and not found:
            return None
        truth = sorted(truth, key=lambda one: one["ignore"])
        order = np.argsort([one["ignore"] for one in self._gts[imgId, catId]], kind="mergesort")
        found = sorted(found, key=lambda one: -one["score"])[:maxDet]
        ignored = np.array([one["ignore"] for one in truth])
        thresholds = self.params.iouThrs
        truth_matches = np.zeros((len(thresholds), len(truth)))
        found_matches = np.zeros((len(thresholds), len(found)))
        found_ignored = np.zeros((len(thresholds), len(found)), bool)
        if truth and found:
            overlaps = self.ious[imgId, catId][:, order]
            pairs = [np.flatnonzero(row >= min(thresholds)) for row in overlaps]
            for index, threshold in enumerate(thresholds):
                for place, candidates in enumerate(pairs):
                    match = _best_match(overlaps[place], candidates, threshold, truth_matches[index], ignored)
                    if match is not None:
                        found_ignored[index, place] = ignored[match]
                        found_matches[index, place] = truth[match]["id"]
                        truth_matches[index, match] = found[place]["id"]
        return {
            "dtMatches": found_matches,
            "dtScores": [one["score"] for one in found],
            "gtIgnore": ignored,
            "dtIgnore": found_ignored,
        }


def _best_match(overlaps, candidates, threshold, taken, ignored) -> int | None:
    """Of the candidates (objects before regions) that are free, the one with the highest IoU, the last of
    equal ones; a region only if no object matches, and it is never taken.
    """
    best, highest = None, threshold
    for candidate in candidates:
        if taken[candidate] and not ignored[candidate]:
            continue
        if best is not None and ignored[candidate] and not ignored[best]:
            break
        if overlaps[candidate] >= highest:
            best, highest = candidate, overlaps[candidate]
    return best


def _dataset(results, class_count, pick) -> COCO:
    """Labels or detections of all images in COCO's form; `pick` takes them out of a result."""
    annotations = []
    for image_id, result in enumerate(results):
        objects: Objects = pick(result)
        for index, class_id in enumerate(objects.class_ids.tolist()):
            y1, x1, y2, x2 = objects.boxes[index].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 means no match to pycocotools
                    "image_id": image_id,
                    "category_id": abs(class_id),
                    "iscrowd": int(class_id < 0),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": 1.0,  # all sizes are one group
                    "segmentation": objects.masks[index],
                    "score": float(objects.scores[index]),
                }
            )
    coco = COCO()
    coco.dataset = {
        "images": [
            {"id": image_id, "height": result.height, "width": result.width}
            for image_id, result in enumerate(results)
        ],
        "categories": [{"id": class_id} for class_id in range(1, class_count + 1)],
        "annotations": annotations,
    }
    coco.createIndex()
    return coco


def _count(parts: Sequence[Objects], class_count: int) -> np.ndarray:
    """Objects of each class, (K,) int; regions left out."""
    counts = np.zeros(class_count, np.int64)
    for part in parts:
        ids = part.class_ids[part.class_ids > 0]
        counts += np.bincount(ids, minlength=class_count + 1)[1:]
    return counts


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float("nan")
