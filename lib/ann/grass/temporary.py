"""Maps that must not outlive the work: temporary ones, and outputs that are not finished yet."""

from __future__ import annotations

import atexit
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile

import grass.lib.gis as libgis
import grass.script as gs

PREFIX = "tmp_maskrcnn"


class TemporaryMaps:
    """Hands out names of temporary maps and removes whatever exists of them.

    As a context manager it cleans up at the end, whether the work went well, failed or was interrupted by
    Ctrl-C or `kill`, and also when the C library ends the process, which Python does not notice. What a
    process leaves that was killed without notice, `remove_abandoned` removes in the next run.
    """

    def __init__(self):
        self._owner = os.getpid()
        self._rasters: list[str] = []
        self._vectors: list[str] = []
        self._tables: list[str] = []
        self._directory: str | None = None
        self._count = 0
        self._error_handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: self.remove())

    def __enter__(self) -> TemporaryMaps:
        atexit.register(self.remove)
        _on_fatal_error(self._error_handler, True)
        self._previous_handler = signal.signal(signal.SIGTERM, _exit)
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        self.remove()
        signal.signal(signal.SIGTERM, self._previous_handler)
        _on_fatal_error(self._error_handler, False)
        atexit.unregister(self.remove)

    def raster(self, purpose: str) -> str:
        """A new name for a raster map."""
        self._rasters.append(self._name(purpose))
        return self._rasters[-1]

    def vector(self, purpose: str) -> str:
        """A new name for a vector map."""
        self._vectors.append(self._name(purpose))
        return self._vectors[-1]

    def unfinished_vector(self, name: str) -> None:
        """Remove the vector map `name`, too, unless `finished` is called."""
        self._vectors.append(name)

    def unfinished_table(self, name: str) -> None:
        """Remove the attribute table `name`, too, unless `finished` is called."""
        self._tables.append(name)

    def finished(self, name: str) -> None:
        """Keep the map or table `name`: it is complete."""
        for names in (self._rasters, self._vectors, self._tables):
            while name in names:
                names.remove(name)

    def file(self, purpose: str) -> str:
        """Path of a new file; its directory goes with the maps."""
        if self._directory is None:
            self._directory = tempfile.mkdtemp(prefix=PREFIX)
        self._count += 1
        return os.path.join(self._directory, f"{purpose}_{self._count}")

    def drop(self, *names: str) -> None:
        """Remove some of the temporary maps now, to save space."""
        _remove_maps([name for name in names if name in self._rasters], "raster")
        _remove_maps([name for name in names if name in self._vectors], "vector")
        for name in names:
            self.finished(name)

    def remove(self) -> None:
        """Remove all that exists; safe to call again. Not in a forked copy of the process."""
        if os.getpid() != self._owner:
            return
        rasters, self._rasters = self._rasters, []
        vectors, self._vectors = self._vectors, []
        tables, self._tables = self._tables, []
        directory, self._directory = self._directory, None
        _remove_maps(rasters, "raster")
        _remove_maps(vectors, "vector")
        for table in tables:
            _run_quietly("db.droptable", flags="f", table=table)
        if directory:
            shutil.rmtree(directory, ignore_errors=True)

    def _name(self, purpose: str) -> str:
        self._count += 1
        return unique_name(f"{purpose}_{self._count}")


def unique_name(purpose: str) -> str:
    """A name that no other process uses, on this computer or another one that shares the project."""
    return f"{PREFIX}_{_host()}_{os.getpid()}_{purpose}"


def remove_abandoned() -> list[str]:
    """Remove temporary maps of the current mapset whose process is gone; returns their names."""
    pattern = re.compile(rf"{PREFIX}_{_host()}_(\d+)_")
    removed = []
    for kind in ("raster", "vector"):
        found = gs.list_strings(kind, pattern=f"{PREFIX}_{_host()}_*", mapset=".")
        names = [name.split("@")[0] for name in found]
        dead = [name for name in names if (owner := pattern.match(name)) and not _runs(int(owner[1]))]
        _remove_maps(dead, kind)
        removed += dead
    return removed


def _remove_maps(names: list[str], kind: str) -> None:
    mapset = gs.gisenv()["MAPSET"] if names else ""
    element = "cell" if kind == "raster" else "vector"
    existing = [
        name for name in names if libgis.G_find_file2(element.encode(), name.encode(), mapset.encode())
    ]
    for start in range(0, len(existing), 100):  # a command line has an end
        _run_quietly("g.remove", flags="fb", type=kind, name=existing[start : start + 100])


def _run_quietly(module: str, **options) -> None:
    # in a session of its own, so that a Ctrl-C on the terminal doesn't end the cleaning up
    done = subprocess.run(
        gs.make_command(module, quiet=True, **options), capture_output=True, text=True, start_new_session=True
    )
    if done.returncode:
        gs.warning(f"Cleaning up failed: {done.stderr}")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9]", "", socket.gethostname().split(".")[0])[:20] or "host"


def _runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, but as another user
        return True
    return True


def _exit(signal_number, frame) -> None:
    sys.exit(128 + signal_number)


def _on_fatal_error(handler, add: bool) -> None:
    change = libgis.G_add_error_handler if add else libgis.G_remove_error_handler
    change(ctypes.cast(handler, change.argtypes[0]), None)
