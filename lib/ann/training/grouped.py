"""Training on several devices with PyTorch: a process for each, which add up their gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as group

from ann.devices.place import MEETING_FILE, Place
from ann.pytorch.steps import Steps
from ann.training.shares import Replica, moving_statistics

BUCKET = 8 * 2**20  # numbers of gradients that are sent at once; 32 MiB
MEETING_TIME = timedelta(minutes=30)  # for all processes to be there
# For all processes to take part in the next addition. They wait while the first one scores and writes, which
# may take longer than PyTorch's 10 or 30 minutes. A death is noticed by whoever started the processes.
WORK_TIME = timedelta(days=7)


class Grouped(Replica):
    """The replica of this process; the process group must have been joined (`join_group`).

    Batches hold the rows of this process only.
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for variable in self.variables:  # the same everywhere, whatever each process has drawn
            group.broadcast(variable.value.data, src=0)

    def add_up(self, values):
        flat = torch.stack([value.detach() for value in values])
        group.all_reduce(flat)
        return list(flat)

    def add_up_gradients(self, gradients):
        add_up_in_place(gradients)

    def make_steps(self):
        return Steps(self, record=False)

    def take_step(self, batch):
        losses = super().take_step(batch)
        if self.network.train_batch_norm:
            self._share_statistics()
        return losses

    def _share_statistics(self):
        """Make moving statistics, to which each process has added those of its rows, the mean over them."""
        statistics = [variable.value.data for variable in moving_statistics(self.network)]
        add_up_in_place(statistics)
        torch._foreach_div_(statistics, group.get_world_size())


def add_up_in_place(tensors: list[torch.Tensor]) -> None:
    """Replace tensors, which have the same shapes in all processes, by their sums over the processes."""
    bucket, size = [], 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.numel()
        if size >= BUCKET:
            _add_up_bucket(bucket)
            bucket, size = [], 0
    if bucket:
        _add_up_bucket(bucket)


def _add_up_bucket(tensors):
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    group.all_reduce(flat)
    start = 0
    for tensor in tensors:
        tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
        start += tensor.numel()


def first_says(value: float) -> float:
    """The value of the first process, in all of them."""
    said = torch.tensor(value, dtype=torch.float64, device="cuda" if torch.cuda.is_available() else "cpu")
    group.broadcast(said, src=0)
    return float(said)


def gather(own: object) -> list:
    """An object of each process, in the order of the ranks."""
    found = [None] * group.get_world_size()
    group.all_gather_object(found, own)
    return found


@contextlib.contextmanager
def join_group(place: Place) -> Iterator[None]:
    """Inside of the context this process belongs to the group; one that a launcher has joined is used."""
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)
    if group.is_initialized():
        yield
        return
    group.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=meet(place),
        rank=place.rank,
        world_size=place.world_size,
        timeout=WORK_TIME,
    )
    try:
        yield
    finally:
        group.destroy_process_group()


def meet(place: Place) -> group.Store:
    """Where the processes exchange their addresses, once all are there."""
    if place.address.startswith(MEETING_FILE):
        return group.FileStore(place.address.removeprefix(MEETING_FILE), place.world_size)
    url = f"tcp://{place.address}"
    store, _, _ = next(group.rendezvous(url, place.rank, place.world_size, timeout=MEETING_TIME))
    return store
