"""A folder for each class, with its images at any depth.

    photos/roof_damaged/DJI_0001.JPG, photos/roof_damaged/second_flight/DJI_0107.JPG, photos/roof_whole/...

The folders may lie below others that hold nothing else, as archives have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ann.data.dataset import check_classes, name_some
from ann.data.folders import is_hidden
from ann.data.pixels.rasters import find_rasters
from ann.data.readers.image_classes import ClassFile
from ann.data.text import plain
from ann.errors import DatasetError


def class_folders(path: str | Path) -> dict[str, Path]:
    """The folders of classes by their names, in the order of these.

    Raises:
        DatasetError: there is no such directory, or it holds no folders.
    """
    root = Path(path)
    if not root.is_dir():
        raise DatasetError(f"Training dataset {path} does not exist or is no directory.")
    while True:
        folders = sorted(one for one in root.iterdir() if one.is_dir() and not is_hidden(one.name))
        if len(folders) != 1 or not any(one.is_dir() for one in folders[0].iterdir()):
            break
        root = folders[0]
    if not folders:
        raise DatasetError(
            f"{path} holds no folders. Expected a folder for each class, called as it, with its images; or "
            f"name "
            "a table (.csv) with the columns image and class"
        )
    return {plain(folder.name): folder for folder in folders}


def find_class_files(
    path: str | Path, classes: Sequence[str], *, by_folder: bool = False
) -> tuple[tuple[str, ...], list[ClassFile], list[str]]:
    """The classes, their images in the order of the paths, and notes.

    classes: those wanted, in the order of their ids; none: all folders. by_folder: images of one folder in
    the folder of their class are one scene, and so are those of folders of this name in other classes.

    Raises:
        DatasetError: see `class_folders`; a class without a folder, or a folder without an image.
    """
    folders = class_folders(path)
    names = check_classes(classes or tuple(folders))
    missing = [name for name in names if name not in folders]
    if missing:
        raise DatasetError(
            f"No folder of the class {', '.join(map(repr, missing))} in {path}, which has "
            f"{', '.join(map(repr, folders))}. Check the spelling (capitals count), or leave the class out "
            f"of "
            "classes="
        )
    files = []
    for class_id, name in enumerate(names, 1):
        found = find_rasters(folders[name])
        if not found:
            raise DatasetError(
                f"The folder {folders[name]} of the class {name!r} holds no image. Add images (.jpg, .png, "
                f".tif), "
                "or take the folder away"
            )
        for file in found:
            inside = file.relative_to(folders[name]).parent
            scene = str(Path(path) / inside) if by_folder and inside.name else None
            files.append(
                ClassFile(path=file, name=file.relative_to(path).as_posix(), class_id=class_id, source=scene)
            )
    others = [name for name in folders if name not in names]
    notes = (
        [f"Folders of classes that aren't in classes= are left out: {name_some(others)}."] if others else []
    )
    return names, files, notes
