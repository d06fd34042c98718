"""Image files of a directory as scenes: which ones, and where they lie in the project."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import grass.script as gs

from ann.data.folders import files_with_suffix, is_hidden
from ann.data.pixels.rasters import IMAGE_SUFFIXES
from ann.errors import DatasetError, SceneError
from ann.grass.region import Grid, grid_environment, has_coordinate_system
from ann.inference.files import FileScene

SQUARENESS = 1e-6  # largest rotation, relative to the pixel size, that counts as none


def find_images(directory: str, image_format: str | None) -> list[Path]:
    """Images of a directory by their ending, with or without its dot and in any case; sorted by name.

    Hidden files are left out. image_format: None takes the usual endings.

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


def check_sidecars(images: Sequence[Path]) -> None:
    """External georeference wanted: each image needs a world file or an .aux.xml file beside it.

    Raises:
        SceneError: images without, by name.
    """
    names: dict[Path, set[str]] = {}
    for folder in {path.parent for path in images}:
        names[folder] = {name.lower() for name in os.listdir(folder)}
    without = [path.name for path in images if not _has_sidecar(path, names[path.parent])]
    if without:
        named = ", ".join(without[:5]) + (f" and {len(without) - 5} more" if len(without) > 5 else "")
        example = images[0].name
        raise SceneError(
            f"No external georeference beside {named}. Put a world file "
            f"(e.g. {_world_names(images[0])[0].name}) or {example}.aux.xml into the directory, "
            "or leave out the flag -e"
        )


def file_grid(scene: FileScene) -> Grid:
    """Where the pixels of a file lie in the project.

    Without a georeference, in a project without coordinate system, pixels are map units and (0, 0) is the
    lower left corner.

    Raises:
        SceneError: no georeference, a rotated one, or another coordinate system than the project's.
    """
    transform = scene.transform
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
    if scene.crs and has_coordinate_system() and not _same_coordinate_system(scene.name):
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


def _same_coordinate_system(path: str) -> bool:
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


def _has_sidecar(path: Path, names: set[str]) -> bool:
    """Whether a world file or .aux.xml is among the names (in small letters) of an image's directory."""
    candidates = [*_world_names(path), path.with_name(f"{path.name}.aux.xml")]
    return any(candidate.name.lower() in names for candidate in candidates)


def _world_names(path: Path) -> list[Path]:
    ending = path.suffix.lstrip(".")
    return [
        path.with_suffix(f".{ending[0]}{ending[-1]}w"),
        path.with_suffix(f".{ending}w"),
        path.with_suffix(".wld"),
    ]
