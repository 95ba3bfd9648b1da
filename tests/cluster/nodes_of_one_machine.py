"""A Ray cluster of two nodes on this machine, each with one core, for the time of a test."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

_SMALL = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
# Not 127.0.0.1, which Ray takes for another name of the machine's address in its network.
_HOME = {"node_ip_address": "127.0.0.2"}


@contextlib.contextmanager
def two_nodes(**resources: int) -> Iterator[tuple[Any, Any]]:
    """The cluster (`ray.cluster_utils.Cluster`), whose `address` is told to --cluster, and its second node."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**_SMALL, **_HOME, **resources})
    try:
        yield cluster, cluster.add_node(**_SMALL, **_HOME, **resources)
    finally:
        cluster.shutdown()
