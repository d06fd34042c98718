"""Pictures for the report: pixels of any kind as something that people can look at."""

from __future__ import annotations

import io

import numpy as np

SIDE = 480  # pixels of the longer side of a picture
STRETCH = (2, 98)  # percentiles that become black and white
COLOURS = (
    (255, 212, 0),
    (0, 229, 255),
    (255, 120, 230),
    (140, 255, 90),
    (255, 150, 40),
    (170, 140, 255),
    (60, 160, 255),
    (200, 255, 220),
)  # of the classes, in turn; seen well on ground and plants
IGNORED = (190, 190, 190)


def stretch(pixels: np.ndarray, dtype: str) -> np.ndarray:
    """Pixels (H, W, C) of any range as (H, W, 3) uint8: the first three bands, or the first one in grey.

    Values of a file of bytes stay as they are; others are stretched band by band between percentiles.
    """
    bands = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., :1]
    values = np.nan_to_num(bands.astype(np.float32))
    if dtype != "uint8":
        low, high = np.percentile(values.reshape(-1, values.shape[-1]), STRETCH, axis=0)
        values = (values - low) / np.maximum(high - low, 1e-9) * 255
    return np.broadcast_to(np.clip(values + 0.5, 0, 255).astype(np.uint8), (*values.shape[:2], 3))


def jpeg(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 as a JPEG file."""
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=85)
    return data.getvalue()


def resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 as a picture of another size (height, width)."""
    from PIL import Image

    way = Image.Resampling.BICUBIC if size[0] < pixels.shape[0] else Image.Resampling.NEAREST
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(picture.resize((size[1], size[0]), way))


def picture_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of a picture of pixels, its longer side `SIDE`."""
    factor = SIDE / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def shown_pixels(
    image: np.ndarray, content: tuple[int, int, int, int], mean, scale, dtype: str
) -> np.ndarray:
    """The part `content` of a network's input (H, W, C) as a picture, see `stretch`. dtype: of the image
    file.
    """
    y1, x1, y2, x2 = content
    pixels = image * np.asarray(scale, np.float32) + np.asarray(mean, np.float32)
    shown = stretch(pixels[y1:y2, x1:x2], dtype)
    return resize(shown, picture_size(*shown.shape[:2]))
