"""Bands by meaning: what the maps or files say of their bands decides their order, whatever the group's."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from ann.config import ModelConfig
from ann.data.band_labels import common_labels, known_labels, places_of_bands
from ann.data.pixels.rasters import read_header
from ann.errors import SceneError
from ann.inference.files import FileScene
from grass_labels_of_bands import SOURCES, TRAINING
from maskrcnn.config import MaskRCNNConfig

WANTED = ("red", "green", "nir")


def test_bands_come_in_the_models_order():
    assert places_of_bands(["nir", "blue", "Red", "green"], WANTED, "It") == (2, 3, 0)
    assert places_of_bands([None, None], WANTED, "It") is None  # nothing is known of the bands
    assert places_of_bands(["nir", "red"], (), "It") is None  # or of the model's


def test_a_missing_band_is_named():
    with pytest.raises(SceneError, match=r"It lacks green. .* red, green, nir, and there are nir, red, \(no"):
        places_of_bands(["nir", "red", None], WANTED, "It")


def test_labels_count_where_each_band_has_its_own():
    assert known_labels(["red", " nir "]) == ("red", "nir")
    assert known_labels(["red", None]) == known_labels(["red", "RED"]) == known_labels([]) == ()
    assert common_labels([("red", "nir"), ("Red", "nir")]) == ("Red", "nir")
    assert common_labels([("red", "nir"), ("nir", "red")]) == common_labels([]) == ()


def test_a_model_keeps_them():
    config = MaskRCNNConfig(classes=("house",), band_labels=WANTED)
    assert MaskRCNNConfig.from_json(config.to_json()).band_labels == WANTED
    assert issubclass(MaskRCNNConfig, ModelConfig)
    for wrong in (("red", "red", "nir"), ("red", "nir")):
        with pytest.raises(ValueError, match="labels of"):
            MaskRCNNConfig(classes=("house",), band_labels=wrong)


def write_file(path, descriptions):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=4,
        width=5,
        count=len(descriptions),
        dtype="uint8",
        crs="EPSG:32633",
        transform=from_origin(0, 8, 2, 2),
    ) as target:
        for band, name in enumerate(descriptions, 1):
            target.write(np.full((4, 5), 10 * band, np.uint8), band)
            target.set_band_description(band, name)
    return str(path)


def test_files_know_them_by_the_descriptions_of_their_bands(tmp_path):
    path = write_file(tmp_path / "a.tif", ["nir", "red", "green"])
    assert read_header(path).band_labels == ("nir", "red", "green")
    with FileScene(path, (2, 3, 1)) as scene:
        assert scene.band_descriptions == ("red", "green", "nir")
        assert scene.read(0, 0, 1, 1)[0].tolist() == [[[20, 30, 10]]]


@pytest.fixture
def bands(session):
    """A group of three labelled maps and one without a label."""
    session.run("g.region", "n=10", "s=0", "w=0", "e=10", "res=1")
    for value, name in enumerate(("nir", "red", "green", "height"), 1):
        session.calc(f"{name} = {value}")
        if name != "height":
            session.run("r.semantic.label", "operation=add", f"map={name}", f"semantic_label={name}")
    session.run("i.group", "group=all", "input=height,nir,green,red")
    return session


def sources(session, check=True, **options):
    done = session.python(SOURCES, json.dumps({"bands": WANTED, **options}), check=False)
    return json.loads(done.stdout.splitlines()[-1])


def test_groups_and_files_are_read_in_the_models_order(bands, tmp_path):
    for order in (["nir", "red", "green"], ["green", "nir", "red"], ["a", "b", "c"]):
        write_file(tmp_path / f"{'_'.join(order)}.tif", order)
    first_pixels = sources(bands, group="all", images_directory=str(tmp_path))
    assert first_pixels == {
        "all": [2, 3, 1],
        "a_b_c.tif": [10, 20, 30],  # other names say nothing of what they mean
        "green_nir_red.tif": [30, 10, 20],
        "nir_red_green.tif": [20, 30, 10],
    }
    bands.run("i.group", "-r", "group=all", "input=green")
    assert "The group <all> lacks green" in sources(bands, group="all")["error"]
    write_file(tmp_path / "nir_red_green.tif", ["nir", "red", "something"])
    for name in ("a_b_c", "green_nir_red"):
        (tmp_path / f"{name}.tif").unlink()
    assert "lacks green" in sources(bands, images_directory=str(tmp_path))["error"]


def test_a_label_twice_in_a_group_is_refused(bands):
    bands.run("r.semantic.label", "operation=add", "map=height", "semantic_label=red")
    assert "has two maps with the semantic label red" in sources(bands, group="all")["error"]


def test_training_maps_tell_the_model_their_labels(bands):
    bands.run("v.in.region", "output=labels")
    bands.run("i.group", "group=training", "input=green,nir")
    assert bands.python_value(TRAINING) == [["green", "nir"], ["red", "nir"], []]
