"""Which raster maps the options band1, band2, band3 or group of a module name, as lists of bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grass.script as gs

from ann.errors import SceneError
from ann.grass.bands import semantic_label
from ann.grass.maps import find_map


def maps_of_scenes(options: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The maps of each scene, band by band: of the group, or one of each band option.

    Raises:
        SceneError: no such group, an empty one, or not as many maps for each band.
    """
    if options["group"]:
        return [tuple(maps_of_group(options["group"]))]
    lists = [split(options[name]) for name in ("band1", "band2", "band3") if options[name]]
    counts = [len(maps) for maps in lists]
    if len(set(counts)) > 1:
        raise SceneError(
            "Expected as many maps for each band, received "
            + ", ".join(f"{count} for band{number}" for number, count in enumerate(counts, 1))
        )
    return list(zip(*lists, strict=True))


def maps_of_group(group: str) -> list[str]:
    """Maps of an imagery group, in its order."""
    found = gs.find_file(group, element="group")
    if not found["name"]:
        raise SceneError(f"Imagery group <{group}> not found. Make it with i.group")
    maps = gs.read_command("i.group", flags="lg", group=found["fullname"], quiet=True).split()
    if not maps:
        raise SceneError(f"Imagery group <{group}> is empty. Add the bands with i.group")
    by_label: dict[str, str] = {}
    for name, label in zip(maps, semantic_labels(maps), strict=True):
        if label and by_label.setdefault(label.casefold(), name) != name:
            raise SceneError(
                f"Imagery group <{group}> has two maps with the semantic label {label}: "
                f"<{by_label[label.casefold()]}> and <{name}>. Remove one of them (i.group -r), or label it "
                "anew (r.semantic.label)"
            )
    return maps


def semantic_labels(maps: Sequence[str]) -> list[str | None]:
    """The semantic label of each raster map, name or name@mapset; None where it has none."""
    return [semantic_label(*find_map("Raster", name)) for name in maps]


def split(text: str | None) -> list[str]:
    """The answers of an option that takes several."""
    return [part.strip() for part in text.split(",")] if text else []
