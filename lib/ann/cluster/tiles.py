"""Tiles on all nodes of a cluster: batches of them go to workers, what was made of them comes back.

Each worker is a process with the model loaded. One that dies costs its batches (two at most), which others
do again, while a new one is started in its place. Nothing here runs in threads: results are fetched while the
caller waits for one.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from ann.cluster.connection import Cluster, Node, connect, on_node
from ann.cluster.tile_worker import SceneFile, TileWorker
from ann.errors import AnnError, ClusterError
from ann.inference.tile_rows import TileBatch, Workers
from ann.inference.workers import TileWork
from ann.weights import ModelFile

CPUS_PER_WORKER = 4  # threads of a network on a CPU: more of them are worth less than another worker
RESERVED_CPUS = 0.5  # that Ray counts for a worker: it is the driver that shares the work out
BATCHES_PER_WORKER = 2  # one in work, one that is read meanwhile
TRIES = 4  # at one batch, where workers die
STARTS = 3  # of a worker that dies without finishing a batch, before its place is given up
START_SECONDS = 300  # without any worker ready, before it is given up: loading a model takes 10 to 60

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What the workers load."""

    model: ModelFile
    work: TileWork


@dataclass(frozen=True, kw_only=True)
class Seat:
    """Where a worker runs. threads: of the network, 0 as many as it likes; gpus: it uses, 0 or 1."""

    node: Node
    threads: int
    gpus: int


def plan_seats(nodes: tuple[Node, ...]) -> list[Seat]:
    """A worker for each GPU; on nodes without, one for every CPUS_PER_WORKER CPUs."""
    seats = []
    for node in nodes:
        if node.gpus:
            seats += [Seat(node=node, threads=0, gpus=1)] * node.gpus
        else:
            count = max(1, int(node.cpus // CPUS_PER_WORKER))
            seats += [Seat(node=node, threads=max(1, int(node.cpus / count)), gpus=0)] * count
    return seats


@dataclass(eq=False)
class _Batch:
    batch: TileBatch
    scene: SceneFile | None
    tries: int = 0
    found: object = None
    error: BaseException | None = None
    done: bool = False


@dataclass(eq=False)
class _Worker:
    seat: Seat
    actor: object
    starts: int = 1  # since the last batch that this place finished
    ready: bool = False
    under_way: dict[object, _Batch] = field(default_factory=dict)  # by reference of the result


class ClusterWorkers:
    """The workers of a cluster, for scene after scene."""

    def __init__(self, cluster: Cluster, network: Network, tell: Tell):
        import ray

        self._ray = ray
        self.network, self._tell = network, tell
        self._queue: deque[_Batch] = deque()
        self._loading: dict[object, _Worker] = {}  # by reference of what `load` returns
        self._content = ray.put(Path(network.model.path).read_bytes())
        self._workers: list[_Worker] = []
        self._last_ready = time.monotonic()
        self._runtimes: set[str] = set()
        for seat in plan_seats(cluster.nodes):
            self._workers.append(self._start(seat))
        self.in_flight = (BATCHES_PER_WORKER + 1) * len(self._workers)

    @property
    def count(self) -> int:
        """Number of workers, those that are being started included."""
        return len(self._workers)

    def for_scene(self, scene: SceneFile | None) -> SceneWorkers:
        """Workers as the pipeline takes them. scene: the file that they read, None if they get the pixels."""
        return SceneWorkers(self, scene)

    def processes(self) -> list[int]:
        """Process numbers of the workers that are ready, for tests that end one."""
        return [self._ray.get(one.actor.process.remote()) for one in self._workers if one.ready]

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self._ray.kill(worker.actor, no_restart=True)
        self._workers = []

    def submit(self, batch: _Batch) -> None:
        """Take a batch; it is sent when a worker has room."""
        self._queue.append(batch)
        self._send()

    def cancel(self, batch: _Batch) -> None:
        """Forget a batch that was not begun."""
        with contextlib.suppress(ValueError):
            self._queue.remove(batch)

    def step(self, seconds: float | None) -> None:
        """Take what is finished; wait that long for something to finish, or until it does.

        Raises:
            ClusterError: no worker can be started.
        """
        references = [one for worker in self._workers for one in worker.under_way] + list(self._loading)
        if not references:
            raise ClusterError("No worker is left in the cluster, see the messages above")
        wait = START_SECONDS if seconds is None else seconds
        done, _ = self._ray.wait(references, num_returns=1, timeout=wait)
        for reference in done:
            self._finish(reference)
        if any(worker.ready for worker in self._workers):
            self._last_ready = time.monotonic()
        elif time.monotonic() - self._last_ready > START_SECONDS:
            raise ClusterError(
                f"No worker was ready within {START_SECONDS} s. See that the nodes have free CPUs, GPUs and "
                "memory: ray status"
            )
        self._send()

    def _start(self, seat: Seat, starts: int = 1) -> _Worker:
        network = self.network
        actor = self._ray.remote(TileWorker).options(
            num_cpus=min(RESERVED_CPUS, seat.node.cpus),
            num_gpus=seat.gpus,
            max_restarts=0,
            max_concurrency=BATCHES_PER_WORKER + 1,  # and one that asks for the process
            scheduling_strategy=on_node(seat.node.id, soft=True),
        )
        worker = _Worker(seat, actor.remote(network.work, seat.threads), starts)
        reference = worker.actor.load.remote(self._content)
        self._loading[reference] = worker
        return worker

    def _send(self) -> None:
        """Give queued batches to the workers that have least to do."""
        while self._queue:
            free = [one for one in self._workers if one.ready and len(one.under_way) < BATCHES_PER_WORKER]
            if not free:
                return
            worker, batch = min(free, key=lambda one: len(one.under_way)), self._queue.popleft()
            batch.tries += 1
            worker.under_way[worker.actor.detect.remote(batch.batch, batch.scene)] = batch

    def _finish(self, reference) -> None:
        """Take the result of a batch or of loading; an error of the work itself goes to the caller."""
        worker = self._loading.pop(reference, None)
        batch = None
        if worker is None:
            worker = next(one for one in self._workers if reference in one.under_way)
            batch = worker.under_way.pop(reference)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            cause = self._explain(error, worker.seat.node)
            if batch is None:
                raise cause from error
            batch.error, batch.done = cause, True
            return
        except self._ray.exceptions.RayError as error:
            self._replace(worker, batch, str(error).strip().splitlines()[0])
            return
        if batch is None:
            worker.ready = True
            if result not in self._runtimes:
                also = "Workers differ: another one runs" if self._runtimes else "The network runs"
                self._tell(f"{also} on {result} (node {worker.seat.node.address})")
            self._runtimes.add(result)
        else:
            worker.starts = 1
            batch.found, batch.done = result, True

    def _explain(self, error, node: Node) -> AnnError:
        """An error that the work on a node ended with, with the node's name."""
        cause = error.cause
        kind = type(cause) if isinstance(cause, AnnError) else ClusterError
        what = str(cause) if isinstance(cause, AnnError) else f"{type(cause).__name__}: {cause}"
        return kind(f"{what} (on the cluster's node {node.address})")

    def _replace(self, worker: _Worker, batch: _Batch | None, reason: str) -> None:
        """Give the batches of a dead worker back to the queue and start another one in its place."""
        lost = ([batch] if batch else []) + list(worker.under_way.values())
        self._ray.kill(worker.actor, no_restart=True)
        self._workers.remove(worker)
        address = worker.seat.node.address
        if worker.starts < STARTS:
            self._workers.append(self._start(worker.seat, worker.starts + 1))
            self._tell(
                f"A worker on {address} died ({reason}). Another one is started; its tiles are done again"
            )
        else:
            self._tell(f"Workers on {address} died {STARTS} times ({reason}). It goes on without")
        for one in reversed(lost):
            if one.tries < TRIES:
                self._queue.appendleft(one)
            else:
                one.done = True
                one.error = ClusterError(f"{_name(one)} ended {TRIES} workers, the last one by: {reason}")


@dataclass(frozen=True)
class SceneWorkers:
    """The workers of a cluster at one scene; see `Workers` of the pipeline."""

    workers: ClusterWorkers
    scene: SceneFile | None

    @property
    def in_flight(self) -> int:
        return self.workers.in_flight

    @property
    def reads_scene(self) -> bool:
        return self.scene is not None

    def submit(self, batch: TileBatch) -> Future:
        """Start on a batch."""
        one = _Batch(batch, self.scene)
        self.workers.submit(one)
        return _Pending(self.workers, one)


class _Pending(Future):
    """A batch at the workers: whoever asks for it makes the workers' results come in."""

    def __init__(self, workers: ClusterWorkers, batch: _Batch):
        super().__init__()
        self._workers, self._batch = workers, batch

    def done(self) -> bool:
        if not self._batch.done:
            self._workers.step(0)
        return self._batch.done

    def cancel(self) -> bool:
        self._workers.cancel(self._batch)
        return True

    def result(self, timeout=None):
        while not self._batch.done:
            self._workers.step(timeout)
        if self._batch.error is not None:
            raise self._batch.error
        unpack = self._workers.network.work.unpack
        return [None if made is None else unpack(made) for made in self._batch.found]


def _name(batch: _Batch) -> str:
    tile = batch.batch.tiles[0]
    where = f" of {batch.scene.path}" if batch.scene else ""
    return f"The tile at row {tile.row}, column {tile.column}{where}"


def workers_at(workers: Workers | ClusterWorkers, scene: SceneFile | None) -> Workers:
    """Workers of any kind at one scene, a file or none; those of a cluster read files themselves."""
    return workers.for_scene(scene) if isinstance(workers, ClusterWorkers) else workers


@contextlib.contextmanager
def cluster_workers(address: str, network: Network, tell: Tell) -> Iterator[ClusterWorkers]:
    """As `start_workers`, on the cluster at an address, which is told of."""
    with connect(address) as cluster, start_workers(cluster, network, tell) as workers:
        tell(f"{cluster.describe()}; {workers.count} workers share the tiles")
        yield workers


@contextlib.contextmanager
def start_workers(cluster: Cluster, network: Network, tell: Tell) -> Iterator[ClusterWorkers]:
    """Workers on all nodes, which are ended with the context. tell: gets messages for the user."""
    workers = ClusterWorkers(cluster, network, tell)
    try:
        yield workers
    finally:
        workers.close()
