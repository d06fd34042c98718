"""How scenes are cut for a U-Net. Imports no Keras."""

from __future__ import annotations

from ann.inference.cells import CellSettings, halo
from ann.inference.tile_rows import NetworkInput
from unet.config import UNetConfig

SIDE = 1024  # pixels of tiles at least, where nothing else is asked for
HALOS = 9  # across such a tile at least: then 1.65 times the cells that are wanted are computed at most


def cell_settings(
    config: UNetConfig,
    reach: int,
    *,
    side: int | None = None,
    largest: int | None = None,
    batch_size: int = 1,
) -> CellSettings:
    """How scenes are cut. reach: see `CellSettings`.

    side: of tiles, pixels; by default large enough that little is computed twice, but not larger than what
    scenes of at most `largest` pixels a side need.

    Raises:
        AnnError: a side that the network can't take.
    """
    stride = config.size_multiple
    if side is None:
        side = max(SIDE, HALOS * halo(reach, stride))
        if largest is not None:  # a scene may begin anywhere between two multiples of the stride
            side = min(side, (-(-largest // stride) + 1) * stride + 2 * halo(reach, stride))
    given = NetworkInput(
        tile_shape=(side, side),
        band_mean=config.band_mean,
        band_scale=config.band_scale,
        batch_size=batch_size,
    )
    return CellSettings(given=given, reach=reach, stride=stride)
