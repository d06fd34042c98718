"""The dense parts run by OpenVINO, which is faster on CPUs than Keras' backends."""

from __future__ import annotations

from ann.inference.openvino import Part, choose_runtime, part_compiler
from maskrcnn.network.inference import DenseParts, compiled_parts
from maskrcnn.network.model import MaskRCNN


def openvino_parts(network: MaskRCNN, *, threads: int = 0, precision: str | None = None) -> DenseParts:
    """The dense parts on the CPU; later changes of the network's weights are not seen.

    What a part returns are views of its memory that its next call overwrites.

    Args:
        threads: how many to use; 0 uses all cores.
        precision: "f32", "bf16" or "f16"; by default OpenVINO chooses: bfloat16 where the processor
            computes in it, float32 elsewhere.

    Raises:
        ImportError: OpenVINO is not installed.
        ValueError: the network has a layer that can't be translated.
    """
    compile_part = part_compiler(threads=threads, precision=precision)
    return DenseParts(
        *(Part(model, compile_part) for model in (network.features, network.box_head, network.mask_head))
    )


def choose_parts(network: MaskRCNN, *, keras_only: bool = False, threads: int = 0) -> tuple[DenseParts, str]:
    """The dense parts on the fastest runtime there is, and what it is called.

    That is OpenVINO where it is installed and Keras has no GPU, unless `keras_only`; Keras otherwise.
    """
    with_openvino, runtime = choose_runtime(keras_only=keras_only)
    return openvino_parts(network, threads=threads) if with_openvino else compiled_parts(network), runtime
