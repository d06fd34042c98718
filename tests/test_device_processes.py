"""A process for each device: what it makes of tiles, and what happens when it fails. There is no network."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from ann.errors import DeviceError, ModelFileError
from ann.inference.processes import start_workers
from ann.inference.tile_rows import TileBatch
from ann.inference.tiles import Tile


class Adding:
    """Adds up the pixels of a tile, and tells the process; a sum of 13 kills it, one of 14 is an error."""

    def load(self, path, threads):
        if path.name != "model":
            raise ModelFileError(f"{path} is no model")
        return lambda batch: [self.add_up(pixels) for pixels in batch.pixels], "addition"

    def add_up(self, pixels):
        if pixels.sum() == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        if pixels.sum() == 14:
            raise RuntimeError("fourteen")
        return int(pixels.sum()), os.getpid()

    def unpack(self, made):
        return made


def batch_of(value):
    tile = Tile(row=0, column=0, height=1, width=1)
    return TileBatch(tiles=(tile,), pixels=(np.full((1, 1, 1), value),), valid=(np.ones((1, 1), bool),))


def test_batches_are_shared_among_processes_that_end_with_the_work():
    with start_workers(Path("model"), Adding(), 2) as (workers, runtime):
        assert runtime == "addition" and workers.in_flight == 4
        waiting = [workers.submit(batch_of(value)) for value in range(20, 40)]
        made = [future.result()[0] for future in waiting]
    assert [value for value, _ in made] == list(range(20, 40))
    processes = {process for _, process in made}
    assert len(processes) == 2 and os.getpid() not in processes
    assert not any(Path(f"/proc/{process}").exists() for process in processes)


def test_a_model_that_cannot_be_loaded_is_the_error():
    with pytest.raises(ModelFileError, match="other is no model"), start_workers(Path("other"), Adding(), 2):
        pass


def test_an_error_ends_a_batch_and_no_more():
    with start_workers(Path("model"), Adding(), 1) as (workers, _):
        with pytest.raises(DeviceError, match="fourteen"):
            workers.submit(batch_of(14)).result()
        assert workers.submit(batch_of(15)).result()[0][0] == 15


def test_a_process_that_is_killed_is_told_of():
    with start_workers(Path("model"), Adding(), 1) as (workers, _):
        for value in (13, 15):
            with pytest.raises(DeviceError, match="was killed"):
                workers.submit(batch_of(value)).result()
