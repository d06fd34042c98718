"""Detection in one scene after the other, from bands or files to finished maps."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import grass.script as gs
from grass.exceptions import CalledModuleError

from ann.cluster.detection import ClusterWorkers
from ann.cluster.tile_worker import SceneFile
from ann.errors import AnnError, SceneError
from ann.grass.bands import Band, MapScene
from ann.grass.files import file_grid
from ann.grass.outputs import OutputNames
from ann.grass.raster_output import (
    RasterWriter,
    finish_class_raster,
    finish_instance_raster,
    finish_score_raster,
    instances_to_cells,
    write_lookup,
)
from ann.grass.region import Grid, cell_area, grid_environment, use_grid, use_output_grid
from ann.grass.temporary import TemporaryMaps
from ann.grass.vector_output import (
    AreaMaps,
    finish_vector_map,
    generalize_areas,
    make_points,
    measure_areas,
)
from ann.inference.files import FileScene
from ann.inference.pipeline import DetectionSettings, Progress, Workers, find_by_workers
from ann.inference.resample import ResampledScene
from maskrcnn.config import MaskRCNNConfig
from maskrcnn.grass.instances import InstanceTable

PIXEL_SIZE_TOLERANCE = 1.5  # times larger or smaller than in training, before it is worth a warning


@dataclass(frozen=True, kw_only=True)
class Source:
    """A scene that is not open: bands of the project within an extent, or an image file with its grid."""

    name: str
    grid: Grid
    bands: tuple[Band, ...] = ()
    path: str | None = None


@dataclass(frozen=True, kw_only=True)
class SceneResult:
    """What became of a scene. counts: instances by class id, all classes; error: why there are none."""

    name: str
    cells: int = 0
    tiles: int = 0
    seconds: float = 0.0
    seconds_network: float = 0.0
    counts: dict[int, int] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """How results are written. generalize: tolerance of outlines, map units; None keeps them as they are."""

    names: OutputNames
    classes: tuple[str, ...]
    resolution: float | None = None
    generalize: float | None = None


def map_source(bands: Sequence[Band], extent: Grid) -> Source:
    """Bands as a scene, as far as they lie in `extent`; SceneError if they don't."""
    scene = MapScene(bands, extent=extent)
    return Source(name=scene.name, grid=scene.grid, bands=tuple(bands))


def file_source(path: str, config: MaskRCNNConfig) -> Source:
    """An image file as a scene; SceneError if it can't be used."""
    with FileScene(path) as scene:
        if scene.bands != config.bands:
            raise SceneError(
                f"Image {path} has {scene.bands} bands, the model was trained on {config.bands}. "
                "Give images with the same bands in the same order as for training"
            )
        return Source(name=os.path.basename(path), grid=file_grid(scene), path=path)


def pixel_size_warning(source: Source, config: MaskRCNNConfig, resolution: float | None) -> str | None:
    """A warning if the cells are much larger or smaller than the pixels the model was trained on."""
    if config.pixel_size is None:
        return None
    size = resolution or (source.grid.row_size * source.grid.column_size) ** 0.5
    ratio = size / config.pixel_size
    if 1 / PIXEL_SIZE_TOLERANCE <= ratio <= PIXEL_SIZE_TOLERANCE:
        return None
    return (
        f"Cells of {source.name} are {size:g} map units large, the model was trained on "
        f"{config.pixel_size:g}. Objects look too {'small' if ratio > 1 else 'large'} to it; "
        f"try resolution={config.pixel_size:g}"
    )


class DetectionRun:
    """Detects in scenes one by one, keeps temporary results, and writes all maps at the end.

    A scene that fails leaves nothing behind but its name. Maps get their final names in `finish` only.
    """

    def __init__(
        self,
        workers: Workers | ClusterWorkers,
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
        self._rasters: dict[str, str] = {}  # final name -> temporary name
        self.results: list[SceneResult] = []

    def detect(self, number: int, source: Source, report: Callable[[Progress], None]) -> SceneResult:
        """Detect in the scene of that number; an error of this scene is in the result, not raised."""
        try:
            result = self._detect(number, source, report)
        except (AnnError, OSError) as error:
            result = SceneResult(name=source.name, error=str(error))
        except CalledModuleError as error:
            result = SceneResult(name=source.name, error=module_failure(error))
        self.results.append(result)
        return result

    def finish(self) -> dict[str, int | None]:
        """Write all maps; returns features of each vector map and None for each raster map, by name."""
        written: dict[str, int | None] = {}
        sources = [result.name for result in self.results if result.error is None]
        comment = f"Mask R-CNN detections in {', '.join(sources)}"
        for (kind, class_id), name in self._outputs.names.vectors.items():
            measured = None
            if kind == "area":
                geometry, measured = self._areas.collect(class_id)
                if geometry is not None and self._outputs.generalize:
                    geometry = generalize_areas(geometry, self._outputs.generalize, self._temporary)
                    measured = measure_areas(geometry)
            else:
                geometry = make_points(self._table, class_id, self._temporary)
            written[name] = finish_vector_map(
                geometry,
                name,
                self._table,
                class_id,
                self._outputs.classes[class_id - 1],
                measured=measured,
                comment=comment,
                temporary=self._temporary,
            )
        for name, temporary_name in self._rasters.items():
            gs.run_command(
                "g.rename", raster=f"{temporary_name},{name}", overwrite=True, env=grid_environment()
            )
            self._temporary.finished(temporary_name)
            written[name] = None
        return written

    def _detect(self, number: int, source: Source, report: Callable[[Progress], None]) -> SceneResult:
        start = time.perf_counter()
        table = InstanceTable()
        last = Progress(tiles_total=0)

        def remember(progress: Progress) -> None:
            nonlocal last
            last = progress
            report(progress)

        instances = self._temporary.raster("instances") if self._kinds - {"point"} else None
        with _open(source, self._outputs.resolution) as (scene, grid), ExitStack() as stack:
            writer = stack.enter_context(RasterWriter(instances, grid)) if instances else None
            for block in find_by_workers(scene, self._workers_for(source), self._settings, remember):
                if writer is not None:
                    writer.write(instances_to_cells(block.instance_ids, self._next_category))
                for one in block.instances:
                    x, y = grid.coordinates(one.row, one.column)
                    table.add(
                        category=self._next_category + one.id - 1,
                        class_id=one.class_id,
                        score=one.score,
                        area=one.cells * cell_area(grid, one.row),
                        source=source.name,
                        x=x,
                        y=y,
                    )
        if instances is not None:
            self._write_maps(number, source, instances, table, grid)
        self._table.extend(table)
        self._next_category += len(table)
        counts = {
            class_id: len(table.of_class(class_id)) for class_id in range(1, len(self._outputs.classes) + 1)
        }
        return SceneResult(
            name=source.name,
            cells=grid.rows * grid.columns,
            tiles=last.tiles_done,
            seconds=time.perf_counter() - start,
            seconds_network=last.seconds_network,
            counts=counts,
        )

    def _workers_for(self, source: Source) -> Workers:
        """The workers at a scene; those of a cluster read files themselves."""
        if not isinstance(self._workers, ClusterWorkers):
            return self._workers
        if source.path is None:
            return self._workers.for_scene(None)
        resolution = self._outputs.resolution
        factor = resolution / source.grid.row_size if resolution else None
        return self._workers.for_scene(SceneFile(path=os.path.abspath(source.path), factor=factor))

    def _write_maps(
        self, number: int, source: Source, instances: str, table: InstanceTable, grid: Grid
    ) -> None:
        names, classes = self._outputs.names.rasters, self._outputs.classes
        made: dict[str, str] = {}
        if "class" in self._kinds:
            made[names["class", number]] = name = self._temporary.raster("classes")
            write_lookup(instances, name, grid, table.classes_by_category())
            finish_class_raster(name, classes, grid=grid, source=source.name)
        if "score" in self._kinds:
            made[names["score", number]] = name = self._temporary.raster("scores")
            write_lookup(instances, name, grid, table.scores_by_category())
            finish_score_raster(name, grid=grid, source=source.name)
        if "area" in self._kinds and len(table):
            self._areas.add_scene(instances, table, grid, masked=source.path is None)
        if "raster" in self._kinds:
            made[names["raster", number]] = instances
            finish_instance_raster(
                instances, table, classes, grid=grid, source=source.name, temporary=self._temporary
            )
        else:
            self._temporary.drop(instances)
        self._rasters.update(made)


def module_failure(error: CalledModuleError) -> str:
    """A message about a GRASS module that failed; what it printed stands above it."""
    return f"{error.module} failed with exit code {error.returncode}, see the messages above"


@contextmanager
def _open(source: Source, resolution: float | None) -> Iterator[tuple[object, Grid]]:
    """The scene and the grid of its pixels; the window of the process is set for reading and writing."""
    own = source.grid
    with ExitStack() as stack:
        if source.path is None:
            scene = stack.enter_context(MapScene(source.bands, extent=own, name=source.name))
        else:
            scene = stack.enter_context(FileScene(source.path))
            use_grid(own)
        grid = own
        if resolution is not None:
            if abs(own.row_size - own.column_size) > 1e-3 * own.row_size:
                raise SceneError(
                    f"Cells of {source.name} are not square ({own.row_size:g} x {own.column_size:g}), which "
                    "resolution= needs. Resample the maps first: r.resamp.interp, r.resamp.stats"
                )
            factor = resolution / own.row_size
            scene, grid = ResampledScene(scene, factor), own.resampled(factor)
            use_output_grid(grid)
        yield scene, grid
