"""What a classifier's training sees of features on raster maps; run as a script in a GRASS session.

python grass_classes.py REQUEST: a JSON object with options of i.ann.classifier.train. Prints as JSON the
error, or classes, notes and of each image name, class, scene, the first band, and where it has data (rows of
text).
"""

from __future__ import annotations

import json
import sys

import numpy as np

OPTIONS = dict.fromkeys(
    ("band1", "band2", "band3", "group", "labels", "class_column", "class_values", "chip_size", "block_size"),
    "",
) | {"chip": "around", "scenes": "auto"}


def describe(image) -> dict:
    example = image.read(None)
    assert example.image.shape[:2] == (image.height, image.width)
    valid = np.ones(example.image.shape[:2], bool) if example.valid is None else example.valid
    return {
        "name": image.name,
        "class": example.class_id,
        "source": image.source,
        "pixel_size": image.pixel_size,
        "first_band": example.image[..., 0].tolist(),
        "valid": ["".join(".#"[int(value)] for value in row) for row in valid],
    }


def main(request: dict) -> dict:
    from ann.errors import AnnError
    from ann.grass.class_labels import open_feature_classes

    classes = request.pop("classes", [])
    side, longest = request.pop("side", 4), request.pop("longest", 64)
    try:
        dataset = open_feature_classes(OPTIONS | request, classes, side, longest)
    except AnnError as error:
        return {"error": str(error)}
    return {
        "classes": dataset.classes,
        "notes": dataset.notes,
        "images": [describe(image) for image in dataset.images],
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
