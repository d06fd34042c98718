"""From a model file to callables that detect in batches of tiles; Keras is imported when they are made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ann.collecting import import_keras
from ann.inference.tile_rows import Here, Workers
from ann.inference.workers import ThreadWorkers
from ann.weights import ModelFile, load_weights
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances.pipeline import DetectionSettings, network_finder


def load_detectors(
    model: ModelFile,
    config: MaskRCNNConfig,
    *,
    device_count: int = 1,
    keras_only: bool = False,
    threads: int = 0,
) -> tuple[list, str]:
    """The network with the file's weights on each of several devices, ready for tiles, and what runs it.

    Imports Keras. keras_only, threads: see `choose_parts`; several devices are always Keras' own.

    Raises:
        DeviceError: there are fewer devices.
        ModelFileError: the file lacks a part of the network.
    """
    import_keras()
    from ann.devices.available import check_device_count, on_device
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.openvino import choose_parts

    names = check_device_count(device_count)
    if device_count == 1:
        network = load_network(model, config)
        parts, runtime = choose_parts(network, keras_only=keras_only, threads=threads)
        return [Detector(network, parts)], runtime
    detectors = []
    for number in range(device_count):
        with on_device(number):
            detectors.append(OnDevice(Detector(load_network(model, config)), number))
    import keras

    return detectors, f"Keras on {keras.backend.backend()}, {device_count} devices: {', '.join(names)}"


def load_network(model: ModelFile, config: MaskRCNNConfig):
    """The network with the file's weights. Imports Keras.

    Raises:
        ModelFileError: the file lacks a part of the network.
    """
    from maskrcnn.network.layout import legacy_layout
    from maskrcnn.network.model import build_network

    network = build_network(config)
    load_weights(legacy_layout(network), model).require_complete(model)
    return network


@dataclass(frozen=True)
class OnDevice:
    """A detector that runs on its device, whichever thread calls it."""

    detector: Callable
    number: int

    def __call__(self, *arguments, **options):
        from ann.devices.available import on_device

        with on_device(self.number):
            return self.detector(*arguments, **options)


@contextmanager
def detection_workers(detectors: Sequence[Callable], settings: DetectionSettings) -> Iterator[Workers]:
    """Detectors at work: one in this thread, several in threads of their own."""
    # else masks would be computed for all the detections that are too uncertain, most of the time
    finders = [
        network_finder(functools.partial(detector, confidence=settings.lowest_score), settings)
        for detector in detectors
    ]
    if len(finders) == 1:
        yield Here(finders[0])
        return
    with ThreadWorkers(finders) as workers:
        yield workers
