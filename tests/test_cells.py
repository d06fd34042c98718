"""A value for each cell of a scene: the same however the scene is cut, and whoever computes it."""

from __future__ import annotations

import time
from concurrent.futures import Future

import keras
import numpy as np
import pytest
from keras import layers

from ann.cluster.tile_worker import SceneFile, TileWorker
from ann.errors import AnnError
from ann.inference.cells import CellSettings, Part, cell_worker, cut_part, halo, predict_cells
from ann.inference.compilation import compile_model
from ann.inference.field_of_view import reach
from ann.inference.files import FileScene
from ann.inference.resample import ResampledScene
from ann.inference.scene import ArrayScene
from ann.inference.tile_rows import Here, NetworkInput
from ann.inference.workers import workers_of
from ann.training.seeds import seed_everything
from labelled_files import write_raster
from unet.config import UNetConfig
from unet.network.encoders import convolutions
from unet.network.losses import probabilities
from unet.network.model import join_levels

HEIGHT, WIDTH = 210, 170


def narrow_vgg(outputs):
    """A U-Net that sees as far as unet_vgg does, with few channels."""
    x = images = keras.Input((None, None, 3))
    levels = []
    for level, count in enumerate((2, 2, 3, 3)):
        x = layers.MaxPooling2D(2)(x) if level else x
        x = convolutions(x, 4, count, name=f"encoder{level}", normalise=True)
        levels.append(x)
    x = join_levels(levels, (4, 4, 4), up="transpose", normalise=True)
    return keras.Model(images, layers.Conv2D(outputs, 3, padding="same")(x))


@pytest.fixture(scope="module")
def network():
    seed_everything(1)
    config = UNetConfig(classes=("road", "water"), backbone="unet_vgg", image_shape=(64, 64))
    return config, narrow_vgg(config.output_count)


@pytest.fixture(scope="module")
def scene():
    generator = np.random.default_rng(2)
    pixels = generator.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    valid = np.ones((HEIGHT, WIDTH), bool)
    valid[30:60, 40:90] = False
    return ArrayScene(np.where(valid[..., None], pixels, 0), valid)


def predicted(network, scene, part, side, batch_size=1):
    config, model = network
    settings = CellSettings(
        given=NetworkInput(
            tile_shape=(side, side),
            band_mean=config.band_mean,
            band_scale=(50.0,) * 3,
            batch_size=batch_size,
        ),
        reach=reach(model, config.size_multiple),
        stride=config.size_multiple,
    )
    worker = cell_worker(lambda images: keras.ops.convert_to_numpy(probabilities(model(images))), settings)
    rows = list(predict_cells(scene, part, Here(worker), settings))
    assert [one.row for one in rows] == sorted(one.row for one in rows)
    assert sum(len(one.values) for one in rows) == part.height
    return np.concatenate([one.values for one in rows]), np.concatenate([one.valid for one in rows])


@pytest.fixture(scope="module")
def everywhere(network, scene):
    return predicted(network, scene, Part(row=0, column=0, height=HEIGHT, width=WIDTH), 192)


def test_no_tile_size_and_no_batch_size_changes_a_value(network, scene, everywhere):
    values, valid = predicted(network, scene, Part(row=0, column=0, height=HEIGHT, width=WIDTH), 160, 2)
    assert values.shape == (HEIGHT, WIDTH, 3)
    np.testing.assert_allclose(values[valid], everywhere[0][everywhere[1]], atol=1e-5)
    np.testing.assert_array_equal(valid, everywhere[1])
    assert not valid[30:60, 40:90].any() and valid[:30].all()


def test_a_scene_that_begins_elsewhere_on_the_ground_has_the_same_values(network, scene, everywhere):
    """The scene is what a map shows from its row 5 and column 3 on, with all that the network can see."""
    pixels, valid = scene.read(5, 3, HEIGHT - 5, WIDTH - 3)
    values, known = predicted(
        network,
        ArrayScene(pixels, valid),
        Part(row=80, column=80, height=40, width=30, origin=(5, 3)),
        160,
    )
    inside = np.s_[85:125, 83:113]
    np.testing.assert_allclose(values[known], everywhere[0][inside][known], atol=1e-5)


@pytest.fixture(scope="module")
def small():
    """A network of two levels that sees 7 cells around one: many scenes cost little. With its reach."""
    images = keras.Input((None, None, 3))
    top = layers.Conv2D(4, 3, padding="same", activation="relu")(images)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(layers.MaxPooling2D(4)(top))
    x = layers.Concatenate()([top, layers.UpSampling2D(4)(x)])
    seed_everything(3)
    model = keras.Model(images, layers.Conv2D(2, 3, padding="same", activation="softmax")(x))
    network = compile_model(model)
    return lambda images: keras.ops.convert_to_numpy(network(images)), reach(model, 4)


@pytest.mark.parametrize("size", [(40, 36), (5, 3)])  # and one smaller than what the network sees
def test_beyond_its_border_a_scene_is_mirrored(small, size):
    network, seen = small
    pixels = np.random.default_rng(1).integers(0, 255, (*size, 3), dtype=np.uint8)
    around = 12  # cells, a multiple of the stride, and more than are seen
    mirrored = np.pad(pixels, ((around, around), (around, around), (0, 0)), mode="symmetric")
    settings = small_settings(seen, 32)
    worker = Here(cell_worker(network, settings))
    height, width = size
    values, valid = all_rows(
        ArrayScene(pixels), Part(row=0, column=0, height=height, width=width), worker, settings
    )
    within = Part(row=around, column=around, height=height, width=width)
    expected, _ = all_rows(ArrayScene(mirrored), within, worker, settings)
    assert valid.all() and around > seen
    np.testing.assert_allclose(values, expected, atol=1e-5)


def small_settings(seen, side, batch_size=1):
    given = NetworkInput(
        tile_shape=(side, side), band_mean=(99,) * 3, band_scale=(50,) * 3, batch_size=batch_size
    )
    return CellSettings(given=given, reach=seen, stride=4)


def all_rows(scene, part, workers, settings):
    rows = list(predict_cells(scene, part, workers, settings))
    return np.concatenate([one.values for one in rows]), np.concatenate([one.valid for one in rows])


@pytest.fixture(scope="module")
def known(small, scene):
    settings = small_settings(small[1], 256)
    part = Part(row=0, column=0, height=HEIGHT, width=WIDTH)
    return all_rows(scene, part, Here(cell_worker(small[0], settings)), settings)


@pytest.mark.parametrize("seed", range(8))
def test_neither_tiles_nor_region_nor_workers_change_a_value(small, scene, known, seed):
    """Any tile size, batch size, number of workers, and part of a scene, of which no more is there than the
    network sees.
    """
    network, seen = small
    generator = np.random.default_rng(seed)
    row, column = int(generator.integers(HEIGHT)), int(generator.integers(WIDTH))
    height, width = (int(generator.integers(1, 1 + rest)) for rest in (HEIGHT - row, WIDTH - column))
    top, left = max(0, row - halo(seen, 4)), max(0, column - halo(seen, 4))
    bottom, right = min(HEIGHT, row + height + halo(seen, 4)), min(WIDTH, column + width + halo(seen, 4))
    shown = ArrayScene(*scene.read(top, left, bottom - top, right - left))
    part = Part(row=row - top, column=column - left, height=height, width=width, origin=(top, left))
    settings = small_settings(seen, 4 * [10, 21, 33][seed % 3], batch_size=int(generator.integers(1, 4)))
    work = cell_worker(network, settings)

    def delayed(seconds):  # so that batches come back in another order than they went
        return lambda batch: (time.sleep(seconds), work(batch))[1]

    with workers_of([delayed(one) for one in generator.uniform(0, 0.004, 1 + seed % 4)]) as workers:
        values, valid = all_rows(shown, part, workers, settings)
    inside = np.s_[row : row + height, column : column + width]
    np.testing.assert_array_equal(valid, known[1][inside])
    np.testing.assert_allclose(values[valid], known[0][inside][valid], atol=1e-5)


class SelfReading:
    """A worker that reads the scene itself, as those of a cluster do, in this process."""

    in_flight = 2
    reads_scene = True

    def __init__(self, function, file):
        self._function, self._file = function, file
        self._worker = TileWorker(self, threads=0)
        self._worker.load(b"")

    def load(self, path, threads):
        return self._function, "this process"

    def submit(self, batch):
        future = Future()
        future.set_result(self._worker.detect(batch, self._file))
        return future


@pytest.mark.parametrize("factor", [None, 1.7])
def test_workers_that_read_the_file_themselves_see_what_lies_around_the_scene(small, scene, factor, tmp_path):
    network, seen = small
    pixels = scene.read(0, 0, HEIGHT, WIDTH)[0].astype(np.uint8)
    pixels[:130, :120] = 0  # hence tiles without data
    path = str(write_raster(tmp_path / "scene.tif", pixels, nodata=0))
    settings = small_settings(seen, 60, batch_size=2)
    work = cell_worker(network, settings, lambda values: np.float32(values * 100).round())
    with FileScene(path) as file:
        shown = file if factor is None else ResampledScene(file, factor)
        part = Part(row=0, column=0, height=shown.height, width=shown.width)
        itself = SelfReading(work, SceneFile(path=path, factor=factor, padding=cut_part(part, settings)[0]))
        expected, valid = all_rows(shown, part, Here(work), settings)
        values, known = all_rows(shown, part, itself, settings)
    assert 0 < valid.sum() < valid.size
    np.testing.assert_array_equal(known, valid)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(
    ("side", "words"), [(100, "not a multiple of the network's stride of 8"), (128, "too small")]
)
def test_a_tile_size_that_does_not_fit_is_refused(network, scene, side, words):
    with pytest.raises(AnnError, match=words):
        predicted(network, scene, Part(row=0, column=0, height=8, width=8), side)
