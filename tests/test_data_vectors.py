"""Georeferenced images with vector files: where polygons come to lie, and which class they get."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.enums import ColorInterp

from ann.data.pixels.windows import Window
from ann.data.readers.class_column import ClassValues
from ann.data.readers.formats import open_dataset
from ann.data.readers.vectors import read_vectors
from ann.errors import DatasetError
from labelled_files import map_point, noise, write_raster, write_scene


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


def test_all_polygons_are_of_the_only_class_unless_a_column_holds_it(tmp_path, image):
    squares = [square(2, 3, 12, 20), square(20, 30, 35, 50), square(2, 30, 12, 50)]
    osm = {"building": ["yes", "house", "school"], "label": [1, 1, 1]}
    write_vector(tmp_path / "scene.gpkg", squares, **osm)
    dataset = open_dataset(tmp_path, ["roof"])
    assert dataset.instance_counts == (3,)
    assert "count as 'roof': no column holds a class (building (house, school, yes)" in dataset.notes[0]
    (tmp_path / "scene.gpkg").unlink()
    write_vector(tmp_path / "scene.gpkg", squares, kind=["roof", "tank", "roof"], **osm)
    with pytest.raises(DatasetError, match=r"'tank'.*class_values=tank:roof"):
        open_dataset(tmp_path, ["roof"])


def test_a_file_of_another_class_is_not_taken_for_the_only_class(tmp_path, image):
    write_raster(tmp_path / "other.tif", noise(40, 60))
    write_vector(tmp_path / "scene.gpkg", [square(2, 3, 12, 20)], kind=["roof"])
    write_vector(tmp_path / "other.gpkg", [square(2, 3, 12, 20)], kind=["tank"])
    with pytest.raises(DatasetError, match="'tank'"):
        open_dataset(tmp_path, ["roof"])


def test_several_values_can_mean_one_class(tmp_path, image):
    squares = [square(2, 3, 12, 20), square(20, 30, 35, 50), square(2, 30, 12, 50)]
    write_vector(tmp_path / "scene.gpkg", squares, kind=["house", "tank", None], size=[1, 2, 3])

    def count(classes, *texts, column=None):
        values = ClassValues.parse(texts, classes)
        return open_dataset(tmp_path, classes, column, values).instance_counts

    assert count(["roof", "tank"], "house:roof", "*:roof") == (2, 1)
    assert count(["tank", "roof"], "*:roof") == (1, 2)
    assert count(["roof"], "*:roof") == (3,)
    assert count(["small", "big"], "1:small", "2:small", "3:big") == (2, 1)
    assert count(["roof"], "*:roof", column="kind") == (3,)
    with pytest.raises(DatasetError, match=r"1 polygon\(s\) of .* have no class: fid 3"):
        count(["roof", "tank"], "house:roof")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("house", "Give value:class"),
        ("house:", "Give value:class"),
        (":roof", "Give value:class"),
        ("house:barn", "'barn', which is not in classes=roof"),
    ],
)
def test_a_meaning_that_is_none_is_refused(text, message):
    with pytest.raises(DatasetError, match=message):
        ClassValues.parse([text], ["roof"])


def test_a_value_of_two_meanings_is_refused():
    with pytest.raises(DatasetError, match="gives 'a' two classes, 'roof' and 'tank'"):
        ClassValues.parse(["a:roof", "a:tank"], ["roof", "tank"])
    assert ClassValues.parse(["a:b:roof"], ["roof"]).by_value == {"a:b": "roof"}


def test_what_no_pixel_shows_is_named_and_not_counted(tmp_path, image):
    squares = [square(2, 3, 12, 20), square(5.6, 30.6, 6.4, 31.4), square(1000, 1000, 1009, 1009)]
    write_vector(tmp_path / "scene.gpkg", squares, label=["a"] * 3)
    dataset = open_dataset(tmp_path, ["a"])
    assert dataset.instance_counts == (1,) and len(dataset.images[0].boxes) == 1
    outside, small = sorted(dataset.notes, key=lambda note: "too small" in note)
    assert "1 label(s) lie outside" in outside and "fid 3 of" in outside
    assert "1 label(s) were ignored" in small and "fid 2 of" in small
    (tmp_path / "scene.gpkg").unlink()
    write_vector(tmp_path / "scene.gpkg", squares[:2], label=["a", "b"])
    with pytest.raises(DatasetError, match=r"No instance of 'b'.*too small: fid 2"):
        open_dataset(tmp_path, ["a", "b"])


def test_a_polygon_given_twice_is_one_object(tmp_path, image):
    one, other = square(2, 3, 12, 20), square(20, 30, 35, 50)
    again = shapely.Polygon(one.exterior.coords[2:-1] + one.exterior.coords[:2])
    write_vector(tmp_path / "scene.gpkg", [one, other, again.reverse()], label=["a"] * 3)
    dataset = open_dataset(tmp_path, ["a"])
    assert dataset.instance_counts == (2,)
    assert "labelled more than once: fid 3" in dataset.notes[0]


@pytest.mark.parametrize(
    ("parts", "far"),
    [
        ([(2, 20, 6, 25), (2, 26, 6, 30)], False),  # a roof under a branch
        ([(2, 3, 6, 8), (30, 40, 36, 50)], True),
        ([(2, 3, 12, 13), (2, 25, 12, 35)], True),  # side by side
        ([(20, 30, 30, 45), (32, 47, 40, 55)], False),
        ([(2, 2, 10, 10), (11, 11, 19, 19), (20, 20, 28, 28)], False),  # a chain
        ([(2, 2, 10, 10), (11, 11, 19, 19), (30, 30, 38, 38)], True),
    ],
)
def test_parts_far_apart_are_named(tmp_path, image, parts, far):
    whole = shapely.MultiPolygon([square(*part) for part in parts])
    write_vector(tmp_path / "scene.gpkg", [whole], label=["a"], geometry_type="MultiPolygon")
    dataset = open_dataset(tmp_path, ["a"])
    assert dataset.instance_counts == (1,)
    assert [("far apart" in note, "fid 1." in note) for note in dataset.notes] == [(True, True)] * far


@pytest.mark.parametrize("degrees", [0, 30, 90, 180])
def test_the_pixel_size_is_that_along_the_rows_however_the_image_is_turned(tmp_path, degrees):
    turned = Affine.translation(500_000, 6_000_000) @ Affine.rotation(degrees) @ Affine.scale(0.5, -0.5)
    write_raster(tmp_path / "scene.tif", noise(40, 60), transform=turned)
    outline = shapely.Polygon([turned @ corner for corner in ((3, 2), (20, 2), (20, 12), (3, 12))])
    write_vector(tmp_path / "scene.gpkg", [outline], label=["a"])
    (labelled,) = open_dataset(tmp_path, ["a"]).images
    assert labelled.pixel_size == pytest.approx(0.5)
    (mask,) = labelled.read(None).masks
    assert mask.box == (2, 3, 12, 20)


def undefined_in_geopackage(number):
    def write(path, geometries):
        write_vector(path, geometries, label=["a"])
        with closing(sqlite3.connect(path)) as database:
            for table in ("gpkg_contents", "gpkg_geometry_columns"):
                database.execute(f"UPDATE {table} SET srs_id = {number}")
            database.commit()

    return write


def local(path, geometries):
    write_vector(path, geometries, crs='LOCAL_CS["drawing",UNIT["metre",1]]', label=["a"])


@pytest.mark.parametrize("write", [undefined_in_geopackage(0), undefined_in_geopackage(-1), local])
def test_an_undefined_coordinate_system_is_none(tmp_path, image, write):
    write(tmp_path / "scene.gpkg", [square(2, 3, 12, 20)])
    dataset = open_dataset(tmp_path, ["a"])
    assert dataset.images[0].read(None).masks[0].box == (2, 3, 12, 20)
    assert "no coordinate system" in dataset.notes[0]


def test_a_local_system_of_the_image_is_none(tmp_path):
    write_raster(tmp_path / "scene.tif", noise(40, 60), crs='LOCAL_CS["drawing",UNIT["metre",1]]')
    write_vector(tmp_path / "scene.gpkg", [square(2, 3, 12, 20)], label=["a"])
    dataset = open_dataset(tmp_path, ["a"])
    assert dataset.instance_counts == (1,) and "no coordinate system" in dataset.notes[0]


ACROSS = {  # the same outline, 0.2 degrees on either side of 180
    "jumps": [(179.8, 0.1), (-179.8, 0.1), (-179.8, -0.1), (179.8, -0.1)],
    "goes on": [(179.8, 0.1), (180.2, 0.1), (180.2, -0.1), (179.8, -0.1)],
    "comes from below": [(-180.2, 0.1), (-179.8, 0.1), (-179.8, -0.1), (-180.2, -0.1)],
}


@pytest.mark.parametrize("form", [*ACROSS, "parts"])
@pytest.mark.parametrize("west", [179.0, -181.0])
def test_outlines_across_180_degrees_come_to_lie_on_their_pixels(tmp_path, form, west):
    if form == "parts":
        outline = shapely.MultiPolygon(
            [shapely.box(179.8, -0.1, 180, 0.1), shapely.box(-180, -0.1, -179.8, 0.1)]
        )
    else:
        outline = shapely.Polygon(ACROSS[form])
    write_vector(
        tmp_path / "scene.geojson", [outline], crs="EPSG:4326", label=["a"], geometry_type=outline.geom_type
    )
    grid = Affine(0.05, 0, west, 0, -0.05, 1)
    write_raster(tmp_path / "scene.tif", noise(40, 40), crs="EPSG:4326", transform=grid)
    dataset = open_dataset(tmp_path, ["a"])
    assert [mask.box for mask in dataset.images[0].read(None).masks] == [(18, 16, 22, 24)]
    assert not dataset.notes


@pytest.mark.parametrize("form", ACROSS)
def test_outlines_across_180_degrees_lie_on_projected_images_and_at_both_ends_of_the_world(tmp_path, form):
    from rasterio.warp import transform

    labels = {"crs": "EPSG:4326", "label": ["a"]}
    write_vector(tmp_path / "all.geojson", [shapely.Polygon(ACROSS[form])], **labels)
    (x,), (y,) = transform("EPSG:4326", "EPSG:32660", [179.8], [0.0])
    grid = Affine(1000, 0, x - 10_000, 0, -1000, y + 20_000)
    write_raster(tmp_path / "zone.tif", noise(40, 80), crs="EPSG:32660", transform=grid)
    world = Affine(0.02, 0, -180, 0, -0.02, 0.4)
    write_raster(tmp_path / "world.tif", noise(40, 18_000), crs="EPSG:4326", transform=world)
    found = {image.name: image.read(None).masks for image in open_dataset(tmp_path, ["a"]).images}
    (mask,) = found["zone.tif"]
    assert mask.box[1] == 10 and 40 <= mask.box[3] - mask.box[1] <= 48  # 0.4 degrees
    assert sorted(mask.box for mask in found["world.tif"]) == [
        (15, 0, 25, 10),
        (15, 17_990, 25, 18_000),
    ]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_world_files_of_all_named_forms_place_an_image(tmp_path, suffix):
    plain = {"crs": None, "transform": None} if suffix == ".tif" else {}
    write_raster(tmp_path / f"scene{suffix}", noise(40, 60), **plain)
    write_vector(tmp_path / "scene.gpkg", [square(2, 3, 12, 20)], label=["a"])
    with pytest.raises(DatasetError, match=r"isn't georeferenced.* add a world file: ") as error:
        open_dataset(tmp_path, ["a"])
    forms = str(error.value).rsplit("world file: ")[1].rstrip(".").split(", ")
    assert len(forms) == 3 and f"scene{suffix}w" in forms
    for form in forms:
        world = tmp_path / form
        world.write_text("0.5\n0\n0\n-0.5\n500000.25\n5999999.75\n")
        assert open_dataset(tmp_path, ["a"]).images[0].read(None).masks[0].box == (2, 3, 12, 20)
        world.unlink()


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
        (elsewhere, "No polygon lies on an image .* 500000 to 500030 east .* 500500 to 500504.5 east"),
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
