"""The place of this process among several that train together, whoever started them."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from ann.errors import DeviceError

# Names of (rank, number of processes, rank on the machine) that launchers set: torchrun and Ray, SLURM, Open
# MPI. The address of the first process is in MASTER_ADDR and MASTER_PORT.
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
)


GET_ADDRESS = 0x8915  # SIOCGIFADDR, Linux: an interface's address (netdevice(7))
MEETING_FILE = "file:"  # begins an address that is a path


@dataclass(frozen=True, kw_only=True)
class Place:
    """Process `rank` of `world_size`, counted from 0; alone by default.

    local_rank: the rank among the processes of this machine; address: host:port at which the first process
    gathers the others, or, for processes of one machine with PyTorch, `MEETING_FILE` and the path of a file
    that they make; empty for one process.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    address: str = ""

    def __post_init__(self):
        if not 0 <= self.rank < self.world_size:
            raise DeviceError(
                f"Expected a rank from 0 to {self.world_size - 1}, received {self.rank}. "
                "Check the variables that the launcher sets"
            )
        if self.world_size > 1 and not self.address:
            raise DeviceError(
                f"{self.world_size} processes can't find each other. Set MASTER_ADDR and MASTER_PORT to "
                "the host and a free port of the first"
            )

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and tells about the progress."""
        return self.rank == 0

    @classmethod
    def from_environment(cls, variables: Mapping[str, str] = os.environ) -> Place:
        """The place that a launcher (torchrun, Ray, srun, mpirun) wrote into the environment.

        Raises:
            DeviceError: something is missing or makes no sense.
        """
        for rank, size, local in LAUNCHERS:
            if rank in variables and int(variables.get(size, 1)) > 1:
                host, port = variables.get("MASTER_ADDR"), variables.get("MASTER_PORT")
                return cls(
                    rank=int(variables[rank]),
                    world_size=int(variables[size]),
                    local_rank=int(variables.get(local, 0)),
                    address=f"{host}:{port}" if host and port else "",
                )
        return cls()

    def share(self, count: int) -> slice:
        """This process' part of `count` things, which all processes share in equal parts, in order.

        Raises:
            DeviceError: they can't be shared equally.
        """
        part, rest = divmod(count, self.world_size)
        if rest:
            raise DeviceError(
                f"{count} devices can't be shared equally among {self.world_size} processes. "
                f"Use a multiple of {self.world_size}"
            )
        return slice(self.rank * part, (self.rank + 1) * part)


def free_address(host: str) -> str:
    """host:port of this machine; the port is free at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


def interface_of(address: str) -> str:
    """Name of this machine's network interface with an IPv4 address; "" where that can't be found out."""
    try:
        import fcntl
    except ImportError:
        return ""
    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
            request = struct.pack("256s", name.encode())
            found = fcntl.ioctl(probe, GET_ADDRESS, request)[20:24]
            if socket.inet_ntoa(found) == address:
                return name
    return ""
