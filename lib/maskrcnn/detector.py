"""From a model file to callables that detect in batches of tiles; Keras is imported when they are made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ann.errors import AnnError
from ann.inference.tile_rows import Workers
from ann.inference.workers import load_on_devices, workers_of
from ann.packages import import_keras
from ann.weights import ModelFile, load_weights
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.instances.pipeline import DetectionSettings, ask_network, mask_drawer, network_finder


def load_detectors(
    model: ModelFile,
    config: MaskRCNNConfig,
    *,
    device_count: int = 1,
    keras_only: bool = False,
    threads: int = 0,
    precision: str = "auto",
) -> tuple[list, str]:
    """The network with the file's weights on each of several devices, ready for tiles, and what runs it.

    Imports Keras. keras_only, threads: see `choose_parts`; several devices are always Keras' own. precision:
    that Keras computes in, see `choose_for_detection`; OpenVINO chooses its own.

    Raises:
        DeviceError: there are fewer devices.
        ModelFileError: the file lacks a part of the network.
    """
    import_keras()
    from ann.devices.available import gpu_in_use, list_devices
    from ann.devices.precision import choose_for_detection, use_precision
    from maskrcnn.network.inference import Detector
    from maskrcnn.network.openvino import choose_parts

    list_devices()  # sets the backend up
    precision = choose_for_detection(precision, gpu_in_use())
    with use_precision(precision):
        if device_count > 1:
            detectors, runtime = load_on_devices(lambda: Detector(load_network(model, config)), device_count)
            return detectors, f"{runtime}; {precision}"
        network = load_network(model, config)
    parts, runtime = choose_parts(network, keras_only=keras_only, threads=threads)
    if runtime.startswith("Keras"):  # OpenVINO names its own
        runtime += f", {precision}"
    return [Detector(network, parts)], runtime


def load_network(model: ModelFile, config: MaskRCNNConfig):
    """The network with the file's weights. Imports Keras.

    Raises:
        ModelFileError: the file lacks a part of the network.
    """
    from ann.backbones.initial import nothing_drawn
    from maskrcnn.network.layout import legacy_layout
    from maskrcnn.network.model import build_network

    with nothing_drawn():
        network = build_network(config)
    load_weights(legacy_layout(network), model).require_complete(model)
    return network


def within_memory(detector: Callable) -> Callable:
    """`detector`, with an error that says what to do where the memory does not suffice for a batch."""
    from ann.training.memory import describe_use, is_exhausted

    def detect(*arguments):
        try:
            return detector(*arguments)
        except Exception as error:
            if is_exhausted(error):
                raise AnnError(
                    f"The memory does not suffice ({describe_use()}). Lower batch_size or tile_size"
                ) from error
            raise

    return detect


@contextmanager
def detection_workers(detectors: Sequence[Callable], settings: DetectionSettings) -> Iterator[Workers]:
    """Detectors at work, on devices beside reading, drawing and merging."""
    # else masks would be computed for all the detections that are too uncertain, most of the time
    detectors = [
        within_memory(functools.partial(detector, confidence=settings.lowest_score)) for detector in detectors
    ]
    if settings.turns:  # which are merged before the next tile is looked at
        functions, finish = [network_finder(detector, settings) for detector in detectors], None
    else:
        functions, finish = [ask_network(detector, settings) for detector in detectors], mask_drawer(settings)
    with workers_of(functions, finish) as workers:
        yield workers
