"""From a model file to callables that detect in batches of tiles; Keras is imported when they are made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ann.collecting import import_keras
from ann.inference.tile_rows import Workers
from ann.inference.workers import load_on_devices, workers_of
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
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.openvino import choose_parts

    if device_count > 1:
        return load_on_devices(lambda: Detector(load_network(model, config)), device_count)
    network = load_network(model, config)
    parts, runtime = choose_parts(network, keras_only=keras_only, threads=threads)
    return [Detector(network, parts)], runtime


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


@contextmanager
def detection_workers(detectors: Sequence[Callable], settings: DetectionSettings) -> Iterator[Workers]:
    """Detectors at work: one in this thread, several in threads of their own."""
    # else masks would be computed for all the detections that are too uncertain, most of the time
    finders = [
        network_finder(functools.partial(detector, confidence=settings.lowest_score), settings)
        for detector in detectors
    ]
    with workers_of(finders) as workers:
        yield workers
