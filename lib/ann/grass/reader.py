"""Raster maps read in a process of their own, because GRASS ends the process that meets a damaged map.

The C library has no other way to say that a cell file is cut short or that the file of an external map is
gone. Here it ends a process that only reads; what it said becomes an error of one scene, and the next scene
gets a new process. Rows come through a pipe, so memory stays that of the window asked for.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import BinaryIO

import grass.lib.gis as libgis
import numpy as np

from ann.errors import SceneError
from ann.grass.bands import Band, MapScene, find_bands
from ann.grass.region import Grid

SECONDS_TO_END = 5


class DamagedMapError(SceneError):
    """A raster map that GRASS can't read although it exists."""


class MapReader:
    """The process that reads: started when it is first asked, and anew after a map has ended it.

    It works in the session of this process, so the user's mask applies, and ends when this process does.
    """

    def __init__(self):
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()

    def find_bands(self, names: Sequence[str]) -> tuple[Band, ...]:
        """As `bands.find_bands`.

        Raises:
            DamagedMapError: what describes one of the maps can't be read.
            AnnError: a map does not exist, or their extents or resolutions differ.
        """
        return self._ask("find_bands", tuple(names), about=", ".join(names))

    def scene(self, bands: Sequence[Band], grid: Grid, name: str) -> ReaderScene:
        """A scene to be opened with `with`, one at a time."""
        return ReaderScene(self, bands, grid, name)

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ask(self, operation: str, *arguments, about: str):
        with self._lock:
            if self._process is None:
                self._process = _start()
            process = self._process
            try:
                pickle.dump((operation, arguments), process.stdin, protocol=5)
                process.stdin.flush()
                kind, value = pickle.load(process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError):
                self._end()
                kind, value = "fatal", f"the process that read it ended with {process.returncode}"
            except BaseException:  # Ctrl-C between question and answer: they would no longer match
                self._end()
                raise
            if kind == "fatal":
                self._end()
        if kind == "fatal":
            raise DamagedMapError(
                f"GRASS can't read {about}: {value}. The raster map may be damaged, or the file of an "
                "external one (r.external) is gone. Import or link it again, or leave it out"
            )
        if kind == "error":
            raise value
        return value

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):  # what was to be sent has no reader
                pipe.close()
        try:
            process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class ReaderScene:
    """Raster maps as a scene that `MapReader` reads; see `inference.scene.Scene` and `bands.MapScene`."""

    def __init__(self, reader: MapReader, bands: Sequence[Band], grid: Grid, name: str):
        self.name, self.grid = name, grid
        self.height, self.width, self.bands = grid.rows, grid.columns, len(bands)
        self._reader, self._maps = reader, tuple(bands)

    def __enter__(self) -> ReaderScene:
        self._ask("open", self._maps, self.grid, self.name)
        return self

    def __exit__(self, exception_type, exception, traceback) -> None:
        if exception_type is None:
            self._ask("close")
        else:
            self._reader.close()

    def read(self, row: int, column: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Scene.read`.

        Raises:
            DamagedMapError: GRASS can't read these rows.
        """
        return self._ask("read", row, column, height, width)

    def _ask(self, operation: str, *arguments):
        return self._reader._ask(operation, *arguments, about=f"scene {self.name}")


READER = MapReader()  # one for this process, like the window of the C library
atexit.register(READER.close)


def _start() -> subprocess.Popen:
    search = os.pathsep.join(folder for folder in sys.path if folder)
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": search},
    )


def answer(questions: BinaryIO, answers: BinaryIO) -> None:
    """What the process does: answers one question after the other, until there are no more."""

    said: list[str] = []  # by the C library since the last answer

    def send(kind: str, value: object) -> None:
        for text in said:
            print(f"WARNING: {text}", file=sys.stderr)
        said.clear()
        pickle.dump((kind, value), answers, protocol=5)
        answers.flush()

    def hear(message, _) -> int:
        text = message if isinstance(message, str) else bytes(message).decode(errors="replace")
        said.append(" ".join(text.split()))
        return 0

    def fail(_) -> None:
        send("fatal", said.pop().rstrip(".") if said else "it does not say why")

    # both must live as long as the library may call them
    routine = libgis.G_set_error_routine.argtypes[0](hear)
    handler = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(fail)
    libgis.G_set_error_routine(routine)
    libgis.G_add_error_handler(ctypes.cast(handler, libgis.G_add_error_handler.argtypes[0]), None)
    scene: MapScene | None = None
    while True:
        try:
            operation, arguments = pickle.load(questions)
        except EOFError:
            return
        value = None
        try:
            if operation == "find_bands":
                value = find_bands(*arguments)
            elif operation == "open":
                bands, grid, name = arguments
                scene = MapScene(bands, extent=grid, name=name).__enter__()
            elif operation == "read":
                value = scene.read(*arguments)
            elif operation == "close":
                scene.__exit__()
        except Exception as error:  # handed over to the process that asked
            send("error", error)
        else:
            send("value", value)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the process that asks
    with os.fdopen(os.dup(1), "wb") as own_answers:
        os.dup2(2, 1)  # nothing else may come between the answers
        answer(sys.stdin.buffer, own_answers)
