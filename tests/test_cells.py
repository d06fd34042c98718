"""A value for each cell of a scene: the same however the scene is cut."""

import keras
import numpy as np
import pytest
from keras import layers

from ann.errors import AnnError
from ann.inference.cells import CellSettings, Part, cell_worker, predict_cells
from ann.inference.field_of_view import reach
from ann.inference.scene import ArrayScene
from ann.inference.tile_rows import Here, NetworkInput
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
    keras.utils.set_random_seed(1)
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


@pytest.mark.parametrize(("row", "column", "height", "width"), [(13, 7, 60, 90), (101, 50, 20, 120)])
def test_a_part_of_the_scene_has_the_values_of_the_whole(
    network, scene, everywhere, row, column, height, width
):
    values, valid = predicted(network, scene, Part(row=row, column=column, height=height, width=width), 160)
    inside = np.s_[row : row + height, column : column + width]
    np.testing.assert_array_equal(valid, everywhere[1][inside])
    np.testing.assert_allclose(values[valid], everywhere[0][inside][valid], atol=1e-5)


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


@pytest.mark.parametrize(
    ("side", "words"), [(100, "not a multiple of the network's stride of 8"), (128, "too small")]
)
def test_a_tile_size_that_does_not_fit_is_refused(network, scene, side, words):
    with pytest.raises(AnnError, match=words):
        predicted(network, scene, Part(row=0, column=0, height=8, width=8), side)
