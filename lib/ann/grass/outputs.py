"""Names of the maps that detection writes, known and checked before the work begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import grass.script as gs
from grass.script.utils import legalize_vector_name

from ann.errors import AnnError
from ann.grass.exchange import exists
from ann.grass.external import external_file, output_folder
from ann.grass.modules import reason, run_apart
from ann.grass.region import Grid, grid_environment
from ann.grass.temporary import TemporaryMaps, mapset_folder

VECTOR_KINDS = ("area", "point")
GRASS_NAME_LENGTH = 255  # GNAME_MAX with its closing 0
SQL_OPERATORS = ("and", "or", "not")  # Vect_legal_filename refuses them in any case
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
                vectors[kind, class_id] = f"{vector_name(f'{prefix}{name}', 'class_')}{ending}"
    check_distinct(
        {f"{classes[class_id - 1]} ({kind})": name for (kind, class_id), name in vectors.items()},
        "Give the classes other names with classes=",
    )
    rasters = {}
    for kind, base in RASTER_KINDS.items():
        if kind in kinds:
            names = [f"{prefix}{base}"] * len(scenes)
            if len(scenes) > 1:
                names = distinct([f"{prefix}{base}_{short_name(scene)}" for scene in scenes])
            rasters.update({(kind, number): name for number, name in enumerate(names)})
    return OutputNames(vectors=vectors, rasters=rasters)


def vector_name(text: str, prefix: str) -> str:
    """A name that a vector map can have; prefix: before a text that begins with no letter."""
    legal = legalize_vector_name(text, fallback_prefix=prefix)
    return f"{legal}_" if legal.lower() in SQL_OPERATORS else legal


def check_outputs(names: OutputNames, more_vectors: Sequence[str] = ()) -> None:
    """Try out everything that could fail when maps are written. more_vectors: names of other vector maps.

    Raises:
        AnnError: a map exists that would be replaced without --overwrite, a name is too long or none of a
            map, or new raster maps can't be written.
    """
    maps = [
        *(("vector", name) for name in (*names.vectors.values(), *more_vectors)),
        *(("raster", name) for name in names.rasters.values()),
    ]
    _check_names([name for _, name in maps])
    if not gs.overwrite():
        existing = [f"{kind} map <{name}>" for kind, name in maps if exists(kind, name)]
        if existing:
            raise AnnError(
                f"Already existing: {', '.join(existing[:8])}{' and more' if len(existing) > 8 else ''}. "
                "Use --overwrite, or output= with another prefix"
            )
    for name in names.rasters.values():
        if children := reclassified(name):
            raise AnnError(
                f"Raster map <{name}> can't be replaced: {', '.join(children)} reclassify it and would "
                "change too. Remove them first, or use output= with another prefix"
            )
    if names.kinds - {"point"}:
        _check_external(names)


def reclassified(name: str) -> list[str]:
    """Raster maps that r.reclass has made of one of the current mapset; their cells are that map's."""
    try:
        lines = (mapset_folder() / "cell_misc" / name / "reclassed_to").read_text().split()
    except OSError:
        return []
    project = mapset_folder().parent
    pairs = [line.partition("@")[::2] for line in lines]
    return [f"<{child}@{mapset}>" for child, mapset in pairs if (project / mapset / "cell" / child).exists()]


def _check_names(names: Sequence[str]) -> None:
    limit = min(GRASS_NAME_LENGTH, os.pathconf(mapset_folder(), "PC_NAME_MAX"))
    for name in names:
        if not gs.legal_name(name):
            raise AnnError(f"<{name}> can't be a map's name. Use letters, digits and underscores in output=")
        if len(name) > limit:
            raise AnnError(
                f"Expected names of maps of at most {limit} characters, received {len(name)}: "
                f"<{name[:40]}...>. Give classes shorter names with classes=, image files shorter names, "
                "or output= a shorter prefix"
            )


def _check_external(names: OutputNames) -> None:
    """Where r.external.out is in force: new maps can be written, and none of their files exists."""
    if output_folder(mapset_folder()) is None:
        return
    cell = Grid(north=1, west=0, rows=1, columns=1, row_size=1, column_size=1)
    with TemporaryMaps() as temporary:
        for value in ("1", "0.5f"):
            trial = temporary.raster("trial")
            done = run_apart("r.mapcalc", expression=f"{trial} = {value}", env=grid_environment(cell))
            file = external_file(mapset_folder(), trial)
            if done.returncode or file is None or not file.exists():
                raise AnnError(
                    f"Raster maps can't be written as r.external.out says: {reason(done)} "
                    "See r.external.out -p; r.external.out -r goes back to maps of GRASS's own format"
                )
    limit = os.pathconf(file.parent, "PC_NAME_MAX")
    for name in names.rasters.values():
        path = file.with_name(name + file.name[len(trial) :])
        if len(path.name.encode()) > limit:
            raise AnnError(f"The name of the file {path} is too long. Use output= with a shorter prefix")
        if path.exists() and external_file(mapset_folder(), name) != path:
            raise AnnError(
                f"The file {path}, which r.external.out would have for the raster map <{name}>, exists and "
                "is not that map's. Move it away, or use output= with another prefix"
            )


def short_name(scene: str) -> str:
    """A scene's name without mapset, folders and ending."""
    name = scene.replace("\\", "/").rsplit("/", 1)[-1]
    name = name.split("@")[0] if "@" in name else name
    for ending in (".tif", ".tiff", ".jpg", ".jpeg", ".png"):
        name = name[: -len(ending)] if name.lower().endswith(ending) else name
    return legalize_vector_name(name, fallback_prefix="")


def distinct(names: Sequence[str]) -> list[str]:
    """Names with a number added to those that came before, also where only the case differs."""
    result: dict[str, str] = {}
    last: dict[str, int] = {}
    for name in names:
        candidate = name
        while candidate.lower() in result:
            last[name.lower()] = last.get(name.lower(), 1) + 1
            candidate = f"{name}_{last[name.lower()]}"
        result[candidate.lower()] = candidate
    return list(result.values())


def check_distinct(names: Mapping[str, str], advice: str) -> None:
    """Raise AnnError where two maps would have one name. names: by what the map is of."""
    seen: dict[str, str] = {}
    for owner, name in names.items():
        if name.lower() in seen:  # not all file systems tell cases apart, and a project may move to one
            raise AnnError(
                f"The maps of {seen[name.lower()]} and {owner} would both be called <{name}>, in upper or "
                f"lower case. {advice}"
            )
        seen[name.lower()] = owner
