"""Which labels are objects, and that neither the order nor the form in which they are written matters."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from ann.data.outlines.masks import CroppedMask, crop_mask
from ann.data.outlines.objects import Label, Sieve
from ann.data.outlines.rle import runs_from_mask
from ann.data.outlines.shapes import STRIP_PIXELS, PackedMask, Polygons, drawn_digest
from ann.data.pixels.windows import whole
from ann.data.readers.class_column import ClassValues
from ann.data.readers.formats import open_dataset
from labelled_files import map_point, noise, rectangle, write_raster

HEIGHT, WIDTH = 24, 32
CLASSES = ("house", "tank")
WORDS = {"house": ("house", "villa", "HOUSE"), "tank": ("tank", "silo")}  # what means which class
VALUES = ClassValues.parse(["villa:house", "HOUSE:house", "silo:tank"], CLASSES)


def polygon(y1, x1, y2, x2):
    return Polygons.from_parts(((np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], float),),))


boxes = st.tuples(
    st.integers(0, HEIGHT - 2), st.integers(0, WIDTH - 2), st.integers(2, 9), st.integers(2, 9)
).map(lambda box: (box[0], box[1], min(HEIGHT, box[0] + box[2]), min(WIDTH, box[1] + box[3])))
objects = st.lists(st.tuples(st.sampled_from(CLASSES), boxes), min_size=1, max_size=6)


def ring(box, draw):
    """The corners of a box, (x, y), from any of them on, either way round."""
    y1, x1, y2, x2 = box
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    start = draw(st.integers(0, 3))
    corners = corners[start:] + corners[:start]
    return corners[::-1] if draw(st.booleans()) else corners


def coco_segmentation(box, draw):
    corners = ring(box, draw)
    full = rectangle(HEIGHT, WIDTH, box) > 0
    runs = runs_from_mask(crop_mask(full), HEIGHT, WIDTH).tolist()
    return draw(
        st.sampled_from(
            [
                [[value for corner in corners for value in corner]],
                [str(value) for corner in corners for value in corner],
                [[float(x), float(y)] for x, y in corners],
                {"size": [HEIGHT, WIDTH], "counts": runs},
                {"size": [str(HEIGHT), str(WIDTH)], "counts": runs},
            ]
        )
    )


def write_coco(folder, rows, draw):
    number = st.sampled_from([5, "5", 5.0, " 5"])
    names = sorted({row[2] for row in rows})
    write_raster(folder / "a.png", noise(HEIGHT, WIDTH))
    side = {"height": draw(st.sampled_from([HEIGHT, str(HEIGHT), -1])), "width": WIDTH}
    content = {
        "images": [{"id": draw(number), "file_name": "a.png", **side}],
        "categories": [{"id": place, "name": name} for place, name in enumerate(names)],
        "annotations": [
            {
                "id": draw(st.sampled_from([-1, place])),
                "image_id": draw(number),
                "category_id": draw(st.sampled_from([names.index(name), str(names.index(name))])),
                "segmentation": coco_segmentation(box, draw),
                "iscrowd": draw(st.sampled_from([0, "0", False, "false", None])),
            }
            for place, (_, box, name) in enumerate(rows)
        ],
    }
    (folder / "labels.json").write_text(json.dumps(content))


def write_vectors(folder, rows, draw):
    write_raster(folder / "a.tif", noise(HEIGHT, WIDTH))
    outlines = [shapely.Polygon([map_point(*corner) for corner in ring(box, draw)]) for _, box, _ in rows]
    pyogrio.raw.write(
        folder / draw(st.sampled_from(["a.geojson", "all.gpkg"])),
        np.array(shapely.to_wkb(outlines), dtype=object),
        field_data=[np.array([name + draw(st.sampled_from(["", " "])) for *_, name in rows], dtype=object)],
        fields=["kind"],
        geometry_type="Polygon",
        crs="EPSG:32632",
    )


def write_masks(folder, rows, draw):
    write_raster(folder / "a" / "a.png", noise(HEIGHT, WIDTH))
    for place, (name, box, _) in enumerate(rows):
        write_raster(folder / "a" / f"a-{name}-{place}.png", rectangle(HEIGHT, WIDTH, box))


@pytest.mark.parametrize("write", [write_coco, write_vectors, write_masks])
@settings(max_examples=25, deadline=None)
@given(objects=objects, data=st.data())
def test_objects_are_the_same_in_every_order_and_form(write, objects, data):
    """Some objects are labelled twice."""
    twice = [one for one in objects if data.draw(st.booleans())]
    rows = data.draw(st.permutations([*objects, *twice]))
    rows = [(name, box, data.draw(st.sampled_from(WORDS[name]))) for name, box in rows]
    classes = [name for name in CLASSES if name in {name for name, _ in objects}]
    folder = Path(tempfile.mkdtemp())
    try:
        write(folder, rows, data.draw)
        meaning = {value: name for value, name in VALUES.by_value.items() if name in classes}
        values = ClassValues({} if write is write_masks else meaning)
        column = "kind" if write is write_vectors else None
        dataset = open_dataset(folder, classes, column, values)
        example = dataset.images[0].read(None)
    finally:
        shutil.rmtree(folder)
    found = [
        (classes[number - 1], mask.box, mask.area)
        for number, mask in zip(example.class_ids, example.masks, strict=True)
    ]
    expected = {(name, (y1, x1, y2, x2), (y2 - y1) * (x2 - x1)) for name, (y1, x1, y2, x2) in objects}
    assert sorted(found) == sorted(expected)
    assert sum(dataset.instance_counts) == len(dataset.images[0].boxes) == len(expected)


def test_the_same_pixels_have_one_digest_whatever_holds_them():
    outline = polygon(3, 4, 9, 12)
    mask = PackedMask.pack(CroppedMask(row=3, column=4, pixels=np.ones((6, 8), bool)))
    frame = whole(20, 20)
    assert drawn_digest(outline, frame) == drawn_digest(mask, frame)
    assert drawn_digest(polygon(3 - 1e-9, 4, 9, 12 + 1e-9), frame) == drawn_digest(mask, frame)
    assert drawn_digest(polygon(3, 4, 9, 13), frame) != drawn_digest(mask, frame)
    assert drawn_digest(polygon(3.6, 4, 4.4, 13), frame) is None


def test_a_digest_does_not_depend_on_the_strips_an_outline_is_drawn_in():
    side = 3000  # several strips
    assert side * side > 4 * STRIP_PIXELS
    outline = polygon(10, 5, side, side)
    mask = PackedMask.pack(CroppedMask(row=10, column=5, pixels=np.ones((side - 10, side - 5), bool)))
    frame = whole(side + 5, side + 7)
    assert drawn_digest(outline, frame) == drawn_digest(mask, frame)


def test_a_label_that_one_image_shows_is_not_ignored():
    sieve = Sieve()
    label = Label(shape=polygon(3, 4, 9, 12), class_id=1, place="fid 1")
    elsewhere = Label(shape=polygon(103, 4, 109, 12), class_id=1, place="fid 1")
    assert sieve.keep([elsewhere], whole(20, 20)) == []
    assert sieve.notes() == ["1 label(s) lie outside of the image and were ignored: fid 1."]
    assert sieve.keep([label], whole(20, 20)) == [label]
    assert sieve.notes() == []


def test_two_classes_on_the_same_pixels_are_two_objects_and_so_is_a_region():
    labels = [Label(shape=polygon(3, 4, 9, 12), class_id=number, place=str(number)) for number in (1, 2, -1)]
    sieve = Sieve()
    assert sieve.keep(labels, whole(20, 20)) == labels
    assert sieve.keep([], whole(20, 20)) == []
