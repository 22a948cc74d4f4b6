"""The nodes of the connected cluster, and the wait for those that an autoscaling cluster adds."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence

import ray
import ray.autoscaler.sdk
import ray.util

from raysys.cluster import capacity
from raysys.cluster.capacity import Demand, Node
from raysys.errors import InputError

log = logging.getLogger("raysys")
_NODES_TIMEOUT_S = 300.0  # for the first nodes of an autoscaling cluster
_POLL_INTERVAL_S = 1.0


def alive_nodes() -> list[Node]:
    """The present nodes of the cluster."""
    return [Node(node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]]


def this_node() -> list[Node]:
    """Those of the present nodes that are on this machine."""
    here = ray.util.get_node_ip_address()
    return [node for node in alive_nodes() if node.address == here]


def num_cores(nodes: Sequence[Node]) -> int:
    """The CPUs of the nodes; of this machine, no more than its cores."""
    return capacity.num_cores(nodes, here=ray.util.get_node_ip_address(), cores_here=os.cpu_count() or 1)


def num_free_gpus() -> int:
    """The GPUs of the cluster that no task or actor holds."""
    return int(ray.available_resources().get("GPU", 0.0))


def wait_for_nodes(
    stage: str, demands: Callable[[Sequence[Node]], Sequence[Demand]], *, may_grow: bool
) -> list[Node]:
    """The nodes, as soon as the demands fit them; `demands` is called with the present nodes.

    Waits a bounded time for a cluster that may autoscale (`may_grow`). Raises: InputError if the demands do
    not fit; at once on a cluster started on this machine.
    """
    deadline = time.monotonic() + (_NODES_TIMEOUT_S if may_grow else 0)
    is_requested = False
    try:
        while True:
            nodes = alive_nodes()
            asked = demands(nodes)
            shortfall = capacity.shortfall(nodes, asked, is_local=not may_grow)
            if shortfall is None:
                return nodes
            if time.monotonic() >= deadline:
                raise InputError(f"{stage}: {shortfall}")
            if not is_requested:
                log.warning("%9s  waiting up to %.0f s for nodes: %s", stage, _NODES_TIMEOUT_S, shortfall)
                bundles = [dict(demand.each) for demand in asked for _ in range(demand.count)]
                ray.autoscaler.sdk.request_resources(bundles=bundles)
                is_requested = True
            time.sleep(_POLL_INTERVAL_S)
    finally:
        if is_requested:  # from now on the processes hold these resources themselves
            ray.autoscaler.sdk.request_resources(bundles=[])
