"""Detection in one scene after the other, from bands or files to finished maps."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import grass.script as gs
from grass.exceptions import CalledModuleError

from ann.cluster.tiles import ClusterWorkers, workers_at
from ann.errors import AnnError, SceneError
from ann.grass.attributes import MapTable, finish_vector_map
from ann.grass.database import Database, connected_database
from ann.grass.exchange import FinishedMap, names_given
from ann.grass.instances import InstanceTable
from ann.grass.modules import failure
from ann.grass.outputs import OutputNames
from ann.grass.raster_output import (
    RasterWriter,
    finish_class_raster,
    finish_instance_raster,
    finish_score_raster,
    instances_to_cells,
    write_lookup,
)
from ann.grass.region import cell_area
from ann.grass.regular_areas import regularize_areas
from ann.grass.sources import (
    Source,
    grid_to_work_in,
    open_source,
    scene_file,
)
from ann.grass.temporary import TemporaryMaps
from ann.grass.vector_output import (
    AreaMaps,
    attribute_rows,
    generalize_areas,
    make_points,
    measure_areas,
    table_columns,
)
from ann.inference.scene import Scene
from ann.inference.tile_rows import Progress, Workers
from ann.inference.tiles import cut_tiles
from maskrcnn.grass.merged import FoundScene, NumberedScene, number_group, write_merged
from maskrcnn.grass.windows import WindowOnGround, finish_windows, windows_on_ground
from maskrcnn.instances.pipeline import DetectionSettings, find_by_workers
from maskrcnn.instances.seams import (
    SharedInstance,
    finest_grid,
    groups,
    merge_scenes,
    neighbours,
    shared_boxes,
    shown_in,
)
from maskrcnn.instances.uncertain import UncertainWindows


@dataclass(frozen=True, kw_only=True)
class SceneResult:
    """What became of a scene. counts: instances by class id, all classes; error: why there are none.

    tiles_skipped: those of `tiles` without any cell that has data, which the network did not see.
    """

    name: str
    cells: int = 0
    tiles: int = 0
    tiles_skipped: int = 0
    seconds: float = 0.0
    seconds_network: float = 0.0
    counts: dict[int, int] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """How results are written.

    generalize, regularize: tolerance of simpler or of right-angled outlines, map units; None keeps them.
    label_next: name of a map of the windows that labels would help most in; None for none.
    database: for attribute tables, tried out; None looks it up when the first table is written.
    """

    names: OutputNames
    classes: tuple[str, ...]
    resolution: float | None = None
    generalize: float | None = None
    regularize: float | None = None
    label_next: str | None = None
    database: Database | None = None


class DetectionRun:
    """Detects in scenes one by one, keeps temporary results, and writes all maps at the end.

    A scene that fails leaves nothing behind but its name. Maps get their final names in `finish` only.
    Scenes that overlap or touch are merged when the last of them is through (see `instances.seams`): until
    then their instance maps are numbered scene by scene, and objects that several of them may show are kept.
    """

    def __init__(
        self,
        workers: Workers | ClusterWorkers,
        sources: Sequence[Source],
        settings: DetectionSettings,
        outputs: OutputSettings,
        temporary: TemporaryMaps,
    ):
        self._workers, self._settings, self._outputs = workers, settings, outputs
        self._temporary = temporary
        self._kinds = outputs.names.kinds
        os.environ.setdefault("CMDLINE", shlex.join(sys.argv))  # for the history; set by modules' parser
        self._table = InstanceTable()
        self._next_category = 1
        self._areas = AreaMaps(temporary)
        self._windows: list[WindowOnGround] = []
        self._rasters: dict[str, str] = {}  # final name -> temporary name
        self._database: Database | None = None
        self.failures: dict[str, str] = {}  # why maps could not be written, by name
        self.written: dict[str, int | None] = {}
        self._results: dict[int, SceneResult] = {}
        self._grids = [grid_to_work_in(source, outputs.resolution) for source in sources]
        self._beside = neighbours(self._grids)
        self._groups = {number: group for group in groups(self._beside) for number in group}
        self._found: dict[int, FoundScene] = {}

    @property
    def results(self) -> list[SceneResult]:
        """What became of the scenes so far, in their order; final when all of a group are through."""
        return [self._results[number] for number in sorted(self._results)]

    def detect(self, number: int, source: Source, report: Callable[[Progress], None]) -> SceneResult:
        """Detect in the scene of that number; an error of this scene is in the result, not raised.

        Errors are told as warnings here, since those of a group's maps come with the last of its scenes.
        """
        with self._errors_of(number, source):
            self._found[number] = found = self._detect(number, source, report)
            self._results[number] = self._result(found, found.table)
        if all(one in self._results for one in self._groups[number]):
            self._finish_group(self._groups[number])
        return self._results[number]

    def finish(self) -> dict[str, int | None]:
        """Write all maps; returns features of each vector map and None for each raster map, by name.

        A map that can't be written is in `failures`; the others are kept. Interrupted by the user, either
        all or none have got their names; `written` says what is there.
        """
        finished: list[FinishedMap] = []
        areas = self._collect_areas()
        for (kind, class_id), name in self._outputs.names.vectors.items():
            if name in self.failures:
                continue
            try:
                geometry = (
                    areas.get(class_id)
                    if kind == "area"
                    else make_points(self._table, class_id, self._temporary)
                )
                finished.append(self._finish_vector(kind, class_id, name, geometry))
            except (AnnError, OSError, CalledModuleError) as error:
                self.failures[name] = failure(error)
        if label_next := self._outputs.label_next:
            try:
                finished.append(
                    finish_windows(
                        self._windows, label_next, database=self._find_database(), temporary=self._temporary
                    )
                )
            except (AnnError, OSError, CalledModuleError) as error:
                self.failures[label_next] = failure(error)
        finished += [
            FinishedMap(kind="raster", temporary=temporary_name, name=name)
            for name, temporary_name in self._rasters.items()
        ]
        with names_given(finished, self._temporary) as (named, failures):
            self.failures |= failures
            self.written = {one.name: one.features for one in named}
        return self.written

    def _collect_areas(self) -> dict[int, str]:
        """Temporary maps of areas with the outlines asked for, by class; what fails is in `failures`."""
        outputs, temporary = self._outputs, self._temporary
        names = {class_id: name for (kind, class_id), name in outputs.names.vectors.items() if kind == "area"}
        areas: dict[int, str] = {}
        for class_id, name in names.items():
            try:
                geometry = self._areas.collect(class_id)
                if geometry is not None and outputs.generalize:
                    geometry = generalize_areas(geometry, outputs.generalize, temporary)
            except (AnnError, OSError, CalledModuleError) as error:
                self.failures[name] = failure(error)
            else:
                areas |= {} if geometry is None else {class_id: geometry}
        if outputs.regularize and areas:
            try:  # all together, since neighbours may be of other classes
                areas = regularize_areas(areas, outputs.regularize, temporary)
            except (AnnError, OSError, CalledModuleError) as error:
                self.failures |= {names[class_id]: failure(error) for class_id in areas}
        return areas

    def _finish_vector(self, kind: str, class_id: int, name: str, geometry: str | None) -> FinishedMap:
        """Everything of a vector map but its name."""
        changed = self._outputs.generalize or self._outputs.regularize
        measured = measure_areas(geometry) if kind == "area" and geometry and changed else None
        sources = [result.name for result in self.results if result.error is None]
        class_name, certainty = self._outputs.classes[class_id - 1], self._settings.turns
        return finish_vector_map(
            geometry,
            name,
            MapTable(
                columns=table_columns(class_name, sources, certainty),
                rows=attribute_rows(self._table, class_id, class_name, measured, certainty),
                database=self._find_database(),
            ),
            title=f"Detected instances of {class_name}",
            comment=f"Mask R-CNN detections in {', '.join(sources)}",
            temporary=self._temporary,
        )

    def _detect(self, number: int, source: Source, report: Callable[[Progress], None]) -> FoundScene:
        start = time.perf_counter()
        table, shared = InstanceTable(), []
        last = Progress(tiles_total=0)

        def remember(progress: Progress) -> None:
            nonlocal last
            last = progress
            report(progress)

        first = self._next_category if len(self._groups[number]) == 1 else 1
        beside = shared_boxes(self._grids[number], [self._grids[other] for other in self._beside[number]])
        instances = self._temporary.raster("instances") if self._kinds - {"point"} else None
        with open_source(source, self._outputs.resolution) as (scene, grid), ExitStack() as stack:
            writer = stack.enter_context(RasterWriter(instances, grid)) if instances else None
            workers = workers_at(self._workers, scene_file(source, self._outputs.resolution))
            doubts = self._doubts_of(scene)
            watch = doubts.add if doubts else None
            for block in find_by_workers(scene, workers, self._settings, remember, beside, watch):
                if writer is not None:
                    writer.write(instances_to_cells(block.instance_ids, first))
                for one in block.instances:
                    x, y = grid.coordinates(one.row, one.column)
                    table.add(
                        category=first + one.id - 1,
                        class_id=one.class_id,
                        score=one.score,
                        area=one.cells * cell_area(grid, one.row),
                        source=source.name,
                        x=x,
                        y=y,
                        votes=one.certainty.votes if one.certainty else 0,
                        spread=one.certainty.spread if one.certainty else 0.0,
                    )
                    if one.shape is not None:
                        shared.append(
                            SharedInstance(
                                scene=number,
                                id=one.id,
                                class_id=one.class_id,
                                score=one.score,
                                shape=one.shape,
                            )
                        )
        if last.tiles_skipped == last.tiles_total:
            if instances is not None:
                self._temporary.drop(instances)
            raise SceneError(
                "no cell has data: all are NULL in one of the bands"
                + (" or masked (r.mask)" if source.path is None else ", without data or transparent")
            )
        if doubts:
            self._windows += windows_on_ground(doubts.ranked(), grid, source.name)
        return FoundScene(
            source=source,
            grid=grid,
            table=table,
            shared=tuple(shared),
            instances=instances,
            tiles=last.tiles_done,
            seconds=time.perf_counter() - start,
            seconds_network=last.seconds_network,
            tiles_skipped=last.tiles_skipped,
        )

    def _doubts_of(self, scene: Scene) -> UncertainWindows | None:
        """Where the windows of a scene are counted that labels would help most in, if they are asked for."""
        if self._outputs.label_next is None:
            return None
        settings = self._settings
        return UncertainWindows(cut_tiles(scene.height, scene.width, settings.tile_shape, settings.overlap))

    def _find_database(self) -> Database:
        if self._database is None:
            self._database = self._outputs.database or connected_database(table_columns())
        return self._database

    def _finish_group(self, group: Sequence[int]) -> None:
        """Merge, number and write what scenes show that are all through."""
        found = {number: self._found.pop(number) for number in group if number in self._found}
        if len(group) > 1 and found:
            self._finish_neighbours(found)
            return
        for number, scene in found.items():
            with self._errors_of(number, scene.source):
                if scene.instances is not None:
                    self._write_maps(number, scene, scene.instances, scene.table)
                    if "area" in self._kinds and len(scene.table):
                        self._areas.add_scene(scene.instances, scene.table, scene.grid)
                    self._drop_unless_asked_for(scene.instances)
                self._add_rows(scene.table)

    def _finish_neighbours(self, found: Mapping[int, FoundScene]) -> None:
        grids = {number: scene.grid for number, scene in found.items()}
        pixels = finest_grid(list(grids.values()))
        shared = [one for scene in found.values() for one in scene.shared]
        objects = merge_scenes(grids, pixels, shared, self._settings.minimum_area)
        numbered = number_group(found, objects, pixels, self._next_category)
        shown = shown_in(grids, pixels, objects) if self._kinds - {"point"} else {}
        for number, scene in found.items():
            with self._errors_of(number, scene.source):
                own = numbered[number]
                if scene.instances is not None:
                    visible = [(own.category_of(index), part) for index, part in shown[number]]
                    merged = self._temporary.raster("instances")
                    write_merged(merged, scene.grid, visible, scene.instances, own.by_local_id)
                    self._temporary.drop(scene.instances)
                    others = own.merged.part([index for index, _ in shown[number]])
                    self._write_maps(number, scene, merged, own.only_here.joined(others))
                    if "area" in self._kinds:
                        self._add_areas(scene, own, merged)
                    self._drop_unless_asked_for(merged)
                rows = own.rows
                self._add_rows(rows)
                self._results[number] = self._result(scene, rows)

    def _add_areas(self, scene: FoundScene, own: NumberedScene, instances: str) -> None:
        """Areas of what the scene alone shows, and of the objects that it shows best, whole."""
        if len(own.only_here):
            self._areas.add_scene(instances, own.only_here, scene.grid, adjoins=True)
        if own.best:
            raster = self._temporary.raster("merged")
            write_merged(raster, own.best_grid, own.best)
            self._areas.add_scene(raster, own.best_rows, own.best_grid, adjoins=True)
            self._temporary.drop(raster)

    def _add_rows(self, table: InstanceTable) -> None:
        self._table.extend(table)
        self._next_category = max(self._next_category, table.last_category + 1)

    def _result(self, found: FoundScene, rows: InstanceTable) -> SceneResult:
        class_ids = range(1, len(self._outputs.classes) + 1)
        return SceneResult(
            name=found.source.name,
            cells=found.grid.rows * found.grid.columns,
            tiles=found.tiles,
            seconds=found.seconds,
            seconds_network=found.seconds_network,
            tiles_skipped=found.tiles_skipped,
            counts={class_id: len(rows.of_class(class_id)) for class_id in class_ids},
        )

    @contextmanager
    def _errors_of(self, number: int, source: Source) -> Iterator[None]:
        """Make an error the result of a scene."""
        try:
            yield
        except (AnnError, OSError, CalledModuleError) as error:
            message = failure(error)
            self._results[number] = SceneResult(name=source.name, error=message)
            gs.warning(f"Scene {source.name} failed: {message}")

    def _write_maps(self, number: int, found: FoundScene, instances: str, table: InstanceTable) -> None:
        """Write the raster maps of a scene. table: the rows of all instances in its instance map."""
        names, classes = self._outputs.names.rasters, self._outputs.classes
        grid, source = found.grid, found.source.name
        made: dict[str, str] = {}
        if "class" in self._kinds:
            made[names["class", number]] = name = self._temporary.raster("classes")
            write_lookup(instances, name, grid, table.classes_by_category())
            finish_class_raster(name, classes, grid=grid, source=source)
        if "score" in self._kinds:
            made[names["score", number]] = name = self._temporary.raster("scores")
            write_lookup(instances, name, grid, table.scores_by_category())
            finish_score_raster(name, grid=grid, source=source)
        if "raster" in self._kinds:
            made[names["raster", number]] = instances
            finish_instance_raster(
                instances, table, classes, grid=grid, source=source, temporary=self._temporary
            )
        self._rasters.update(made)

    def _drop_unless_asked_for(self, instances: str) -> None:
        if "raster" not in self._kinds:
            self._temporary.drop(instances)
