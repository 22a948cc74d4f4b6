"""The resources that the workers of a training reserve."""

from __future__ import annotations

from collections.abc import Sequence

from raysys.cluster.capacity import Demand, Node, place
from raysys.config.schema import TrainConfig


def worker_resources(section: TrainConfig) -> dict[str, float]:
    """What a training worker reserves in Ray."""
    return {"GPU" if section.use_gpu else "CPU": 1.0}


def worker_demand(section: TrainConfig, nodes: Sequence[Node]) -> Demand:
    """The workers that Ray Train starts on these nodes; of an elastic run as many as fit."""
    each = worker_resources(section)
    alternatives = ("set train.use_gpu=false",) if section.use_gpu else ()
    if section.min_workers is None:
        return Demand(section.workers, "training worker", "train.workers", each, alternatives)
    [fit] = place(nodes, [Demand(section.workers, "", "", each)]).counts
    key = "train.workers" if fit > section.min_workers else "train.min_workers"
    return Demand(max(fit, section.min_workers), "training worker", key, each, alternatives)
