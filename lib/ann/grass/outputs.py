"""Names of the maps that detection writes, known and checked before the work begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grass.lib.gis as libgis
import grass.script as gs
from grass.script.utils import legalize_vector_name

from ann.errors import AnnError

VECTOR_KINDS = ("area", "point")
RASTER_KINDS = {"raster": "instances", "class": "classes", "score": "scores"}


@dataclass(frozen=True, kw_only=True)
class OutputNames:
    """Names of all maps. vectors: by (kind, class id); rasters: by (kind, number of the scene)."""

    vectors: dict[tuple[str, int], str]
    rasters: dict[tuple[str, int], str]

    @property
    def kinds(self) -> set[str]:
        """What is asked for, of area, point, raster, class and score."""
        return {kind for kind, _ in (*self.vectors, *self.rasters)}


def name_outputs(
    kinds: Sequence[str], prefix: str, classes: Sequence[str], scenes: Sequence[str]
) -> OutputNames:
    """Names of the maps.

    One vector map per class is named after the class; those of points end with _points beside areas.
    One raster map per scene is named instances, classes or scores, and after the scene if there are several.

    Raises:
        AnnError: two classes would share a map, or the prefix is no beginning of a map's name.
    """
    if prefix and (not gs.legal_name(prefix) or "@" in prefix or not prefix[0].isalpha()):
        raise AnnError(
            f"Output prefix <{prefix}> can't begin a map's name. "
            "Use letters, digits and underscores, a letter first"
        )
    vectors = {}
    for kind in VECTOR_KINDS:
        ending = "_points" if kind == "point" and "area" in kinds else ""
        if kind in kinds:
            for class_id, name in enumerate(classes, 1):
                legal = legalize_vector_name(f"{prefix}{name}", fallback_prefix="class_")
                vectors[kind, class_id] = f"{legal}{ending}"
    _check_distinct({f"{classes[class_id - 1]} ({kind})": name for (kind, class_id), name in vectors.items()})
    rasters = {}
    for kind, base in RASTER_KINDS.items():
        if kind in kinds:
            names = [f"{prefix}{base}"] * len(scenes)
            if len(scenes) > 1:
                names = _distinct([f"{prefix}{base}_{_short(scene)}" for scene in scenes])
            rasters.update({(kind, number): name for number, name in enumerate(names)})
    return OutputNames(vectors=vectors, rasters=rasters)


def check_not_existing(names: OutputNames) -> None:
    """Raise AnnError if a map exists that would be written, naming all of them."""
    mapset = gs.gisenv()["MAPSET"].encode()
    existing = [
        f"{kind} map <{name}>"
        for kind, element, maps in (("vector", b"vector", names.vectors), ("raster", b"cell", names.rasters))
        for name in maps.values()
        if libgis.G_find_file2(element, name.encode(), mapset)
    ]
    if existing:
        raise AnnError(
            f"Already existing: {', '.join(existing[:8])}{' and more' if len(existing) > 8 else ''}. "
            "Use --overwrite, or output= with another prefix"
        )


def _short(scene: str) -> str:
    """A scene's name without mapset, folders and ending."""
    name = scene.replace("\\", "/").rsplit("/", 1)[-1]
    name = name.split("@")[0] if "@" in name else name
    for ending in (".tif", ".tiff", ".jpg", ".jpeg", ".png"):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return legalize_vector_name(name, fallback_prefix="")


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with a number added to those that came before."""
    result: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in result:
            number += 1
            candidate = f"{name}_{number}"
        result.append(candidate)
    return result


def _check_distinct(names: dict[str, str]) -> None:
    seen: dict[str, str] = {}
    for owner, name in names.items():
        if name.lower() in seen:  # tables are not case sensitive
            raise AnnError(
                f"The maps of {seen[name.lower()]} and {owner} would both be called <{name}>. "
                "Give the classes other names with classes="
            )
        seen[name.lower()] = owner
