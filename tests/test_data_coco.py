"""COCO files: polygons, run lengths, crowds, parts, and what is wrong with them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ann.data.outlines.masks import crop_mask, paste
from ann.data.outlines.rle import decode_runs, mask_from_runs
from ann.data.pixels.windows import Window
from ann.data.readers.class_column import ClassValues
from ann.data.readers.formats import open_dataset
from ann.errors import DatasetError
from labelled_files import noise, write_raster

SQUARE = [3, 2, 9, 2, 9, 7, 3, 7]  # x, y: rows 2 to 7, columns 3 to 9


def content(images=("a.png",), **changes):
    """A COCO file with one square of class house on each image."""
    return {
        "images": [
            {"id": number, "file_name": name, "height": 20, "width": 30}
            for number, name in enumerate(images, start=5)
        ],
        "categories": [{"id": 7, "name": "house"}, {"id": 9, "name": "unused"}],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 7, "iscrowd": 0, "segmentation": [SQUARE]}
            for number, _ in enumerate(images, start=5)
        ],
        **changes,
    }


def write(directory, coco, name="instances.json", images=("a.png",), folder="images"):
    for image in images:
        write_raster(directory / folder / image, noise(20, 30))
    path = directory / name
    path.write_text(json.dumps(coco))
    return path


def annotation(segmentation, **values):
    return {"image_id": 5, "category_id": 7, "segmentation": segmentation, **values}


@pytest.mark.parametrize("folder", ["images", "."])
def test_polygons_are_read_from_a_directory_or_the_file(tmp_path, folder):
    path = write(tmp_path, content(), folder=folder)
    for place in (tmp_path, path):
        dataset = open_dataset(place, ["house"])
        assert [image.name for image in dataset.images] == ["a.png"]
        example = dataset.images[0].read(None)
        assert [mask.box for mask in example.masks] == [(2, 3, 7, 9)]
        assert example.masks[0].area == 30
        assert example.class_ids.tolist() == [1]


def test_run_lengths_and_their_text_form_are_the_same_mask(tmp_path):
    runs = [20 * 3 + 2, 5, 15, 5, 20 * 30 - 20 * 3 - 2 - 25]
    text = squeeze(runs)
    coco = content(
        annotations=[
            annotation({"size": [20, 30], "counts": runs}),
            annotation({"size": [20, 30], "counts": text}),
        ]
    )
    expected = np.zeros((20, 30), bool)
    expected[2:7, 3:5] = True
    for one in coco["annotations"]:
        write(tmp_path, content(annotations=[one]))
        (mask,) = open_dataset(tmp_path, ["house"]).images[0].read(None).masks
        np.testing.assert_array_equal(paste(mask, 20, 30), expected)
    write(tmp_path, coco)
    assert open_dataset(tmp_path, ["house"]).instance_counts == (1,)


def squeeze(runs):
    """The text form as pycocotools writes it."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != -1 if bits & 16 else value != 0
            text += chr(48 + (bits | 32 if more else bits))
    return text


def test_text_forms_are_those_of_pycocotools():
    coco_mask = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(3)
    for shape in ((1, 1), (7, 5), (64, 40)):
        for share in (0.02, 0.5, 1.0):
            full = generator.random(shape) < share
            counts = coco_mask.encode(np.asfortranarray(full.astype(np.uint8)))["counts"].decode()
            mask = mask_from_runs(decode_runs(counts), *shape)
            expected = crop_mask(full)
            assert (mask is None) == (expected is None)
            if mask is not None:
                np.testing.assert_array_equal(paste(mask, *shape), full)


@pytest.mark.parametrize(("runs", "message"), [([3], "add up"), ([-1, 5], "add up"), ([2, 3], "add up")])
def test_runs_must_fill_the_image(runs, message):
    with pytest.raises(ValueError, match=message):
        mask_from_runs(runs, 2, 2)


@pytest.mark.parametrize("text", ["P", "0 ", "\u00fc"])
def test_garbled_text_forms_are_refused(text):
    with pytest.raises(ValueError):
        decode_runs(text)


def test_crowds_are_regions_and_not_counted(tmp_path):
    coco = content(annotations=[annotation([SQUARE]), annotation([[12, 1, 20, 1, 20, 9]], iscrowd=1)])
    write(tmp_path, coco)
    image = open_dataset(tmp_path, ["house"]).images[0]
    assert image.instance_counts == (1,)
    assert image.read(None).class_ids.tolist() == [1, -1]


def test_a_triangle_of_three_points_is_drawn(tmp_path):
    write(tmp_path, content(annotations=[annotation([[0, 0, 8, 0, 0, 8]])]))
    assert open_dataset(tmp_path, ["house"]).images[0].read(None).masks[0].area == pytest.approx(32, abs=4)


def test_an_image_without_annotations_is_a_negative(tmp_path):
    coco = content(("a.png", "b.png"))
    coco["annotations"] = coco["annotations"][:1]
    write(tmp_path, coco, images=("a.png", "b.png"))
    assert [image.instance_counts for image in open_dataset(tmp_path, ["house"]).images] == [(1,), (0,)]


def test_files_of_parts_are_kept_apart(tmp_path):
    write(tmp_path, content(("a.png",)), "instances_train.json", ("a.png",))
    write(tmp_path, content(("b.png",)), "instances_val.json", ("b.png",))
    write(tmp_path, content(("c.png",)), "instances_test.json", ("c.png",))
    dataset = open_dataset(tmp_path, ["house"])
    assert [image.name for image in dataset.images] == ["a.png"]
    assert [image.name for image in dataset.validation] == ["b.png"]
    assert dataset.instance_counts == (2,)
    assert "instances_test.json" in dataset.notes[0]


def test_the_usual_layout_with_annotations_and_part_folders(tmp_path):
    (tmp_path / "annotations").mkdir()
    write(tmp_path, content(), "annotations/instances_train2017.json", folder="train2017")
    assert len(open_dataset(tmp_path, ["house"]).images) == 1


def test_annotations_without_outline_are_named(tmp_path):
    write(tmp_path, content(annotations=[annotation([SQUARE]), annotation([], id=44)]))
    assert "annotation 44 of instances.json" in open_dataset(tmp_path, ["house"]).notes[0]


def test_what_no_pixel_shows_is_named_and_not_counted(tmp_path):
    outlines = [
        [SQUARE],
        [[50, 2, 59, 2, 59, 7]],  # right of the image
        [[5.6, 9, 6.4, 9, 6.4, 15]],  # between the centres of two columns
        [[0.1, 0.2, 0.9, 0.2, 0.9, 0.8, 0.1, 0.8]],  # fractions: as pixels, the first one
        [[27, 2, 90, 2, 90, 7, 27, 7]],  # partly inside
    ]
    write(tmp_path, content(annotations=[annotation(o, id=i) for i, o in enumerate(outlines, start=40)]))
    dataset = open_dataset(tmp_path, ["house"])
    (image,) = dataset.images
    assert image.instance_counts == (2,) and len(image.boxes) == 2
    assert [mask.box for mask in image.read(None).masks] == [(2, 3, 7, 9), (2, 27, 7, 30)]
    told = {
        reason: note
        for note in dataset.notes
        for reason in ("outside", "too small", "0 to 1")
        if reason in note
    }
    assert all(note.startswith("1 ") for note in dataset.notes)
    assert "annotation 41" in told["outside"] and "annotation 42" in told["too small"]
    assert "annotation 43" in told["0 to 1"]


def test_rings_far_apart_are_named(tmp_path):
    near, far = [10, 2, 16, 2, 16, 7, 10, 7], [22, 12, 27, 12, 27, 17, 22, 17]
    write(tmp_path, content(annotations=[annotation([SQUARE, near], id=1), annotation([SQUARE, far], id=2)]))
    dataset = open_dataset(tmp_path, ["house"])
    assert dataset.instance_counts == (2,)
    (note,) = dataset.notes
    assert "far apart" in note and "annotation 2 of" in note and "annotation 1 of" not in note


def test_an_annotation_given_twice_is_one_object(tmp_path):
    turned = SQUARE[4:] + SQUARE[:4]
    write(tmp_path, content(annotations=[annotation([ring], id=3) for ring in (SQUARE, SQUARE, turned)]))
    dataset = open_dataset(tmp_path, ["house"])
    assert dataset.instance_counts == (1,)
    assert "labelled more than once" in dataset.notes[0]


@pytest.mark.parametrize("crowd", [0, "0", 0.0, False, "false", "", None])
@pytest.mark.parametrize("number", [5, "5", 5.0, " 5 "])
@pytest.mark.parametrize("size", [(20, 30), ("20", "30"), (20.0, "30.0"), (-1, -1), (0, None), ("", "-1")])
def test_numbers_are_read_in_every_form(tmp_path, crowd, number, size):
    coco = content(annotations=[annotation([SQUARE], iscrowd=crowd, image_id=number, category_id="7", id=-1)])
    coco["images"][0].update(height=size[0], width=size[1])
    coco["annotations"].append(annotation([[12, 1, 20, 1, 20, 9]], iscrowd="1", id=-1))
    write(tmp_path, coco)
    (image,) = open_dataset(tmp_path, ["house"]).images
    assert image.read(None).class_ids.tolist() == [1, -1]


def test_a_category_of_the_same_name_without_annotations_is_no_class(tmp_path):
    root = {"id": 0, "name": "house", "supercategory": "none"}
    write(tmp_path, content(categories=[root, {"id": 7, "name": "house", "supercategory": "house"}]))
    assert open_dataset(tmp_path, ["house"]).instance_counts == (1,)


def test_categories_can_mean_another_class(tmp_path):
    kinds = [{"id": 7, "name": "villa"}, {"id": 8, "name": "school"}, {"id": 9, "name": "tank"}]
    other = [12, 2, 18, 2, 18, 7, 12, 7]
    rows = [{**annotation([SQUARE if i == 7 else other]), "category_id": i} for i in (7, 8)]
    write(tmp_path, content(categories=kinds, annotations=rows))
    for texts in (["villa:house", "school:house"], ["*:house"]):
        values = ClassValues.parse(texts, ["house"])
        assert open_dataset(tmp_path, ["house"], class_values=values).instance_counts == (2,)
    with pytest.raises(DatasetError, match="class_values=school:house"):
        open_dataset(tmp_path, ["house"])


@pytest.mark.parametrize(
    "outline",
    [
        [SQUARE],
        SQUARE,
        [[[x, y] for x, y in zip(SQUARE[::2], SQUARE[1::2], strict=True)]],
        [[x, y] for x, y in zip(SQUARE[::2], SQUARE[1::2], strict=True)],
        [[str(value) for value in SQUARE]],
        [SQUARE, [4, 3, 6, 3, 6, 5, 4, 5]],  # a ring inside of another
    ],
)
def test_outlines_are_read_in_every_form(tmp_path, outline):
    write(tmp_path, content(annotations=[annotation(outline)]))
    (image,) = open_dataset(tmp_path, ["house"]).images
    (mask,) = image.read(None).masks
    assert (mask.box, mask.area) == ((2, 3, 7, 9), 30)
    half = image.read(Window(row=0, column=0, height=20, width=6))
    assert half.visible.tolist() == [0.5]


def without(coco, key, field):
    for row in coco[key]:
        del row[field]
    return coco


@pytest.mark.parametrize(
    ("coco", "message"),
    [
        (content(("a.png", "lost.png")), r"1 image\(s\) of .* not found: lost\.png"),
        (content(("a.png", "a.png")), "lists images more than once"),
        (content(categories=[{"id": 1, "name": "house"}]), "category_id 7, which 'categories' doesn't have"),
        (
            content(
                categories=[{"id": i, "name": "house"} for i in (7, 8)],
                annotations=[annotation([SQUARE]), {**annotation([SQUARE]), "category_id": 8}],
            ),
            "same name: house",
        ),
        (content(categories=[{"id": 7, "name": n} for n in "ab"]), "more than once in 'categories': 7"),
        (content(annotations=[{**annotation([SQUARE]), "image_id": 6}]), "image_id 6, which 'images'"),
        (content(annotations=[annotation([SQUARE], id=3, iscrowd="maybe")]), "iscrowd is 'maybe'"),
        (content(annotations=[annotation([], bbox=[3, 2, 6, 5])]), "have boxes but no outlines"),
        (content(annotations=[annotation([[0.1, 0.2, 0.9, 0.2, 0.9, 0.6]], id=3)]), "coordinates of 0 to 1"),
        (
            content(annotations=[annotation([[50, 2, 59, 2, 59, 7]], id=3)]),
            "1 label.* outside .*annotation 3",
        ),
        (content(annotations=[annotation([[5.6, 2, 6.4, 2, 6.4, 7]], id=3)]), "too small: annotation 3"),
        (content(annotations=[annotation({"size": [20, 30], "counts": [10**30]})]), "can't be read"),
        (without(content(), "annotations", "category_id"), "'annotations' needs image_id and category_id"),
        (content(annotations=None), "no complete COCO file"),
        (content(annotations=[annotation([[1, 2, 3]], id=3)]), "outline of annotation 3"),
        (
            content(annotations=[annotation({"size": [20, 31], "counts": [1]}, id=3)]),
            "outline of annotation 3",
        ),
        (content(annotations=[annotation({"size": [20, 30], "counts": [1]}, id=3)]), "add up to 20 x 30"),
        (content(images=[]), "No instance|No images|image_id 5"),
        (content(annotations=[]), "No instance of 'house'"),
    ],
)
def test_faults_are_named(tmp_path, coco, message):
    write(tmp_path, coco)
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path, ["house"])


def test_an_image_of_another_size_than_stated_is_refused(tmp_path):
    coco = content()
    coco["images"][0]["width"] = 31
    write(tmp_path, coco)
    with pytest.raises(DatasetError, match=r"20 x 31 pixels \(height x width\), it has 20 x 30"):
        open_dataset(tmp_path, ["house"])


def test_one_image_on_both_sides_is_refused(tmp_path):
    for part in ("train", "val"):
        write(tmp_path, content(), f"instances_{part}.json")
    with pytest.raises(DatasetError, match="more than one COCO file"):
        open_dataset(tmp_path, ["house"])


def test_broken_json_is_refused(tmp_path):
    path = write(tmp_path, content())
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DatasetError, match="can't be read as JSON"):
        open_dataset(tmp_path, ["house"])


def test_a_mixed_directory_is_refused(tmp_path):
    write(tmp_path, content())
    write_raster(tmp_path / "images" / "a-house-1.png", np.full((20, 30), 255, np.uint8))
    with pytest.raises(DatasetError, match="mixes COCO"):
        open_dataset(tmp_path, ["house"])


def test_a_json_of_something_else_is_no_dataset(tmp_path):
    path = tmp_path / "notes.json"
    path.write_text('{"images": 3}')
    with pytest.raises(DatasetError, match="no COCO instance file"):
        open_dataset(path, ["house"])
