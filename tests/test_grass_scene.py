"""Raster maps as scenes: their own cells, within the region, as the mask leaves them."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

READ = """
import json, sys
import numpy as np
from ann.grass.bands import MapScene, find_bands
from ann.grass.region import computational_region
with MapScene(find_bands(sys.argv[1].split(",")), extent=computational_region()) as scene:
    windows = json.loads(sys.argv[2]) if len(sys.argv) > 2 else [[0, 0, scene.height, scene.width]]
    for window in windows:
        pixels, valid = scene.read(*window)
print(json.dumps({"pixels": pixels.tolist(), "valid": valid.tolist(), "dtype": str(pixels.dtype),
                  "grid": [scene.grid.north, scene.grid.west, scene.grid.rows, scene.grid.columns,
                           scene.grid.row_size], "name": scene.name}))
"""


@pytest.fixture
def bands(session):
    """Three maps of 5 x 4 cells of 10 m: row() and col() in them, one NULL."""
    session.run("g.region", "n=50", "s=0", "w=100", "e=140", "res=10")
    session.calc("red = row()")
    session.calc("green = col() * 1000")
    session.calc("blue = if(row() == 2 && col() == 3, null(), 0.5)")
    return session


def read(session, names, windows=None):
    arguments = [names] + ([json.dumps(windows)] if windows else [])
    value = session.python_value(READ, *arguments)
    return np.array(value["pixels"]), np.array(value["valid"]), value


def test_values_come_from_the_maps_cells_whatever_the_regions_resolution(bands):
    bands.run("g.region", "res=7")
    before = bands.region()
    pixels, valid, scene = read(bands, "red,green")
    assert pixels[..., 0].tolist() == [[row] * 4 for row in range(1, 6)]
    assert pixels[..., 1].tolist() == [[1000, 2000, 3000, 4000]] * 5
    assert valid.all() and scene["dtype"] == "uint16"
    assert bands.region() == before


def test_a_cell_is_invalid_where_one_band_is_null(bands):
    pixels, valid, scene = read(bands, "red,blue")
    assert np.argwhere(~valid).tolist() == [[1, 2]]
    assert pixels[1, 2].tolist() == [0, 0] and pixels[0, 0].tolist() == [1, 0.5]
    assert scene["dtype"] == "float64"


def test_the_regions_extent_limits_the_scene_to_cells_it_touches(bands):
    bands.run("g.region", "n=35", "s=10", "w=100", "e=121", "res=1")
    pixels, _, scene = read(bands, "red,green")
    assert scene["grid"] == [40, 100, 3, 3, 10]
    assert pixels[..., 0].tolist() == [[2] * 3, [3] * 3, [4] * 3]


def test_masked_cells_are_invalid_and_the_mask_stays(bands):
    bands.calc("inside = if(col() < 3, 1, null())")
    bands.run("r.mask", "raster=inside")
    _, valid, _ = read(bands, "red,green")
    assert valid.tolist() == [[True, True, False, False]] * 5
    assert "MASK" in bands.maps("raster")


def test_windows_that_overlap_or_go_back_read_the_same(bands):
    whole, _, _ = read(bands, "red,green")
    for windows in ([[0, 0, 3, 4], [2, 1, 3, 2]], [[3, 0, 2, 4], [0, 2, 2, 2]]):
        row, column, height, width = windows[-1]
        part, _, _ = read(bands, "red,green", windows)
        assert (part == whole[row : row + height, column : column + width]).all()


def test_maps_of_other_mapsets_are_found_with_their_mapset(bands, project, addons, grass_folder):
    from grass_session import create_mapset, open_session

    create_mapset(project, "reader_of_others")
    other = open_session(project, "reader_of_others", addons, grass_folder)
    other.run("g.region", f"raster=red@{bands.mapset}")
    pixels, _, scene = read(other, f"red@{bands.mapset},green@{bands.mapset}")
    assert pixels[4, 0].tolist() == [5, 1000] and scene["name"] == f"red@{bands.mapset}"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("red,missing", "Raster map <missing> not found"),
        ("red,shifted", "<shifted@"),
        ("far", "outside of the computational region"),
    ],
)
def test_maps_that_do_not_fit_are_errors_that_name_them(bands, names, words):
    bands.run("g.region", "n=60", "s=10", "w=100", "e=140", "res=10")
    bands.calc("shifted = 1")
    bands.run("g.region", "n=600", "s=500", "w=100", "e=140", "res=10")
    bands.calc("far = 1")
    bands.run("g.region", "n=50", "s=0", "w=100", "e=140", "res=10")
    done = bands.python(READ, names, check=False)
    assert done.returncode and "ann.errors." in done.stderr and words in done.stderr


def test_nan_and_infinite_values_are_no_data(session, tmp_path):
    values = np.ones((3, 4), np.float32)
    values[0, 1], values[1, 2], values[2, 3] = np.inf, -np.inf, np.nan
    with rasterio.open(tmp_path / "map.tif", "w", driver="GTiff", height=3, width=4, count=1, dtype="float32",
                       crs="EPSG:32633", transform=from_origin(0, 3, 1, 1)) as target:  # fmt: skip
        target.write(values, 1)
    session.run("r.in.gdal", f"input={tmp_path / 'map.tif'}", "output=map")
    session.run("g.region", "raster=map")
    pixels, valid, _ = read(session, "map")
    assert np.argwhere(~valid).tolist() == [[0, 1], [1, 2], [2, 3]]
    assert (pixels[..., 0] == valid).all()


def test_negative_values_keep_their_sign(bands):
    bands.calc("depth = -row()")
    pixels, _, scene = read(bands, "depth")
    assert pixels[:, 0, 0].tolist() == [-1, -2, -3, -4, -5] and scene["dtype"] == "int32"
