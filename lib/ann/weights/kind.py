"""What the model files of one network have in common: handed in, because this package knows no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ann.config import MODULES, ModelConfig
from ann.errors import ModelFileError


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What the layers of a file tell of its model; None for what they don't.

    class_count: with the background.
    """

    backbone: str | None = None
    bands: int | None = None
    class_count: int | None = None


@dataclass(frozen=True, kw_only=True)
class ModelKind:
    """A network's model files. It is sent to other processes: functions are those of modules.

    config: the class of their descriptions.
    stems: names that the first convolution can have; its kernel (height, width, bands, filters) depends on
        the bands.
    heads: the layers whose shapes depend on the classes.
    recognise: path and {layer: arrays} -> `Recognised`; raises ModelFileError for layers of another network.
    undescribed: the description of a file without one, from what was recognised; None: there are no such
        files.
    backbone_of: the backbone whose layers have these names; None for no known one, or no way to tell.
    lengths: of fields that are lists, where only one fits.
    """

    config: type[ModelConfig]
    stems: tuple[str, ...]
    heads: tuple[str, ...]
    recognise: Callable[[Path, Mapping], Recognised]
    undescribed: Callable[[Recognised], ModelConfig] | None = None
    backbone_of: Callable[[Sequence[str]], str | None] | None = None
    lengths: Mapping[str, int] = field(default_factory=dict)

    def check_network(self, network: object) -> None:
        """Refuse the description of another network's model.

        Raises:
            ModelFileError: says which modules take it.
        """
        if network == self.config.network:
            return
        if network not in MODULES:
            raise ModelFileError(
                f"it holds a network called {ascii(network)[:60]}, which this version does not know. "
                "Update i.ann.maskrcnn"
            )
        raise ModelFileError(f"it is a model of {' and '.join(MODULES[network])}. Give it to these modules")
