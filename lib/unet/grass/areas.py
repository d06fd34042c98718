"""Areas of the cells of each class as a vector map."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import grass.script as gs

from ann.errors import AnnError
from ann.grass.attributes import MapTable, finish_vector_map, text_type
from ann.grass.database import Database
from ann.grass.exchange import FinishedMap
from ann.grass.mask import mask_is_set, scratch_mapset
from ann.grass.modules import reason, run_apart
from ann.grass.region import Grid, grid_environment, metres_per_map_unit
from ann.grass.regular_areas import regularize_areas
from ann.grass.temporary import TemporaryMaps
from ann.grass.vector_output import areas_of_cells, measure_areas

CLASS_LAYER = 2  # in which areas have the number of their class as category


def make_areas(
    raster: str,
    grid: Grid,
    temporary: TemporaryMaps,
    *,
    minimum_area: float | None = None,
    regularize: float | None = None,
) -> str:
    """A temporary map without a table: in layer 1 each area has a category of its own, in `CLASS_LAYER` its
    class.

    raster: class ids, at least one; NULL where no area is wanted.
    minimum_area: in the units of `measure_areas`. Smaller areas become a part of the neighbour that they have
    the longest border with, be it an area or what is none; smaller holes are closed.
    regularize: tolerance of right-angled outlines, map units; None keeps them as they are.

    Raises:
        AnnError: one of GRASS' modules failed.
    """
    areas = temporary.vector("areas")
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_mapset()) if mask_is_set() else None
        areas_of_cells(raster, areas, grid_environment(grid), scratch)

    def change(areas: str, module: str, **options) -> str:
        changed = temporary.vector("areas")
        done = run_apart(module, input=areas, output=changed, **options)  # warnings are of no interest
        if done.returncode:
            raise AnnError(f"{module} failed: {reason(done)}")
        temporary.drop(areas)
        return changed

    if minimum_area is not None:
        square_metres = minimum_area * (metres_per_map_unit() or 1.0) ** 2  # which the module wants
        areas = change(areas, "v.clean", type="area", tool="rmarea", threshold=square_metres)
        areas = change(areas, "v.extract", flags="dt", type="area", cats="1-32767")  # those of a class join
    if regularize is not None:
        areas = regularize_areas({0: areas}, regularize, temporary)[0]
    areas = change(areas, "v.category", option="chlayer", layer=(1, CLASS_LAYER))
    return change(areas, "v.category", option="add", layer=1, type="centroid", cat=1)


def area_rows(areas: str, classes: Sequence[str], source: str) -> Iterator[tuple[int, str, float, str]]:
    """Category, class, area and scene of each area of such a map."""
    text = gs.read_command(
        "v.category",
        input=areas,
        option="print",
        layer=(1, CLASS_LAYER),
        type="centroid",
        env=grid_environment(),
    )
    class_ids = dict(tuple(map(int, line.split("|"))) for line in text.split())
    for category, area in measure_areas(areas).tolist():
        yield int(category), classes[class_ids[int(category)] - 1], area, source


def area_columns(classes: Sequence[str] = (), sources: Sequence[str] = ()) -> str:
    """Columns of the attribute table as in CREATE TABLE."""
    return f"cat INTEGER, class {text_type(classes)}, area DOUBLE PRECISION, source {text_type(sources)}"


def finish_areas(
    areas: str | None,
    name: str,
    classes: Sequence[str],
    *,
    source: str,
    database: Database,
    temporary: TemporaryMaps,
) -> FinishedMap:
    """Give areas (None: there are none) their table, so that the map lacks its name only."""
    rows = area_rows(areas, classes, source) if areas else ()
    return finish_vector_map(
        areas,
        name,
        MapTable(columns=area_columns(classes, [source]), rows=rows, database=database),
        title=f"Classes of {source}",
        comment=f"U-Net prediction of {source}: {', '.join(classes)}",
        temporary=temporary,
    )
