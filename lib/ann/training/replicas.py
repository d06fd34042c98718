"""How a training step is spread over several devices: each takes an equal part of the batch.

The losses are those of the whole batch (sums and counts are added up over the devices before they are
divided), and so are the gradients: the weights come out as with all images on one device.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras

from ann.backbones.initial import nothing_drawn
from ann.devices.available import check_device_count, list_devices
from ann.devices.place import Place
from ann.devices.sharing import ALONE, Sharing
from ann.errors import DeviceError
from ann.training.model import TrainingModel
from ann.training.shares import replicated


@dataclass(frozen=True)
class Devices:
    """The devices that share the training.

    names: those of this process, for people.
    training_model: from a class of `TrainingModel` and what it is made of, with a network that was built
        inside of `use_devices`, a model that is trained on them.
    sharing: of other work, among the processes; only the first one writes files.
    agree: what the first process says in place of this process' number, so that all decide alike.
    local: from a function that builds the network, and the one that is trained: a network that this process
        can use by itself, and a function that gives it the weights that the other one has.
    """

    names: str = ""
    training_model: Callable[..., TrainingModel] = lambda training_class, *arguments: training_class(
        *arguments
    )
    sharing: Sharing = ALONE
    agree: Callable[[float], float] = float
    local: Callable[..., tuple[keras.Model, Callable[[], None]]] = lambda build, network: (
        network,
        lambda: None,
    )

    @property
    def first(self) -> bool:
        """Whether this is the one process, or the first of several, that writes files."""
        return self.sharing.first


@contextlib.contextmanager
def use_devices(count: int, place: Place) -> Iterator[Devices]:
    """Inside of the context networks are built and trained on `count` devices, those of all processes.

    JAX and TensorFlow use all devices of a machine from one process, PyTorch from a process for each device.

    Raises:
        DeviceError: there are fewer devices here than this process should use, or the backend can't do it.
    """
    here = place.share(count)
    here = here.stop - here.start
    backend = keras.backend.backend()
    if backend == "jax" and place.world_size > 1:
        join_processes(place)
    if backend == "torch" and place.world_size > 1:
        names = check_device_count(place.local_rank + 1)[-1:]
    else:
        names = check_device_count(here)
    names = ", ".join(names) + (f" in each of {place.world_size} processes" if place.world_size > 1 else "")
    if count == 1:
        yield Devices(names)
    elif backend == "jax" and place.world_size == 1:
        with share_out(here).scope():
            yield Devices(names)
    elif backend == "jax":
        with share_out(here).scope():
            sharing = Sharing(place.rank, place.world_size, gather)
            yield Devices(names, sharing=sharing, agree=agree, local=local_network)
    elif backend == "tensorflow" and place.world_size == 1:
        import tensorflow

        from ann.training.mirrored import Mirrored

        strategy = tensorflow.distribute.MirroredStrategy(list_devices()[:count])
        with strategy.scope():
            yield Devices(
                names,
                lambda training_class, *arguments: replicated(Mirrored, training_class)(
                    *arguments, strategy=strategy
                ),
            )
    elif backend == "torch" and here == 1:
        from ann.training import grouped

        with grouped.join_group(place):
            yield Devices(
                names,
                lambda training_class, *arguments: replicated(grouped.Grouped, training_class)(*arguments),
                sharing=Sharing(place.rank, place.world_size, grouped.gather),
                agree=grouped.first_says,
            )
    else:
        way = (
            "over several processes: Keras has no way to do it. Set KERAS_BACKEND=jax or torch"
            if backend == "tensorflow"
            else f"with {count} devices in {place.world_size} processes. Start a process for each device"
        )
        raise DeviceError(f"The Keras backend {backend} can't train {way}")


def join_processes(place: Place) -> None:
    """Make JAX know the devices of all processes, unless a launcher has done it already."""
    import jax

    if not jax.distributed.is_initialized():
        keras.distribution.initialize(place.address, place.world_size, place.rank)


def share_out(count: int) -> keras.distribution.DataParallel:
    """Batches spread over the first `count` devices of each JAX process; the weights are on all of them."""
    import jax

    devices = [
        device
        for process in range(jax.process_count())
        for device in [one for one in jax.devices() if one.process_index == process][:count]
    ]
    return keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)


def agree(value: float) -> float:
    """The first JAX process' value."""
    import numpy as np
    from jax.experimental import multihost_utils

    return float(multihost_utils.broadcast_one_to_all(np.float32(value)))


def gather(own: object) -> list:
    """An object of each JAX process, in the order of the processes."""
    import numpy as np
    from jax.experimental import multihost_utils

    packed = np.frombuffer(pickle.dumps(own), np.uint8)
    sizes = multihost_utils.process_allgather(np.array([len(packed)], np.int32)).reshape(-1)
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(packed)] = packed
    rows = multihost_utils.process_allgather(padded).reshape(len(sizes), -1)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def local_network(build: Callable[[], keras.Model], network: keras.Model):
    """See `Devices.local`: arrays on devices of all processes can only be computed with by all together."""
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        with nothing_drawn():
            local = build()
    finally:
        keras.distribution.set_distribution(distribution)

    def update() -> None:
        for mine, shared in zip(local.variables, network.variables, strict=True):
            mine.assign(shared.value.addressable_data(0))

    return local, update
