"""Cut the network's reference numbers to what the tests need: `cut_network.py REFERENCE_DIRECTORY`.

Large arrays keep every k-th value of the flattened array; k is in the key, `P2::53`. Writes `network.npz` and
`training_step.npz` beside this file and copies the batch normalisation tensors.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
STEPS = {"C5": 7, "P2": 53, "P3": 13, "P4": 5}


def thin(name: str, values: np.ndarray) -> dict:
    step = STEPS.get(name, 1)
    return {f"{name}::{step}": values.reshape(-1)[::step]}


def cut_inference(source) -> dict:
    kept = {
        name: source[name] for name in ("image", "window", "final_rois", "final_class_ids", "final_scores")
    }
    for name in ("C5", "P2", "P3", "P4", "P5", "P6"):
        kept.update(thin(name, source[name]))
    kept.update({f"level_{name}": source[name] for name in ("P4", "P5", "P6")})
    kept.update({name: source[name] for name in ("rpn_class_logits", "rpn_bbox", "rpn_rois")})
    kept["roi_align_classifier"] = source["roi_align_classifier"][:, :6]
    kept.update({name: source[name] for name in ("mrcnn_class_logits", "mrcnn_class", "mrcnn_bbox")})
    kept.update({name: source[name] for name in ("detections", "det_conf00", "det_conf07", "det_conf09")})
    kept["roi_align_mask"] = source["roi_align_mask"][:, :2]
    kept["mrcnn_mask"] = source["mrcnn_mask"][:, :2]
    classes = source["detections"][0, :, 4].astype(int)
    kept["detection_masks::3"] = source["mrcnn_mask"][0, np.arange(100), :, :, classes].reshape(-1)[::3]
    kept["final_masks_bits"] = np.packbits(source["final_masks"])
    return kept


def cut_training_step(source) -> dict:
    kept = {name: source[name] for name in source.files if source[name].size < 20_000 and "masks" not in name}
    kept["out_rpn_bbox_pred"] = source["out_rpn_bbox_pred"]
    positive = np.count_nonzero(source["out_target_class_ids"])
    instances = np.count_nonzero(source["in_gt_class_ids"])
    kept["in_images"] = np.round(source["in_images"] + np.float32([123.7, 116.8, 103.9])).astype(np.uint8)
    assert np.abs(kept["in_images"] - np.float32([123.7, 116.8, 103.9]) - source["in_images"]).max() < 1e-4
    kept["in_gt_masks_bits"] = np.packbits(source["in_gt_masks"][..., :instances])
    kept["out_target_mask"] = source["out_target_mask"][:, :positive]
    for kind in ("grad:", "after_step:"):
        name = f"{kind}res4a_branch2b/kernel:0"
        kept[f"{name}::31"] = source[name].reshape(-1)[::31]
    return kept


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    directory = Path(sys.argv[1])
    np.savez_compressed(
        HERE / "network.npz", **cut_inference(np.load(directory / "inference_resnet50_256.npz"))
    )
    step = cut_training_step(np.load(directory / "training_step_resnet50.npz"))
    np.savez_compressed(HERE / "training_step.npz", **step)
    for backbone in ("resnet50", "resnet101"):
        shutil.copy(directory / f"batchnorm_{backbone}.npz", HERE)
