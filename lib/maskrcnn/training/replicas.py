"""How a training step is spread over several devices: each takes an equal part of the batch.

The losses are those of the whole batch (sums and counts are added up over the devices before they are
divided), and so are the gradients: the weights come out as with all images on one device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import keras

from maskrcnn.devices.available import check_device_count
from maskrcnn.devices.place import Place
from maskrcnn.errors import DeviceError
from maskrcnn.network.model import MaskRCNN
from maskrcnn.network.training import TrainingNetwork


@dataclass(frozen=True)
class Devices:
    """The devices that share the training. names: for people."""

    names: str

    def training_network(self, network: MaskRCNN) -> TrainingNetwork:
        """`network`, which was built on these devices, ready to be trained on them."""
        return TrainingNetwork(network)


@contextlib.contextmanager
def use_devices(count: int, place: Place) -> Iterator[Devices]:
    """Inside of the context networks are built and trained on `count` devices, those of all processes.

    Raises:
        DeviceError: there are fewer devices here than this process should use.
    """
    here = place.share(count)
    names = ", ".join(check_device_count(here.stop - here.start))
    backend = keras.backend.backend()
    if count == 1:
        yield Devices(names)
    elif backend == "jax" and place.world_size == 1:
        import jax

        distribution = keras.distribution.DataParallel(
            devices=jax.devices()[:count], auto_shard_dataset=False
        )
        with distribution.scope():
            yield Devices(names)
    else:
        raise DeviceError(
            f"gpu_count={count} needs the Keras backend jax; the configured one, {backend}, trains on one. "
            "Set KERAS_BACKEND=jax"
        )
