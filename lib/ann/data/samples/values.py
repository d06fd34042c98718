"""Whether the values of training images can be learnt from, found out before training.

Three things spoil a model in silence: a number that stands for missing data and that nothing declares, images
that store brightness in different ranges (8 and 16 bit), and ground shown at very different scales. What
headers tell is checked for every image, pixels are looked at in some windows of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ann.data.dataset import Dataset, LabelledImage, name_some
from ann.data.pixels.windows import Window, whole
from ann.data.samples.order import evenly
from ann.errors import DatasetError

LOOKED_AT = 1000  # images, spread evenly over all
WHOLE_PIXELS = 1 << 20  # images of up to that many pixels are looked at as a whole, others in
WINDOW_SIDE = 256  # windows of that side: nine from edge to edge, as fill mostly lies along the border, and
RANDOM_WINDOWS = 7  # that many by chance
QUANTILE_PIXELS = 1 << 14  # suffice for the range of a band

IMPOSSIBLE = 1e15  # magnitude from which no number is a measurement
FILL_VALUES = (-99, -999, -9999, -99999, -999999, -32767, -32768, 65535, 99999, 999999)  # customary ones
FILL_SHARE = 0.001  # of the pixels; a few saturated ones are no fill
FAR_OUT = 1e4  # times the range of all other values

PIXEL_SIZES_REFUSED, PIXEL_SIZES_NOTED = 4, 1.5  # times as large as the smallest of a dataset
RANGES_REFUSED = 16  # 12 bit against 8


@dataclass(frozen=True, kw_only=True)
class Fill:
    """A value of a band that stands for missing data: its share of the pixels, the range of all others."""

    value: np.generic
    share: float
    low: float
    high: float


def check_headers(dataset: Dataset) -> Dataset:
    """The dataset, with a note if its pixel sizes differ.

    Raises:
        DatasetError: 8 bit images beside those of other types, or pixel sizes four times as large as others.
    """
    check_types((*dataset.images, *dataset.validation))
    return check_pixel_sizes(dataset)


def check_types(images: Sequence[LabelledImage]) -> None:
    """Raise DatasetError for 8 bit images beside those of other types."""
    narrow = [image for image in images if np.dtype(image.dtype).itemsize == 1]
    if narrow and len(narrow) < len(images):
        wide = next(image for image in images if np.dtype(image.dtype).itemsize > 1)
        raise DatasetError(
            f"Images of 8 bit and of other types can't be trained on together, as one number would mean "
            f"different things: {narrow[0].path} is {narrow[0].dtype}, {wide.path} is {wide.dtype}. Convert "
            f"all {len(images)} images to one type and range, e.g. with gdal_translate -ot Byte -scale."
        )


def check_pixel_sizes(dataset: Dataset) -> Dataset:
    """The dataset, with a note if its pixel sizes differ.

    Raises:
        DatasetError: some are more than four times as large as others.
    """
    images = [image for image in (*dataset.images, *dataset.validation) if image.pixel_size]
    if not images:
        return dataset
    fine, coarse = (pick(images, key=lambda image: image.pixel_size) for pick in (min, max))
    sizes = (
        f"{fine.path} has pixels of {fine.pixel_size:.4g} map units, {coarse.path} of {coarse.pixel_size:.4g}"
    )
    times = coarse.pixel_size / fine.pixel_size
    if times > PIXEL_SIZES_REFUSED:
        raise DatasetError(
            f"The images show the ground at too different scales: {sizes}. Bring them to one coordinate "
            "system and pixel size (gdalwarp -tr, r.resamp.interp), or train a model for each."
        )
    if times <= PIXEL_SIZES_NOTED:
        return dataset
    note = f"The images show the ground at different scales: {sizes}. The model will be noted as for between."
    return replace(dataset, notes=(*dataset.notes, note))


def check_values(images: Sequence[LabelledImage], *, limit: int = LOOKED_AT, seed: int = 0) -> None:
    """Look at the pixels of up to `limit` images; those of 8 bit are left out, as any value may occur.

    Memory is that of some windows of one image.

    Raises:
        DatasetError: a value that stands for missing data and isn't declared so (see `check_fill`), or images
            of different types whose values lie in different ranges; an image can't be read.
    """
    types = {image.dtype for image in images}
    picked = evenly(len(images), limit)
    ranges: dict[str, list[tuple[LabelledImage, np.ndarray]]] = {}
    for index in picked:
        image = images[index]
        if np.dtype(image.dtype).itemsize == 1 and len(types) == 1:
            continue
        pixels = look_at(image, np.random.default_rng([seed, 19, index]))
        check_fill(image, pixels)
        if len(pixels):
            ranges.setdefault(image.dtype, []).append((image, _magnitudes(pixels)))
    _check_ranges(list(ranges.values()))


def check_fill(image: LabelledImage, pixels: np.ndarray) -> None:
    """See that no band of these pixels of an image, (n, C), has a fill value.

    Raises:
        DatasetError: one has; the message names image, band and value.
    """
    if np.dtype(image.dtype).itemsize == 1:
        return
    for number, values in enumerate(np.ascontiguousarray(pixels.T), start=1):
        fill = find_fill(values)
        if fill is None:
            continue
        others = f"all others lie around {fill.low:.6g} to {fill.high:.6g}" if fill.share < 1 else "no other"
        raise DatasetError(
            f"Image {image.path}, band {number}: {_percent(fill.share)} of the pixels looked at have the "
            f"value {number_text(fill.value)}, {others}. It stands for missing data, but the image doesn't "
            f"say so. {how_to_declare(fill.value)}"
        )


def how_to_declare(value: np.generic) -> str:
    """What to do about a value that stands for missing data."""
    text = number_text(value)
    return f"Declare it: gdal_edit.py -a_nodata {text} FILE, of a raster map: r.null map=MAP setnull={text}"


def number_text(value: np.generic) -> str:
    """A number as short as its type allows without becoming another one."""
    return str(value).removesuffix(".0")


def find_fill(values: np.ndarray) -> Fill | None:
    """The lowest or highest of some values, (n,), if it is no measurement.

    That is a number beyond 1e15; a customary fill value or the limit of an integer type that is at least a
    thousandth of the pixels and further from the others than they spread; any number 10,000 times as far
    from the others as they spread.
    """
    if not len(values):
        return None
    customary = {float(value) for value in FILL_VALUES}
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        customary |= {float(limit) for limit in (limits.min, limits.max) if limit}
    for end in (values.min(), values.max()):
        value, is_end = float(end), values == end
        share, rest = float(is_end.mean()), values[~is_end]
        if not len(rest):
            if abs(value) >= IMPOSSIBLE or (value < 0 and value in customary):
                return Fill(value=end, share=share, low=value, high=value)
            continue
        sample = rest[:: max(1, len(rest) // QUANTILE_PIXELS)].astype(np.float64)
        # resampling mixes fill with what lies beside it, and most fill is low
        low, high = (float(limit) for limit in np.quantile(sample, (0.05, 0.99)))
        distance, spread = max(low - value, value - high), high - low
        varied = spread > 0  # else there are two values, as of a mask
        customary_fill = value in customary and share >= FILL_SHARE and (varied or value < 0)
        if (
            abs(value) >= IMPOSSIBLE
            or (customary_fill and distance > spread)
            or (varied and distance > FAR_OUT * spread)
        ):
            return Fill(value=end, share=share, low=low, high=high)
    return None


def look_at(image: LabelledImage, generator: np.random.Generator) -> np.ndarray:
    """Pixels with data of some windows of an image, (n, C); of a small image all of them."""
    if image.height * image.width <= WHOLE_PIXELS:
        return pixels_with_data(image, whole(image.height, image.width))
    height, width = min(WINDOW_SIDE, image.height), min(WINDOW_SIDE, image.width)
    free_rows, free_columns = image.height - height, image.width - width
    corners = [(row, column) for row in (0, 0.5, 1) for column in (0, 0.5, 1)]
    corners += generator.random((RANDOM_WINDOWS, 2)).tolist()
    windows = [
        Window(row=round(row * free_rows), column=round(column * free_columns), height=height, width=width)
        for row, column in corners
    ]
    windows += windows_on_objects(image, WINDOW_SIDE, 1, generator)  # the rest may be without data
    return np.concatenate([pixels_with_data(image, window) for window in windows])


def pixels_with_data(image: LabelledImage, window: Window) -> np.ndarray:
    """(n, C): the pixels of a window that have data."""
    example = image.read(window)
    pixels = example.image.reshape(-1, image.bands)
    return pixels if example.valid is None else pixels[example.valid.ravel()]


def windows_on_objects(
    image: LabelledImage, side: int, count: int, generator: np.random.Generator
) -> list[Window]:
    """At most `count` windows around labelled objects, where a sparse image has data for sure."""
    height, width = min(side, image.height), min(side, image.width)
    picks = generator.permutation(len(image.boxes))[:count]
    centres = (image.boxes[picks, :2] + image.boxes[picks, 2:]) // 2
    return [
        Window(
            row=int(np.clip(y - height // 2, 0, image.height - height)),
            column=int(np.clip(x - width // 2, 0, image.width - width)),
            height=height,
            width=width,
        )
        for y, x in centres
    ]


def _magnitudes(pixels: np.ndarray) -> np.ndarray:
    sample = pixels[:: max(1, len(pixels) // QUANTILE_PIXELS)].astype(np.float64)
    return np.quantile(np.abs(sample), 0.99, axis=0)


def _check_ranges(groups: Sequence[Sequence[tuple[LabelledImage, np.ndarray]]]) -> None:
    """See that images of different types have values of the same order."""
    typical = [np.median([magnitudes for _, magnitudes in group], axis=0) for group in groups]
    for index, first in enumerate(typical):
        for other, second in zip(groups[:index], typical[:index], strict=True):
            for band, (one, two) in enumerate(zip(first, second, strict=True)):
                if min(one, two) > 0 and max(one, two) > RANGES_REFUSED * min(one, two):
                    images = ((groups[index][0][0], one), (other[0][0], two))
                    described = name_some(
                        [f"{image.dtype} up to {high:.4g} in {image.path}" for image, high in images]
                    )
                    raise DatasetError(
                        f"The images store values in different ranges: band {band + 1} is {described}. "
                        "Bring all to one range, e.g. with gdal_translate -ot -scale or r.rescale."
                    )


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else f"{share:.2%}"
