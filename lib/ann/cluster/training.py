"""Training on several machines: Ray Train starts a worker on each and starts them all again when one dies.

The work itself is `ann.training.worker.train_worker`, the same under any launcher. Workers meet at an address
that the first one chooses. After a death training goes on from the last state that was saved, at the end of
an epoch. After an error of the library nothing is tried again: it would come again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ann.cluster.connection import Cluster, on_node
from ann.cluster.prepare import check_portable
from ann.devices.place import Place, free_address, interface_of
from ann.errors import AnnError, ClusterError
from ann.packages import configured_backend
from ann.training.job import Job, Reporter, Sender, TrainingResult
from ann.training.worker import train_worker
from ann.weights import read_model

CPUS_PER_WORKER = 0.5  # that Ray counts; the network takes what it needs
RESTARTS = 20  # of a run, before it is given up
MAIL_SECONDS = 0.5  # between two looks for messages
CAUSE_SECONDS = 3  # in which the worker that others fail because of tells why
# Where PyTorch's Gloo looks for the network interface. By itself it takes the one that the host's name leads
# to, on many systems the loopback interface, at which no other node is found.
INTERFACE_VARIABLE = "GLOO_SOCKET_IFNAME"


@dataclass(frozen=True, kw_only=True)
class Team:
    """How the work is shared out: `count` workers with `gpus` each (0: the CPU is the one device)."""

    count: int
    gpus: int


def plan_team(cluster: Cluster, device_count: int, backend: str) -> Team:
    """As few workers as can be, each with equally many GPUs of one machine; for PyTorch one per GPU.

    Where machines have unlike numbers of GPUs, larger ones get several workers. Without GPUs each machine is
    one device.

    Raises:
        ClusterError: the devices can't be shared out so, or the backend can't train on several machines.
    """
    per_node = max(node.gpus for node in cluster.nodes)
    if backend == "tensorflow" and device_count > max(1, per_node):
        raise ClusterError(
            "With TensorFlow Keras can't train on several machines. Set KERAS_BACKEND to jax or torch"
        )
    available = sum(node.gpus if per_node else 1 for node in cluster.nodes)
    if device_count > available:
        listed = ", ".join(f"{node.address} ({node.gpus} GPUs)" for node in cluster.nodes)
        raise ClusterError(
            f"gpu_count={device_count} asks for more devices than the cluster has: {available}, on {listed}. "
            + ("Lower gpu_count" if per_node else "Without GPUs each node counts as one: lower gpu_count")
        )
    if not per_node or backend == "torch":
        return Team(count=device_count, gpus=int(per_node > 0))
    gpus = next(
        gpus
        for gpus in range(per_node, 0, -1)
        if device_count % gpus == 0
        and sum(node.gpus // gpus for node in cluster.nodes) >= device_count // gpus
    )
    return Team(count=device_count // gpus, gpus=gpus)


def train_on_cluster(job: Job, reporter: Reporter, cluster: Cluster) -> TrainingResult:
    """Train on the cluster's nodes; reporter: gets what the first worker tells.

    The files that the job names must be found under the same absolute paths on all nodes; only the first
    worker writes.

    Raises:
        AnnError: the devices don't suffice, or the training failed.
    """
    import ray
    import ray.train
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    check_portable(job.dataset)
    team = plan_team(cluster, job.settings.device_count, configured_backend())
    here = ray.get_runtime_context().get_node_id()  # any other node may die
    mailbox = ray.remote(num_cpus=0, scheduling_strategy=on_node(here))(Mailbox).remote()
    folder = job.settings.logs / f".{job.settings.name}.ray"  # by it Ray sees that all nodes share the logs
    resources = {"CPU": CPUS_PER_WORKER} | ({"GPU": team.gpus} if team.gpus else {})
    trainer = DataParallelTrainer(
        run_worker,
        train_loop_config={
            "job": job,
            "state_before": stamp(job.settings.state_path),
            "mailbox": mailbox,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=team.count,
            use_gpu=team.gpus > 0,
            resources_per_worker=resources,
            placement_strategy="SPREAD",
        ),
        run_config=ray.train.RunConfig(
            name="run",
            storage_path=str(folder),
            failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
        ),
    )
    failure = None
    try:
        with deliver(mailbox, reporter) as results:
            try:
                trainer.fit()
            except ray.train.TrainingFailedError as error:
                failure = error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if failure and not results:
        raise ClusterError(
            f"The training was given up after {RESTARTS} restarts. The last reason: {last_line(failure)}"
        ) from failure
    if not results:
        raise ClusterError("The training ended without a result")
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]


def run_worker(config: dict) -> None:
    """What Ray Train runs in each worker, again after each restart.

    config: `job`, `mailbox`, and `state_before`, the stamp of the state file that was there before the run.

    An error ends this worker, upon which Ray ends those that wait for it and starts all again. If it was one
    of the library, they find it told, and end at once.
    """
    import ray
    import ray.train
    from ray.train.collective import broadcast_from_rank_zero

    job, mailbox = config["job"], config["mailbox"]
    if ray.get(mailbox.has_result.remote()):
        return
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    here = ray.util.get_node_ip_address()
    if interface := interface_of(here):
        os.environ.setdefault(INTERFACE_VARIABLE, interface)
    start = None
    if rank == 0:
        start = {"address": free_address(here), "epoch": epoch_to_resume(job, config["state_before"])}
    start = broadcast_from_rank_zero(start)
    # Ray shows a worker none but its own GPUs, so it is the first one on its machine, whatever Ray counts
    place = Place(rank=rank, world_size=size, local_rank=0, address=start["address"])
    reporter = Sender(lambda *report: mailbox.put.remote(*report))
    try:
        result = train_worker(resumed(job, start["epoch"]), reporter, place)
    except AnnError as error:
        ray.get(mailbox.put.remote("result", type(error)(f"{error} (on the cluster's node {here})")))
        raise
    except Exception:
        time.sleep(CAUSE_SECONDS)
        raise
    if rank == 0:
        ray.get(mailbox.put.remote("result", result))


def epoch_to_resume(job: Job, state_before: tuple[int, int] | None) -> int:
    """The last epoch whose state this run, or the run that it continues, has saved."""
    path = job.settings.state_path
    if stamp(path) == state_before:
        return job.epoch
    return int(read_model(path, job.task.kind).extra["epoch"])


def resumed(job: Job, epoch: int) -> Job:
    """The job as it goes on after an epoch."""
    if epoch == job.epoch:
        return job
    initial = read_model(job.settings.state_path, job.task.kind)
    return replace(job, initial=initial, skip_heads=False, imagenet=False, epoch=epoch)


def stamp(path: Path) -> tuple[int, int] | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_mtime_ns, status.st_size


class Mailbox:
    """What workers have to say, until it is fetched; made an actor."""

    def __init__(self):
        self._mail: list[tuple[str, object]] = []
        self._has_result = False

    def put(self, kind: str, content: object) -> None:
        """Leave a message."""
        self._mail.append((kind, content))
        self._has_result |= kind == "result"

    def has_result(self) -> bool:
        """Whether a result was put in, an error perhaps."""
        return self._has_result

    def fetch(self) -> list[tuple[str, object]]:
        """All messages since the last time."""
        mail, self._mail = self._mail, []
        return mail


@contextlib.contextmanager
def deliver(mailbox, reporter: Reporter) -> Iterator[list]:
    """Hand the mail on to a reporter while the context lasts; gives a list that gets the results."""
    import ray

    results: list = []
    ended = threading.Event()

    def fetch() -> None:
        for kind, content in ray.get(mailbox.fetch.remote()):
            if kind == "result":
                results.append(content)
            else:
                getattr(reporter, kind)(*content)

    def keep_fetching() -> None:
        while not ended.wait(MAIL_SECONDS):
            fetch()

    thread = threading.Thread(target=keep_fetching, name="mail", daemon=True)
    thread.start()
    try:
        yield results
    finally:
        ended.set()
        thread.join()
        fetch()


def last_line(error: Exception) -> str:
    """What an error of Ray Train comes down to."""
    return (str(error).strip().splitlines() or ["not known"])[-1]
