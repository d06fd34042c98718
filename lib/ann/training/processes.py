"""Training in several processes of this machine, one for each device, watched over by this one.

PyTorch needs it. This process trains nothing: it passes on what the first of them reports, and sees to it
that all end when one fails or Ctrl-C is pressed. When it is killed itself, they end too.

The processes meet in a file that only this user can reach, and talk through the loopback interface, so that
nobody from outside can take part.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from ann.devices.place import MEETING_FILE, Place
from ann.devices.processes import END_SECONDS, core_share, end_processes, end_with_parent, start_process
from ann.errors import AnnError
from ann.training import log
from ann.training.job import Job, Reporter, Sender, Silence, TrainingResult
from ann.training.worker import train_worker

STOP_SECONDS = 60  # after Ctrl-C, for the first process to end by itself
FAILURE_SECONDS = 3  # in which processes that failed because of another one report as well
LOOK_SECONDS = 0.5  # between two looks for Ctrl-C
LOOPBACKS = ("lo", "lo0")  # names of the interface on Linux, on BSD and macOS
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")  # where PyTorch's libraries look for it


@dataclass(frozen=True)
class Failure:
    """Why a process ended. expected: an error that a user can mend; when: of `time.time`."""

    text: str
    expected: bool
    when: float


def train_in_processes(job: Job, reporter: Reporter) -> TrainingResult:
    """Train with a process for each of `job.settings.device_count` devices.

    Raises:
        AnnError: the training failed, or one of the processes died.
    """
    with tempfile.TemporaryDirectory(prefix="maskrcnn_") as folder:  # for this user alone
        return _train_in_processes(job, reporter, MEETING_FILE + os.path.join(folder, "processes"))


def _train_in_processes(job, reporter, address):
    count = job.settings.device_count
    workers = []
    started, patience = time.time(), 0
    try:
        for rank in range(count):
            place = Place(rank=rank, world_size=count, local_rank=rank, address=address)
            workers.append(start_process(_work, place, name=f"training-{rank}"))
        for worker in workers:
            with contextlib.suppress(OSError):  # it died: seen below
                worker.line.send(job)
        with _interruptible() as interrupted:
            result = _watch(workers, reporter, interrupted)
        patience = END_SECONDS  # the others are about to end as well
        return result
    except KeyboardInterrupt:
        return _interrupt(workers, job, reporter, started)
    finally:
        end_processes(workers, patience)


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Note Ctrl-C in an event. Raised wherever it comes, it gets lost in callbacks, as in those of JAX."""
    pressed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, lambda number, frame: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


def _watch(workers, reporter, interrupted):
    """Pass on the first process' reports until it is through, or until Ctrl-C."""
    watched = list(workers)  # until their end has been seen, and all that they said before it
    while True:
        if interrupted.is_set():
            raise KeyboardInterrupt
        sources = [source for worker in watched for source in (worker.line, worker.process.sentinel)]
        wait(sources, timeout=LOOK_SECONDS)
        for worker in tuple(watched):
            ended = worker.process.exitcode  # before the messages are read: all are there then
            for kind, content in _messages(worker):
                if kind == "result" and worker is workers[0]:
                    return content
                if kind == "failure":
                    _raise_first_failure(workers, [content])
                if kind in ("message", "percent"):
                    getattr(reporter, kind)(*content)
            if ended or (ended == 0 and worker is workers[0]):
                _raise_first_failure(workers, [])
            if ended == 0:
                watched.remove(worker)


def _messages(worker):
    """What a process has sent so far; nothing more comes from one that has ended."""
    with contextlib.suppress(EOFError, OSError):
        while worker.line.poll():
            yield worker.line.recv()


def _raise_first_failure(workers, failures):
    """Tell the cause: others fail because one did."""
    deadline = time.monotonic() + FAILURE_SECONDS
    failures = list(failures)
    while time.monotonic() < deadline and any(worker.process.is_alive() for worker in workers):
        time.sleep(0.1)
    for worker in workers:
        failures += [content for kind, content in _messages(worker) if kind == "failure"]
    killed = [worker.process for worker in workers if (worker.process.exitcode or 0) < 0]
    expected = [failure for failure in failures if failure.expected]
    if expected:
        raise AnnError(min(expected, key=lambda failure: failure.when).text)
    if killed:
        name = signal.Signals(-killed[0].exitcode).name
        raise AnnError(
            f"One of the {len(workers)} training processes was killed ({killed[0].name}, {name}), the others "
            "were stopped. If nobody did it, the main memory may not suffice: lower images_per_gpu or "
            "gpu_count. With model=, the training goes on from the last model"
        )
    cause = min(failures, key=lambda failure: failure.when).text if failures else "it told no reason"
    raise AnnError(f"One of the {len(workers)} training processes failed: {cause}")


def _interrupt(workers, job, reporter, started):
    """End as Ctrl-C ends a run in one process; a second Ctrl-C, or no answer, ends it at once."""
    with contextlib.suppress(KeyboardInterrupt, OSError, IndexError):
        first = workers[0]
        first.line.send("stop")
        deadline = time.monotonic() + STOP_SECONDS
        while first.process.is_alive() and time.monotonic() < deadline:
            wait([first.line, first.process.sentinel], timeout=1)
            for kind, content in _messages(first):
                if kind == "result":
                    return content
                if kind == "message":
                    reporter.message(*content)
    epochs = [int(row["epoch"]) for row in log.read_rows(job.settings.table_path)]
    paths = {epoch: job.settings.model_path(epoch) for epoch in epochs}
    written = [epoch for epoch, path in paths.items() if path.exists() and path.stat().st_mtime >= started]
    last = max(written, default=job.epoch)
    return TrainingResult(last, log.best_epoch(job.settings.table_path, job.task.ranking), interrupted=True)


def _work(line: Connection, place: Place) -> None:
    """What a process does."""
    folder = os.path.dirname(place.address.removeprefix(MEETING_FILE))
    end_with_parent(lambda: shutil.rmtree(folder, ignore_errors=True))
    os.environ.setdefault("OMP_NUM_THREADS", str(core_share(place.world_size)))
    loopback = [name for _, name in socket.if_nameindex() if name in LOOPBACKS]
    os.environ.update(dict.fromkeys(INTERFACE_VARIABLES, loopback[0]) if loopback else {})
    try:
        job = line.recv()
        if place.first:
            signal.signal(signal.SIGUSR1, _raise_interrupt)
            threading.Thread(target=_stop_when_told, args=(line,), daemon=True).start()
        reporter = Sender(lambda *report: line.send(report)) if place.first else Silence()
        result = train_worker(job, reporter, place)
        line.send(("result", result))
    except BaseException as error:
        expected = isinstance(error, AnnError)
        text = str(error) if expected else traceback.format_exc()
        with contextlib.suppress(OSError):
            line.send(("failure", Failure(text, expected, time.time())))
        os._exit(1)  # communication under way with the other processes could wait for ever


def _stop_when_told(line):
    with contextlib.suppress(EOFError, OSError):
        if line.recv() == "stop":
            _thread.interrupt_main(signal.SIGUSR1)


def _raise_interrupt(*_):
    raise KeyboardInterrupt
