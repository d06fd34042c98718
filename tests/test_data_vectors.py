"""Georeferenced images with vector files: where polygons come to lie, and which class they get."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from ann.data.pixels.windows import Window
from ann.data.readers.formats import open_dataset
from ann.data.readers.vectors import read_vectors
from ann.errors import DatasetError
from labelled_files import map_point, noise, write_raster, write_scene

pyogrio = pytest.importorskip("pyogrio")
shapely = pytest.importorskip("shapely")


def square(y1, x1, y2, x2):
    """A polygon in map coordinates around these pixels of an image of `write_raster`."""
    return shapely.Polygon([map_point(x, y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))])


def write_vector(path, geometries, crs="EPSG:32632", layer=None, geometry_type="Polygon", **columns):
    pyogrio.raw.write(
        path,
        np.array(shapely.to_wkb(geometries), dtype=object),
        field_data=[np.array(values, dtype=object) for values in columns.values()],
        fields=list(columns),
        geometry_type=geometry_type,
        crs=crs,
        layer=layer,
        append=layer is not None,
    )


@pytest.fixture
def image(tmp_path):
    return write_raster(tmp_path / "scene.tif", noise(40, 60))


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".shp"])
def test_polygons_come_to_lie_on_their_pixels(tmp_path, image, suffix):
    boxes = [(2, 3, 12, 20), (20, 30, 35, 50)]
    write_vector(tmp_path / f"scene{suffix}", [square(*box) for box in boxes], **{"class": ["a", "b"]})
    dataset = open_dataset(tmp_path, ["b", "a"])
    labelled = dataset.images[0]
    assert (labelled.name, labelled.pixel_size, labelled.instance_counts) == ("scene.tif", 0.5, (1, 1))
    example = labelled.read(None)
    assert [mask.box for mask in example.masks] == boxes
    assert [mask.pixels.all() for mask in example.masks] == [True, True]
    assert example.class_ids.tolist() == [2, 1]
    np.testing.assert_array_equal(example.image, noise(40, 60))


def test_other_coordinate_systems_are_brought_to_that_of_the_image(tmp_path, image):
    from rasterio.warp import transform

    outline = shapely.transform(
        square(2, 3, 12, 20), lambda p: np.column_stack(transform("EPSG:32632", "EPSG:4326", *p.T))
    )
    write_vector(tmp_path / "scene.geojson", [outline], crs="EPSG:4326", label=["a"])
    assert open_dataset(tmp_path, ["a"]).images[0].read(None).masks[0].box == (2, 3, 12, 20)


def test_one_vector_file_serves_all_images_of_a_directory(tmp_path, image):
    shifted = Affine(0.5, 0, 500_030, 0, -0.5, 6_000_000)
    write_raster(tmp_path / "east.tif", noise(40, 60), transform=shifted)
    write_vector(tmp_path / "all.gpkg", [square(2, 3, 12, 20), square(5, 50, 15, 65)], label=["a", "a"])
    dataset = open_dataset(tmp_path, ["a"])
    assert {image.name: image.instance_counts for image in dataset.images} == {
        "east.tif": (1,),
        "scene.tif": (2,),
    }
    east = dataset.images[0].read(None)
    assert east.masks[0].box == (5, 0, 15, 5)
    assert east.visible[0] == pytest.approx(1 / 3)


def test_windows_of_a_mosaic_hold_what_is_inside(tmp_path, image):
    hole = square(2, 3, 12, 20).difference(square(4, 5, 6, 7))
    write_vector(tmp_path / "scene.gpkg", [hole], label=["a"])
    labelled = open_dataset(tmp_path, ["a"]).images[0]
    example = labelled.read(Window(row=3, column=4, height=5, width=10))
    expected = np.ones((5, 10), bool)
    expected[1:3, 1:3] = False
    np.testing.assert_array_equal(example.masks[0].pixels, expected)
    assert example.visible[0] == pytest.approx(46 / 166)
    assert labelled.read(Window(row=20, column=0, height=5, width=5)).masks == ()


def test_multi_polygons_are_one_instance(tmp_path, image):
    both = shapely.MultiPolygon([square(2, 3, 6, 8), square(2, 20, 6, 25)])
    write_vector(tmp_path / "scene.gpkg", [both], label=["a"], geometry_type="MultiPolygon")
    example = open_dataset(tmp_path, ["a"]).images[0].read(None)
    assert len(example.masks) == 1
    assert (example.masks[0].box, example.masks[0].area) == ((2, 3, 6, 25), 40)


def test_invalid_polygons_are_repaired_and_named(tmp_path, image):
    (x1, y1), (x2, y2) = map_point(2, 2), map_point(12, 12)
    bow_tie = shapely.Polygon([(x1, y1), (x2, y2), (x2, y1), (x1, y2)])
    write_vector(tmp_path / "scene.gpkg", [bow_tie], label=["a"])
    dataset = open_dataset(tmp_path, ["a"])
    assert "repaired: fid 1" in dataset.notes[0]
    assert dataset.images[0].read(None).masks[0].area == pytest.approx(50, abs=10)


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_a_vector_file_without_coordinate_system_is_taken_for_that_of_the_image(tmp_path, image):
    write_vector(tmp_path / "scene.shp", [square(2, 3, 12, 20)], crs=None, label=["a"])
    dataset = open_dataset(tmp_path, ["a"])
    assert dataset.images[0].instance_counts == (1,)
    assert "no coordinate system" in dataset.notes[0]


def test_the_class_column_is_found_or_named(tmp_path, image):
    squares = [square(2, 3, 12, 20), square(20, 30, 35, 50)]
    write_vector(tmp_path / "scene.gpkg", squares, crop=["oat", "rye"], owner=["x", "y"])
    assert open_dataset(tmp_path, ["oat", "rye"]).instance_counts == (1, 1)
    assert open_dataset(tmp_path, ["x", "y"], class_column="owner").instance_counts == (1, 1)
    with pytest.raises(DatasetError, match="no column 'crops'; there are crop, owner"):
        open_dataset(tmp_path, ["oat", "rye"], class_column="crops")
    with pytest.raises(DatasetError, match=r"It isn't clear .* crop \(oat, rye\); owner \(x, y\)"):
        open_dataset(tmp_path, ["wheat", "barley"])


def test_without_a_class_column_all_polygons_are_of_the_only_class(tmp_path, image):
    write_vector(tmp_path / "scene.gpkg", [square(2, 3, 12, 20)], owner=["x"])
    dataset = open_dataset(tmp_path, ["field"])
    assert dataset.instance_counts == (1,)
    assert "count as 'field'" in dataset.notes[0]


def test_a_misspelt_class_is_not_taken_for_the_only_class(tmp_path, image):
    write_vector(tmp_path / "scene.gpkg", [square(2, 3, 12, 20)], **{"class": ["building"]})
    with pytest.raises(DatasetError, match="'building'"):
        open_dataset(tmp_path, ["house"])


def test_numbers_are_class_names_too(tmp_path, image):
    write_vector(tmp_path / "scene.geojson", [square(2, 3, 12, 20), square(20, 30, 35, 50)], label=[1, 2])
    assert open_dataset(tmp_path, ["2", "1"]).instance_counts == (1, 1)


def unplaced_image(root):
    write_raster(root / "plain.png", noise(40, 60))
    write_vector(root / "plain.gpkg", [square(0, 0, 9, 9)], label=["a"])


def image_without_vector(root):
    write_raster(root / "other" / "lone.tif", noise(40, 60))


def two_candidates(root):
    write_raster(root / "other" / "lone.tif", noise(40, 60))
    for name in ("one", "two"):
        write_vector(root / "other" / f"{name}.gpkg", [square(0, 0, 9, 9)], label=["a"])


def empty_class(root):
    (root / "scene.gpkg").unlink()
    write_vector(root / "scene.gpkg", [square(0, 0, 9, 9), square(9, 9, 12, 12)], label=["a", None])


def two_layers(root):
    write_vector(root / "scene.gpkg", [square(0, 0, 9, 9)], label=["a"], layer="second")


def damaged(root):
    (root / "scene.gpkg").write_bytes(b"no database")


def elsewhere(root):
    (root / "scene.gpkg").unlink()
    write_vector(root / "scene.gpkg", [square(1000, 1000, 1009, 1009)], label=["a"])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unplaced_image, r"plain\.png isn't georeferenced"),
        (image_without_vector, r"1 image\(s\) without a vector file: .*lone\.tif"),
        (two_candidates, r"Several vector files could belong to .*lone\.tif: .*one\.gpkg, .*two\.gpkg"),
        (empty_class, r"1 polygon\(s\) of .* have no class: fid 2"),
        (two_layers, r"one layer of polygons in .* found scene \(Polygon\), second \(Polygon\)"),
        (damaged, r"scene\.gpkg can't be read"),
        (elsewhere, "No polygon lies on an image"),
    ],
)
def test_faults_are_named(tmp_path, image, spoil, message):
    write_vector(tmp_path / "scene.gpkg", [square(2, 3, 12, 20)], label=["a"])
    spoil(tmp_path)
    with pytest.raises(DatasetError) as error:
        open_dataset(tmp_path, ["a"])
    assert re.search(message, str(error.value)), str(error.value)


def test_a_class_that_lies_outside_of_all_images_has_no_instance(tmp_path, image):
    squares = [square(2, 3, 12, 20), square(1000, 1000, 1009, 1009)]
    write_vector(tmp_path / "scene.gpkg", squares, label=["a", "b"])
    with pytest.raises(DatasetError, match="No instance of 'b'"):
        open_dataset(tmp_path, ["a", "b"])


def test_an_empty_vector_file_marks_a_negative(tmp_path, image):
    write_vector(tmp_path / "scene.gpkg", [square(2, 3, 12, 20)], label=["a"])
    for name, suffix in (("bare", ".geojson"), ("bald", ".gpkg")):
        write_raster(tmp_path / f"{name}.tif", noise(40, 60))
        write_vector(tmp_path / f"{name}{suffix}", [], label=[])
    dataset = open_dataset(tmp_path, ["a"])
    assert [image.instance_counts for image in dataset.images] == [(0,), (0,), (1,)]


def test_polygons_beyond_what_the_images_system_can_show_are_not_on_it(tmp_path, image):
    inside = shapely.box(9.0, 54.0, 9.1, 54.2)  # degrees, around the image at 54.14 N
    pole = shapely.box(100, 89, 110, 95)
    write_vector(tmp_path / "scene.geojson", [inside, pole], crs="EPSG:4326", label=["a", "a"])
    assert open_dataset(tmp_path, ["a"]).instance_counts == (1,)


def test_points_are_ignored_and_named(tmp_path, image):
    features = [
        {"type": "Feature", "properties": {"label": "a"}, "geometry": geometry.__geo_interface__}
        for geometry in (square(2, 3, 12, 20), shapely.Point(map_point(3, 3)))
    ]
    collection = {
        "type": "FeatureCollection",
        "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}},
        "features": features,
    }
    (tmp_path / "scene.geojson").write_text(json.dumps(collection))
    dataset = read_vectors(tmp_path, ["a"])
    assert dataset.instance_counts == (1,)
    assert "no polygon were ignored: fid 1" in dataset.notes[0]


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_objects_are_seen_where_the_image_is_not_transparent(tmp_path, bands):
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:, 10:] = 0
    pixels = np.concatenate([noise(40, 60, bands), alpha], axis=-1)
    with rasterio.open(write_raster(tmp_path / "scene.tif", pixels), "r+") as file:
        file.colorinterp = [ColorInterp.gray] * bands + [ColorInterp.alpha]
    write_vector(tmp_path / "scene.gpkg", [square(2, 3, 12, 20), square(20, 30, 35, 50)], label=["a", "a"])
    (labelled,) = open_dataset(tmp_path, ["a"]).images
    example = labelled.read(None)
    assert labelled.bands == bands
    np.testing.assert_array_equal(example.valid, alpha[..., 0] > 0)
    assert not example.image[:, 10:].any() and example.image[:, :10].all()
    assert [mask.box for mask in example.masks] == [(2, 3, 12, 10)]
    assert example.visible[0] == pytest.approx(7 / 17)


def test_a_class_column_is_refused_where_there_is_none(tmp_path):
    write_scene(tmp_path, "s", [("a", (1, 1, 9, 9))])
    with pytest.raises(DatasetError, match="class_column=kind is for vector files"):
        open_dataset(tmp_path, ["a"], class_column="kind")
