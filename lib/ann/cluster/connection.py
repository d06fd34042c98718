"""Connect to a Ray cluster: reach it or say soon that it can't be reached, and see that its nodes fit."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ann
from ann.devices.parent import ending_with_this_process
from ann.errors import ClusterError
from ann.packages import PIP_NAMES, configured_backend

PROBE_SECONDS = 5  # for a connection to the address
ANSWER_SECONDS = 20  # for a cluster to answer at an address that takes connections
CHECK_SECONDS = 90  # for all nodes to say what is installed; their first process starts meanwhile
START_SECONDS = 600  # for all workers of a training to start; Ray's one minute is short on busy nodes
PACKAGES = ("keras", "numpy", "h5py", "rasterio", "scipy")  # that all work needs, beside Keras' backend
DISTRIBUTIONS = {"tensorflow": ("tensorflow", "tensorflow-cpu")}  # where an import has other names
# What must have one version everywhere: networks must compute the same on all nodes.
EQUAL = ("keras", "tensorflow", "jax", "torch", "openvino")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster that does work: its id and address, and what Ray may use of it."""

    id: str
    address: str
    cpus: float
    gpus: int


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to."""

    address: str
    nodes: tuple[Node, ...]

    def describe(self) -> str:
        """The cluster in a few words."""
        cpus, gpus = sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        return f"Cluster {self.address}: {len(self.nodes)} nodes with {cpus:g} CPUs and {gpus} GPUs"


@contextlib.contextmanager
def connect(address: str, packages: Sequence[str] = ()) -> Iterator[Cluster]:
    """Connect to a cluster: "auto" (the one this machine belongs to) or host:port of its first node.

    packages: what the work needs on the nodes beside `PACKAGES` and the backend, as imported.

    Raises:
        ClusterError: no cluster there, or it can't do the work: a node lacks a package or has another version
            of one. Comes within seconds.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    probe(address)
    backend = configured_backend()
    environment = {
        "py_modules": [str(path.parent) for path in Path(ann.__file__).parents[1].glob("*/__init__.py")],
        "env_vars": {
            "KERAS_BACKEND": backend,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_SECONDS),
        },
    }
    try:
        ray.init(address=address, runtime_env=environment, logging_level="error", log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise ClusterError(explain(address, error)) from error
    try:
        nodes = working_nodes()
        check_nodes(nodes, installed((*PACKAGES, backend, "openvino", *packages)))
        yield Cluster(ray.get_runtime_context().gcs_address, nodes)
    finally:
        ray.shutdown()


def probe(address: str) -> None:
    """Raise ClusterError where no cluster answers at host:port. Ray itself takes minutes for it."""
    target = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    if not target or target == "auto":
        return  # Ray looks for a cluster on this machine, and is quick if there is none
    host, separator, port = target.removeprefix("ray://").rpartition(":")
    if not separator or not port.isdigit():
        raise ClusterError(f"Expected cluster=auto or cluster=host:port, received {target}")
    hint = (
        "See that the cluster runs (ray start --head on its first node), that the address is that of its "
        "first node, and that no firewall is between"
    )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"No cluster can be reached at {target} ({error}). {hint}") from error
    if target.startswith("ray://"):
        return
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", target]
    try:
        answer = subprocess.run(
            ending_with_this_process(command), capture_output=True, timeout=ANSWER_SECONDS, text=True
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"What runs at {target} does not answer as a Ray cluster. {hint}") from error
    if answer.returncode:
        last = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ClusterError(f"The Ray cluster at {target} is not well ({last}). {hint}")


def explain(address: str, error: Exception) -> str:
    """What to tell about an error of `ray.init`."""
    text = " ".join(str(error).split())
    if "ersion mismatch" in text:
        return (
            f"The cluster at {address} runs another version of Ray or Python than this process: {text}. "
            "Install the same on all machines"
        )
    if address == "auto":
        return (
            "cluster=auto found no Ray cluster on this machine. Let it join one with "
            f"ray start --address=host:port, or start one with ray start --head ({text})"
        )
    return (
        f"This machine can't work with the cluster at {address} ({text}). It has to be one of its nodes: "
        f"ray start --address={address} --num-cpus=0"
    )


def working_nodes() -> tuple[Node, ...]:
    """Nodes that have CPUs or GPUs to give, sorted by address.

    Raises:
        ClusterError: there is none.
    """
    import ray

    nodes = []
    for node in ray.nodes():
        resources = node["Resources"]
        cpus, gpus = resources.get("CPU", 0.0), int(resources.get("GPU", 0))
        if node["Alive"] and (cpus or gpus):
            address = node["NodeManagerAddress"]
            nodes.append(Node(id=node["NodeID"], address=address, cpus=cpus, gpus=gpus))
    if not nodes:
        raise ClusterError("The cluster has no node with a CPU or GPU. Start some: ray start --address=...")
    return tuple(sorted(nodes, key=lambda node: (node.address, node.id)))


def on_node(node_id: str, *, soft: bool = False):
    """Ray's scheduling strategy that puts a task or actor on a node; soft: another one if it is gone."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=soft)


def installed(packages: Sequence[str]) -> dict[str, str]:
    """Version of each package, by the name it is imported with; "" for one that is not installed."""
    versions = {}
    for package in packages:
        versions[package] = ""
        for name in DISTRIBUTIONS.get(package, (PIP_NAMES.get(package, package),)):
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[package] = importlib.metadata.version(name)
                break
        else:
            if importlib.util.find_spec(package) is not None:
                versions[package] = "of an unknown version"
    return versions


def check_nodes(nodes: Sequence[Node], here: Mapping[str, str]) -> None:
    """Compare what is installed on the nodes with what is installed here.

    Raises:
        ClusterError: a node does not answer, lacks a package that is installed here, or has another version
            where it matters; all such nodes are named.
    """
    import ray

    ask = ray.remote(num_cpus=0, max_retries=0)(installed)
    answers = {ask.options(scheduling_strategy=on_node(node.id)).remote(tuple(here)): node for node in nodes}
    ready, silent = ray.wait(list(answers), num_returns=len(answers), timeout=CHECK_SECONDS)
    faults = [f"{answers[one].address} does not answer" for one in silent]
    for answer in ready:
        address = answers[answer].address
        try:
            there = ray.get(answer)
        except ray.exceptions.RayError as error:
            faults.append(f"{address} can't run Python code ({str(error).strip().splitlines()[-1]})")
            continue
        for package, version in here.items():
            if there[package] == version or (there[package] and version and package not in EQUAL):
                continue
            if version or (package in EQUAL and there[package]):
                faults.append(
                    f"{address} has {package} {there[package]}, this machine {version or 'has none'}"
                    if there[package]
                    else f"{address} lacks {package} ({version} is installed here)"
                )
    if faults:
        raise ClusterError(
            f"The cluster's nodes don't fit this machine: {'; '.join(faults)}. Install the same versions on "
            "all (requirements.txt, requirements-cluster.txt), or start Ray without these nodes"
        )
