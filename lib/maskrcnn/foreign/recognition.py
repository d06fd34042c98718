"""Which network a checkpoint holds, told by the names and shapes of its tensors alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ann.backbones.names import RESNET_BLOCKS
from ann.errors import ModelFileError

BLOCKS = {name: RESNET_BLOCKS[name] for name in ("resnet50", "resnet101")}
PREFIXES = ("module.", "model.", "_orig_mod.")
MAX_CLASSES = 10_000

Shapes = Mapping[str, tuple[int, ...]]

# names of tensors that say nothing about the weights
IGNORED = re.compile(r"\.num_batches_tracked$|(^|\.)pixel_(mean|std)$|anchor_generator\.cell_anchors")

# torchvision's names as they were in earlier versions, and as they are now
OLD_NAMES = (
    (re.compile(r"^rpn\.head\.conv\.(weight|bias)$"), r"rpn.head.conv.0.0.\1"),
    (
        re.compile(r"^backbone\.fpn\.(inner|layer)_blocks\.(\d)\.(weight|bias)$"),
        r"backbone.fpn.\1_blocks.\2.0.\3",
    ),
    *(
        (re.compile(rf"^roi_heads\.mask_head\.mask_fcn{number + 1}\."), f"roi_heads.mask_head.{number}.0.")
        for number in range(4)
    ),
)

STEMS = {"torchvision": "backbone.body.conv1.weight", "detectron2": "backbone.bottom_up.stem.conv1.weight"}
MASKS = {
    "torchvision": "roi_heads.mask_predictor.conv5_mask.weight",
    "detectron2": "roi_heads.mask_head.deconv.weight",
}

# patterns of names, the first that occurs counts: what a file with them is, whatever else is in it ...
OTHERS = (
    (r"^roi_heads\.keypoint_head", "a Keypoint R-CNN (of torchvision or detectron2)"),
    (r"^roi_heads\.(box_head\.\d\.fc\d|box_predictor\.\d\.)", "a Cascade R-CNN of detectron2"),
    (r"^sem_seg_head\.", "a panoptic or semantic segmentation network of detectron2"),
    (
        r"^roi_heads\.mask_head\.(coarse_head|point_head)|^roi_heads\.mask_(coarse|point)_head",
        "a PointRend network of detectron2",
    ),
    (r"^roi_heads\.res5\.", "a Mask R-CNN of detectron2 without a feature pyramid (C4 or DC5)"),
)
# ... and without the layers of a known Mask R-CNN
STRANGERS = (
    (r"^roi_heads\.mask_predictor\.", "a Mask R-CNN of torchvision with another backbone than a ResNet"),
    (r"^(transformer|class_embed|bbox_embed|sem_seg_head)\.", "a detection transformer (DETR)"),
    (r"^(image_encoder|mask_decoder)\.", "a Segment Anything model"),
    (r"^segmentation_head\.|^decoder\.|^classifier\.\d\.|^outc\.", "a network for semantic segmentation"),
    (r"^(fc|classifier|head)\.(weight|bias)$", "an image classifier"),
    (r"^layer4\.|^res5\.", "a backbone alone"),
    (r"^\d+\.conv\.|\.dfl\.|^\d+\.cv\d\.", "a YOLO network"),
    (r"^conv1/|^res2a", "a network of Keras"),
)


@dataclass(frozen=True, kw_only=True)
class Network:
    """What was recognised. class_count: with the background."""

    program: str  # torchvision or detectron2
    version: str  # v1 or v2
    backbone: str
    bands: int
    class_count: int

    @property
    def name(self) -> str:
        """As its program calls it."""
        depth = self.backbone.removeprefix("resnet")
        if self.program == "detectron2":
            return f"detectron2's mask_rcnn_R_{depth}_FPN"
        return f"torchvision's maskrcnn_resnet{depth}_fpn{'_v2' if self.version == 'v2' else ''}"


def plain_names(names) -> dict[str, str]:
    """{name as of now, without what wrappers put in front: name in the file}."""
    names = list(names)
    start = ""
    while prefix := next((p for p in PREFIXES if all(name.startswith(start + p) for name in names)), None):
        start += prefix
    renamed = OLD_NAMES if any(name.startswith(f"{start}backbone.body.") for name in names) else ()
    plain = {}
    for name in names:
        short = name[len(start) :]
        if IGNORED.search(short):
            continue
        for old, new in renamed:
            short = old.sub(new, short)
        plain[short] = name
    return plain


def recognise(path, shapes: Shapes) -> Network:
    """The network whose tensors have these shapes.

    Raises:
        ModelFileError: it is another network, which is named where it is known.
    """
    program = next((name for name in STEMS if STEMS[name] in shapes and MASKS[name] in shapes), None)
    if other := name_other(shapes, program):
        raise ModelFileError(
            f"Model file {path} holds {other}, which can't be used here. Use torchvision's "
            "maskrcnn_resnet50_fpn or maskrcnn_resnet50_fpn_v2, or detectron2's mask_rcnn_R_50_FPN or "
            "mask_rcnn_R_101_FPN"
        )
    assert program is not None
    stem, logits = shapes[STEMS[program]], shapes.get("roi_heads.box_predictor.cls_score.weight", ())
    if len(stem) != 4 or not 0 < stem[1] <= 1000 or len(logits) != 2 or not 2 <= logits[0] <= MAX_CLASSES:
        raise ModelFileError(
            f"Model file {path}: the first convolution has the shape {stem} and the class layer {logits}, "
            "expected (64, bands, 7, 7) and (classes with the background, 1024). Use another model"
        )
    version = "v2" if program == "torchvision" and "rpn.head.conv.1.0.weight" in shapes else "v1"
    return Network(
        program=program,
        version=version,
        backbone=next(name for name, blocks in BLOCKS.items() if blocks == count_blocks(shapes, program)),
        bands=stem[1],
        class_count=logits[0],
    )


def count_blocks(shapes: Shapes, program: str) -> tuple[int, ...]:
    """Blocks of each stage of the backbone."""
    pattern = (
        r"^backbone\.body\.layer(\d)\.(\d+)\."
        if program == "torchvision"
        else r"^backbone\.bottom_up\.res(\d)\.(\d+)\."
    )
    found: dict[str, set[str]] = {}
    for name in shapes:
        if match := re.match(pattern, name):
            found.setdefault(match[1], set()).add(match[2])
    return tuple(len(found[stage]) for stage in sorted(found))


def name_other(shapes: Shapes, program: str | None) -> str | None:
    """What another network is called, or None for one that can be used."""

    def holds(pattern: str) -> bool:
        return any(re.search(pattern, name) for name in shapes)

    if other := next((what for pattern, what in OTHERS if holds(pattern)), None):
        return other
    if holds(r"^backbone\.bottom_up\.") and not holds(r"^backbone\.fpn_"):
        return "a network of detectron2 without a feature pyramid (C4 or DC5)"
    if holds(r"^(backbone\.)?net\.(patch_embed|blocks)") or holds(
        r"^backbone\.bottom_up\.(patch_embed|layers)"
    ):
        return "a network with a vision transformer as its backbone"
    if holds(r"^head\.classification_head\.") or (
        holds(r"^head\.(cls_score|cls_subnet)") and holds("^backbone")
    ):
        return (
            "an FCOS network"
            if holds(r"ctrness|bbox_ctrness")
            else "a RetinaNet (of torchvision or detectron2)"
        )
    if holds(r"^roi_head\.|^rpn_head\.|^bbox_head\."):
        return "a network of MMDetection"
    if program is None:
        return name_stranger(shapes, holds)
    if holds(r"conv2_offset"):
        return "a Mask R-CNN with deformable convolutions"
    blocks = count_blocks(shapes, program)
    if not holds(r"\.conv3\.weight$"):
        return "a Mask R-CNN with a ResNet18 or ResNet34 of torchvision as its backbone"
    second = (
        "backbone.body.layer1.0.conv2.weight"
        if program == "torchvision"
        else "backbone.bottom_up.res2.0.conv2.weight"
    )
    shape = shapes.get(second, ())
    if len(shape) == 4 and shape[0] != shape[1]:
        return "a Mask R-CNN with grouped convolutions (ResNeXt, X101)"
    if len(shape) == 4 and shape[0] != 64:
        return "a Mask R-CNN with a wide ResNet as its backbone"
    if blocks not in BLOCKS.values():
        stages = " + ".join(map(str, blocks))
        return f"a Mask R-CNN with a backbone of {stages} blocks (no ResNet50 or ResNet101)"
    if program == "detectron2":
        if holds(r"^backbone\.fpn_lateral2\.norm\.running_mean") or holds(
            r"^proposal_generator\.rpn_head\.conv\.conv\d"
        ):
            return "a Mask R-CNN of detectron2's new baselines (SyncBN)"
        if holds(r"\.norm\.weight$") and not holds(r"\.norm\.running_mean$"):
            return "a Mask R-CNN of detectron2 with group normalisation (GN)"
        classes = shapes.get("roi_heads.box_predictor.cls_score.weight", (0,))[0] - 1
        boxes = shapes.get("roi_heads.box_predictor.bbox_pred.weight", (0,))[0]
        masks = shapes.get("roi_heads.mask_head.predictor.weight", (0,))[0]
        if classes > 1 and (boxes == 4 or masks == 1):
            return "a class-agnostic Mask R-CNN of detectron2"
    return None


def name_stranger(shapes: Shapes, holds) -> str:
    """What a checkpoint without a known Mask R-CNN may be."""
    if "conv1_w" in shapes or holds(r"^res\d_\d_branch2a"):
        return "a Caffe2 or Detectron1 model"
    for stem, what in (
        ("backbone.body.conv1.weight", "a network of torchvision without masks (Faster R-CNN?)"),
        ("backbone.bottom_up.stem.conv1.weight", "a network of detectron2 without masks (Faster R-CNN?)"),
    ):
        if stem in shapes:
            return what
    if stranger := next((what for pattern, what in STRANGERS if holds(pattern)), None):
        return stranger
    first = ", ".join(list(shapes)[:4])
    return f"no Mask R-CNN of torchvision or detectron2 (its first tensors: {ascii(first)[:160]})"
