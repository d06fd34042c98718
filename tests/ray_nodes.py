"""A small Ray cluster on this machine, for tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RAY_NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@contextmanager
def two_nodes() -> Iterator:
    """A cluster of two nodes with one CPU each (`ray.cluster_utils.Cluster`); nobody is connected to it."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    here = Path(__file__).parent
    node = RAY_NODE | {"env_vars": {"PYTHONPATH": f"{here}{os.pathsep}{here.parent / 'demo'}"}}
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        cluster.add_node(**node)
        yield cluster
    finally:
        cluster.shutdown()
