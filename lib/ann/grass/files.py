"""Image files of a directory as scenes: which ones, and where they lie in the project."""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import grass.script as gs
from affine import Affine

from ann.data.folders import files_with_suffix, is_hidden
from ann.data.pixels.rasters import IMAGE_SUFFIXES
from ann.errors import DatasetError, SceneError
from ann.grass.region import Grid, grid_environment, has_coordinate_system
from ann.inference.files import FileScene

SQUARENESS = 1e-6  # largest rotation, relative to the pixel size, that counts as none
SAME_PLACE = 1e-3  # pixels; world files are rounded
_known_systems: dict[str, bool] = {}  # definition of a coordinate system -> whether it is the project's


def find_images(directory: str, image_format: str | None) -> list[Path]:
    """Images of a directory by their ending, with or without its dot and in any case; sorted by name.

    Hidden files (thumbnails, checkpoints, what archives of other systems leave) are none.

    image_format: None takes the usual endings.

    Raises:
        SceneError: no such directory, no image in it, or one whose name isn't UTF-8.
    """
    folder = Path(directory)
    if not folder.is_dir():
        raise SceneError(f"Images directory <{directory}> does not exist or is no directory")
    suffixes = IMAGE_SUFFIXES
    if image_format:
        suffixes = (f".{image_format.lower().lstrip('.')}",)
    names = sorted(name for name in os.listdir(folder) if not is_hidden(name))
    try:
        images = [path for path in files_with_suffix(folder, names, suffixes) if path.is_file()]
    except DatasetError as error:
        raise SceneError(str(error)) from error
    if not images:
        held = sorted({Path(name).suffix.lower().lstrip(".") for name in names} - {""})
        raise SceneError(
            f"No image ending with {' or '.join(suffixes)} found in <{directory}>. "
            + (f"Its files end with: {', '.join(held)}. Set images_format" if held else "It holds no files")
        )
    return images


def find_sidecars(images: Sequence[Path]) -> dict[Path, list[str]]:
    """The files beside each image that may georeference it, by their names in any case: `accepted_sidecars`.

    Raises:
        SceneError: images without, by name.
    """
    beside: dict[Path, dict[str, str]] = {}
    for folder in {path.parent for path in images}:
        beside[folder] = {name.lower(): name for name in os.listdir(folder)}
    found = {
        path: [
            str(path.with_name(beside[path.parent][name.lower()]))
            for name in accepted_sidecars(path)
            if name.lower() in beside[path.parent]
        ]
        for path in images
    }
    without = [path for path in images if not found[path]]
    if without:
        named = ", ".join(path.name for path in without[:5])
        named += f" and {len(without) - 5} more" if len(without) > 5 else ""
        raise SceneError(
            f"No external georeference beside {named}. {_wanted(without[0])}, or leave out the flag -e"
        )
    return found


def accepted_sidecars(path: Path) -> list[str]:
    """Names of the files that georeference an image: its world file in three forms, and its .aux.xml file."""
    ending = path.suffix.lstrip(".")
    names = [path.with_suffix(f".{new}").name for new in (f"{ending[0]}{ending[-1]}w", f"{ending}w", "wld")]
    return [*names, f"{path.name}.aux.xml"]


def external_transform(path: str, sidecars: Sequence[str]) -> Affine:
    """The transform (pixel corners to map coordinates) that the files beside an image give.

    Raises:
        SceneError: none of them has one, one can't be read, or two of them differ.
    """
    found = {name: _read_sidecar(name) for name in sidecars}
    given = {Path(name).name: transform for name, transform in found.items() if transform is not None}
    if not given:
        names = ", ".join(Path(name).name for name in sidecars)
        raise SceneError(
            f"No external georeference beside {Path(path).name}: {names} has no <GeoTransform>. "
            f"{_wanted(Path(path))}, or leave out the flag -e"
        )
    (first, transform), *others = given.items()
    for name, other in others:
        size = abs(transform.determinant) ** 0.5
        if any(abs(a - b) > SAME_PLACE * size for a, b in zip(transform, other, strict=True)):
            raise SceneError(
                f"Files beside {Path(path).name} place it differently: {first} at {transform.c:.10g}, "
                f"{transform.f:.10g}, {name} at {other.c:.10g}, {other.f:.10g} (or with other pixels). "
                "Remove the wrong one"
            )
    return transform


def _read_sidecar(name: str) -> Affine | None:
    """The transform in a world file or an .aux.xml file; None for one of those without."""
    try:
        if name.lower().endswith(".xml"):
            text = ElementTree.parse(name).getroot().findtext("GeoTransform")
            if text is None:
                return None
            transform = Affine.from_gdal(*(float(part) for part in text.split(",")))
        else:
            words = Path(name).read_text(encoding="ascii", errors="replace").replace(",", ".").split()
            a, d, b, e, x, y = (float(word) for word in words)  # x, y: the centre of the first pixel
            transform = Affine(a, b, x - (a + b) / 2, d, e, y - (d + e) / 2)
    except (OSError, ValueError, TypeError, ElementTree.ParseError) as error:
        raise SceneError(
            f"{name} can't be read ({error}). Expected a world file (six numbers) or an .aux.xml of GDAL"
        ) from error
    if not (transform.determinant and all(map(math.isfinite, transform))):
        raise SceneError(f"{name} gives pixels without a size: {tuple(transform)[:6]}. Replace it")
    return transform


def _wanted(path: Path) -> str:
    *world, other = accepted_sidecars(path)
    return f"Put a world file ({' or '.join(dict.fromkeys(world))}) or {other} into the directory"


def file_grid(scene: FileScene, transform: Affine | None) -> Grid:
    """Where the pixels of a file lie in the project. transform: the file's own or that of files beside it.

    Without a georeference, in a project without coordinate system, pixels are map units and (0, 0) is the
    lower left corner.

    Raises:
        SceneError: no georeference, a rotated one, or another coordinate system than the project's.
    """
    if transform is None:
        if has_coordinate_system():
            raise SceneError(
                f"Image {scene.name} has no georeference. Put a world file beside it and use the flag -e, "
                "or detect in a project without coordinate system (XY)"
            )
        return Grid(
            north=float(scene.height),
            west=0.0,
            rows=scene.height,
            columns=scene.width,
            row_size=1.0,
            column_size=1.0,
        )
    size = max(abs(transform.a), abs(transform.e))
    if max(abs(transform.b), abs(transform.d)) > SQUARENESS * size or transform.a <= 0 or transform.e >= 0:
        raise SceneError(
            f"Image {scene.name} is rotated or mirrored ({tuple(transform)[:6]}). "
            "Make it north up first: gdalwarp"
        )
    if scene.crs and has_coordinate_system() and not _same_coordinate_system(scene.name, scene.crs.to_wkt()):
        raise SceneError(
            f"Image {scene.name} has another coordinate system than the project "
            f"({scene.crs.to_string()[:80]}). Reproject it first: gdalwarp, or r.import and band1 ... band3"
        )
    return Grid(
        north=transform.f,
        west=transform.c,
        rows=scene.height,
        columns=scene.width,
        row_size=-transform.e,
        column_size=transform.a,
    )


def _same_coordinate_system(path: str, definition: str) -> bool:
    """Whether a file has that of the project; asked once for each definition, not for each of many files."""
    if definition not in _known_systems:
        _known_systems[definition] = _compare_coordinate_system(path)
    return _known_systems[definition]


def _compare_coordinate_system(path: str) -> bool:
    process = gs.start_command(
        "r.in.gdal",
        flags="j",
        input=path,
        output="unused",
        quiet=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=grid_environment(),
    )
    return process.wait() == 0
