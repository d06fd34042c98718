"""Put the arrays of a model file into a network's variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ann.errors import ModelFileError
from ann.weights.model_file import ArrayReader, ModelFile

Layout = Sequence[tuple[str, Sequence[tuple[str, object]]]]


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of the layers, by name.

    `loaded` got the file's values; `skipped` are in the file and were not used (unknown to the network, or
    heads left out on request); `missing` are in the network and keep their initial values; `notes` are
    sentences for the user.
    """

    loaded: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def require_complete(self, model: ModelFile) -> None:
        """Refuse a network of which some layers were not loaded: for detection.

        Raises:
            ModelFileError: names the layers.
        """
        if self.missing:
            raise ModelFileError(
                f"Model file {model.path} has no weights for {some(self.missing)}. "
                "Nothing can be detected with it; use a complete model, or train it first"
            )

    def summary(self) -> str:
        """A sentence or a few for the user."""
        lines = [f"{len(self.loaded)} layers loaded"]
        if self.missing:
            lines.append(f"{len(self.missing)} at their initial values: {some(self.missing)}")
        if self.skipped:
            lines.append(f"{len(self.skipped)} of the file not used: {some(self.skipped)}")
        return "; ".join(lines) + "".join(f". {note}" for note in self.notes)


def some(names: Sequence[str]) -> str:
    """A list of names that fits a message."""
    names = [name if name.isprintable() else ascii(name) for name in names]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def load_weights(layout: Layout, model: ModelFile, skip_heads: bool = False) -> LoadReport:
    """Assign a file's arrays to a network, by layer name and then by position.

    Everything is read and checked before the first variable changes. Layers that the file lacks keep their
    values, layers that the network lacks are ignored. A first convolution of another number of bands is
    adapted, see `adapt_stem`.

    Args:
        layout: [(layer name, [(dataset name, variable)])]; a variable has `shape` and `assign(array)`.
        model: the file.
        skip_heads: leave the layers whose shapes depend on the classes at their values (flag -e).

    Raises:
        ModelFileError: another backbone, shapes that don't fit, weights that are not finite, or no layer
            in common.
    """
    check_backbone(layout, model)
    wanted = {
        name: variables
        for name, variables in layout
        if variables and not (skip_heads and name in model.kind.heads)
    }
    loaded = [name for name in wanted if model.layers.get(name)]
    if not loaded:
        raise ModelFileError(f"Model file {model.path} has no layer of this network. Use another model")
    for name in loaded:
        check_shapes(name, wanted[name], model)
    notes: list[str] = []
    assignments = []
    with ArrayReader(model) as reader:
        for name in loaded:
            for position, (_, variable) in enumerate(wanted[name]):
                values = weights_as_float32(reader.layer_array(name, position), name, model)
                if values.shape != tuple(variable.shape):
                    notes.append(stem_note(values.shape[2], variable.shape[2]))
                    values = adapt_stem(values, variable.shape[2])
                assignments.append((variable, values))
    for variable, values in assignments:
        variable.assign(values)
    if skip_heads:
        notes.append(f"The layers {', '.join(model.kind.heads)} start anew")
    loaded_names = set(loaded)
    return LoadReport(
        loaded=tuple(loaded),
        skipped=tuple(name for name, arrays in model.layers.items() if arrays and name not in loaded_names),
        missing=tuple(name for name, variables in layout if variables and name not in loaded_names),
        notes=tuple(notes),
    )


def check_backbone(layout: Layout, model: ModelFile) -> None:
    """Refuse a file whose backbone is another than the network's."""
    tell = model.kind.backbone_of
    backbone = tell([name for name, variables in layout if variables]) if tell else None
    if backbone is not None and backbone != model.backbone:
        raise ModelFileError(
            f"Model file {model.path} has a {model.backbone} backbone, the network has {backbone}. "
            f"Use backbone={model.backbone}, or another model"
        )


def check_shapes(name: str, variables: Sequence[tuple[str, object]], model: ModelFile) -> None:
    """Refuse a layer whose arrays don't fit its variables."""
    arrays = model.layers[name]
    if len(arrays) != len(variables):
        raise ModelFileError(
            f"Model file {model.path}: layer {name} has {len(arrays)} arrays, "
            f"the network's has {len(variables)}. Use another model"
        )
    for position, (array, (_, variable)) in enumerate(zip(arrays, variables, strict=True)):
        expected = tuple(variable.shape)
        if array.shape == expected or (
            name in model.kind.stems and position == 0 and differs_in_bands(array.shape, expected)
        ):
            continue
        way_out = (
            "It was trained on other classes: use the flag -e to load all but the layers that depend on them"
            if name in model.kind.heads
            else "It is a model of another architecture: use another one (the flag -e would not help)"
        )
        raise ModelFileError(
            f"Model file {model.path}: layer {name} ({array.name}) has the shape {array.shape}, "
            f"the network expects {expected}. {way_out}"
        )


def differs_in_bands(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """True for two kernels of a first convolution that differ in the number of bands alone."""
    return len(shape) == 4 and len(expected) == 4 and shape[:2] + shape[3:] == expected[:2] + expected[3:]


def weights_as_float32(values: np.ndarray, name: str, model: ModelFile) -> np.ndarray:
    """The weights in the network's type, if they are finite in it."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = values.astype(np.float32, copy=False)
    if not np.isfinite(values).all():
        raise ModelFileError(
            f"Model file {model.path}: layer {name} has weights that are not finite. "
            "The file is damaged or its training diverged; use another model"
        )
    return values


def adapt_stem(kernel: np.ndarray, bands: int) -> np.ndarray:
    """The first convolution for another number of bands.

    An image that is the same in all bands gets the same answer as before, exactly: the sum over the bands
    stays what it was. Added bands get the mean of the file's bands, and all are scaled down by the ratio;
    of surplus bands the first ones stay, and what the others contributed is shared out among them.

    Args:
        kernel: (height, width, bands of the file, filters) float32.
        bands: wanted number.

    Returns:
        (height, width, bands, filters) float32.
    """
    held = kernel.shape[2]
    if bands >= held:
        mean = kernel.mean(axis=2, keepdims=True)
        return np.concatenate([kernel, np.repeat(mean, bands - held, axis=2)], axis=2) * np.float32(
            held / bands
        )
    return kernel[:, :, :bands] + kernel[:, :, bands:].sum(axis=2, keepdims=True) / np.float32(bands)


def stem_note(held: int, bands: int) -> str:
    """What `adapt_stem` did, for the user."""
    if bands > held:
        added = f"band {bands} starts" if bands == held + 1 else f"bands {held + 1} to {bands} start"
        rule = f"{added} with the mean of the model's bands, and all are scaled by {held}/{bands}"
    else:
        rule = f"the first {bands} of its bands are used, the others' weights shared out among them"
    return f"The model was made for {held} bands and is used for {bands}: {rule}"
