"""Maps and tables that must not outlive the work: they go with it, however it ends."""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import grass.lib.gis as libgis
import grass.script as gs

from ann.grass.external import external_file, files_beside, output_folder
from ann.grass.modules import interruptions_held, reason, run_apart
from ann.grass.tables import TableLink, resolved, tables_of_all_maps

PREFIX = "tmp_maskrcnn"
RECORD = "tables.json"
MARK = "tmp_maskrcnn_scratch"  # a file in each scratch mapset: the name alone does not prove that it is one
ELEMENTS = {"raster": "cell", "vector": "vector"}
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class TemporaryMap:
    """A raster or vector map."""

    kind: str
    name: str


class TemporaryMaps:
    """Hands out names of temporary maps and removes whatever exists of them, with tables made for them.

    As a context manager it cleans up at the end, whether the work went well, failed or was interrupted by
    Ctrl-C or `kill`, and also when the C library ends the process, which Python does not notice. What a
    process leaves that was killed without notice, `remove_abandoned` removes in the next run.
    """

    def __init__(self):
        self._owner = os.getpid()
        self._maps: dict[str, TemporaryMap] = {}  # by name
        self._tables: dict[str, TableLink] = {}  # by name
        self._directory: str | None = None
        self._count = 0
        self._error_handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: self.remove())

    def __enter__(self) -> TemporaryMaps:
        atexit.register(self.remove)
        _on_fatal_error(self._error_handler, True)
        self._previous_handlers = {}
        for number in ENDING_SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                self._previous_handlers[number] = signal.signal(number, _exit)
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.remove()
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        _on_fatal_error(self._error_handler, False)
        atexit.unregister(self.remove)

    def raster(self, purpose: str) -> str:
        """A new name for a raster map."""
        return self._map("raster", purpose)

    def vector(self, purpose: str) -> str:
        """A new name for a vector map."""
        return self._map("vector", purpose)

    def table(self, link: TableLink) -> None:
        """Drop this table, which has just been created, too, unless `finished` is called."""
        self._tables[link.table] = link
        self._record()

    def finished(self, name: str) -> None:
        """Keep the map or table `name`: it is complete."""
        self._maps.pop(name, None)
        if self._tables.pop(name, None):
            self._record()

    def file(self, purpose: str) -> str:
        """Path of a new file; its directory goes with the maps."""
        if self._directory is None:
            self._directory = tempfile.mkdtemp(prefix=unique_name(""))
        self._count += 1
        return os.path.join(self._directory, f"{purpose}_{self._count}")

    def drop(self, *names: str) -> None:
        """Remove some of the temporary maps now, to save space."""
        _remove_maps([self._maps[name] for name in names if name in self._maps])
        for name in names:
            self.finished(name)

    def remove(self) -> None:
        """Remove all that exists; safe to call again. Not in a forked copy of the process."""
        if os.getpid() != self._owner:
            return
        with interruptions_held():
            maps, self._maps = self._maps, {}
            tables, self._tables = self._tables, {}
            directory, self._directory = self._directory, None
            _drop_tables(tables.values())
            _remove_maps(maps.values())
            if tables:
                self._record()
            if directory:
                shutil.rmtree(directory, ignore_errors=True)

    def _record(self) -> None:
        """Write down which tables are ours, for the run after one that is killed: their names don't tell."""
        path = mapset_folder() / unique_name(RECORD)
        if self._tables:
            path.write_text(json.dumps([asdict(link) for link in self._tables.values()]))
        else:
            path.unlink(missing_ok=True)

    def _map(self, kind: str, purpose: str) -> str:
        self._count += 1
        name = unique_name(f"{purpose}_{self._count}")
        self._maps[name] = TemporaryMap(kind=kind, name=name)
        return name


@cache
def mapset_folder() -> Path:
    """Where the current mapset lies."""
    session = gs.gisenv()
    return Path(session["GISDBASE"], session["LOCATION_NAME"], session["MAPSET"])


def unique_name(purpose: str) -> str:
    """A name that no other process uses, on this computer or another one that shares the project."""
    return f"{PREFIX}_{_host()}_{os.getpid()}_{purpose}"


def is_abandoned(name: str) -> bool:
    """Whether a process of this computer that is gone made this name by `unique_name`."""
    owner = re.match(rf"{PREFIX}_{_host()}_(\d+)_", name)
    return bool(owner) and not _runs(int(owner[1]))


def remove_abandoned() -> list[str]:
    """Remove what dead processes left behind in the current mapset and beside it; returns the names.

    Maps, scratch mapsets, folders for temporary files, and files of maps that r.external.out had written.
    """
    maps = [
        TemporaryMap(kind=kind, name=name)
        for kind, element in ELEMENTS.items()
        for name in _names_in(mapset_folder() / element)
        if is_abandoned(name)
    ]
    _remove_maps(maps)
    _drop_recorded_tables()
    scratch = [
        path
        for path in map(mapset_folder().parent.joinpath, _names_in(mapset_folder().parent))
        if is_abandoned(path.name) and (path / MARK).is_file()
    ]
    folders = [
        path
        for path in map(Path(tempfile.gettempdir()).joinpath, _names_in(Path(tempfile.gettempdir())))
        if is_abandoned(path.name) and path.is_dir() and path.stat().st_uid == os.getuid()
    ]
    for path in (*scratch, *folders):
        shutil.rmtree(path, ignore_errors=True)
    if folder := output_folder(mapset_folder()):
        for name in _names_in(folder):
            if is_abandoned(name):
                (folder / name).unlink(missing_ok=True)
    return [*(one.name for one in maps), *(path.name for path in scratch)]


def _remove_maps(maps: Sequence[TemporaryMap]) -> None:
    folder = mapset_folder()
    for kind, element in ELEMENTS.items():
        names = [one.name for one in maps if one.kind == kind and (folder / element / one.name).exists()]
        files = [external_file(folder, name) for name in names] if kind == "raster" else []
        for start in range(0, len(names), 100):  # a command line has an end
            done = run_apart("g.remove", flags="fb", type=kind, name=names[start : start + 100])
            if done.returncode:
                gs.warning(f"Cleaning up failed: {reason(done)}")
        for name, file in zip(names, files, strict=False):
            if file is not None:  # GRASS leaves what r.external.out had written
                for path in files_beside(file, name):
                    path.unlink(missing_ok=True)


def _drop_tables(links: Sequence[TableLink]) -> None:
    for link in links:
        if failure := link.drop():
            gs.warning(f"Cleaning up failed: {failure}")


def _drop_recorded_tables() -> None:
    """Tables of dead processes that belong to no map."""
    records = [path for path in mapset_folder().glob(f"{PREFIX}_*_{RECORD}") if is_abandoned(path.name)]
    linked = tables_of_all_maps(mapset_folder().parent) if records else {}
    for path in records:
        try:
            links = [TableLink(**link) for link in json.loads(path.read_text())]
        except ValueError:  # cut off in the middle
            links = []
        _drop_tables([link for link in links if resolved(link, mapset_folder()).key not in linked])
        path.unlink()


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _host() -> str:
    # letters and digits alone would take node-1 for node1, which may share the project
    name = socket.gethostname()
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{re.sub(r'[^A-Za-z0-9]', '', name.split('.')[0])[:12]}{digest}"


def _runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it runs, but as another user
        return True
    return True


def _exit(signal_number, frame) -> None:
    sys.exit(128 + signal_number)


def _on_fatal_error(handler, add: bool) -> None:
    change = libgis.G_add_error_handler if add else libgis.G_remove_error_handler
    change(ctypes.cast(handler, change.argtypes[0]), None)
