"""What training sees of raster maps and label maps; run as a script in a GRASS session.

python grass_labels.py REQUEST: a JSON object with the options of i.ann.maskrcnn.train that name maps, and
classes; class_values: texts `value:class`; "processes": read the windows in spawned processes. Prints as JSON
the error, or notes, images and for each image the class ids and masks of all its objects (rows of text, # is
inside) and where it has data.
"""

from __future__ import annotations

import json
import sys

import numpy as np

OPTIONS = ("band1", "band2", "band3", "group", "labels", "class_column", "training_areas")


def describe(image) -> dict:
    from ann.data.outlines.masks import paste

    example = image.read(None)
    height, width, _ = example.image.shape
    valid = np.ones((height, width), bool) if example.valid is None else example.valid
    assert not example.image[~valid].any()
    return {
        "name": image.name,
        "source": image.source,
        "shape": [height, width, image.bands],
        "dtype": str(example.image.dtype),
        "pixel_size": image.pixel_size,
        "counts": image.instance_counts,
        "class_ids": example.class_ids.tolist(),
        "visible": example.visible.tolist(),
        "masks": [draw(paste(mask, height, width)) for mask in example.masks],
        "valid": draw(valid),
        "first_band": example.image[..., 0].tolist(),
    }


def draw(mask: np.ndarray) -> list[str]:
    return ["".join(".#"[int(value)] for value in row) for row in mask]


def main(request: dict) -> dict:
    from ann.data.readers.class_column import ClassValues
    from ann.errors import AnnError
    from ann.grass.labels import open_maps

    try:
        classes = request["classes"]
        class_values = ClassValues.parse(request.get("class_values", ()), classes)
        dataset = open_maps({name: request.get(name, "") for name in OPTIONS}, classes, class_values)
    except AnnError as error:
        return {"error": str(error)}
    if request.get("processes"):
        import multiprocessing

        with multiprocessing.get_context(request["processes"]).Pool(2) as pool:
            images = pool.map(describe, dataset.images * 4)
    else:
        images = [describe(image) for image in dataset.images]
    return {"notes": dataset.notes, "images": images}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
