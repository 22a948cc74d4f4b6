"""Whether a cluster can hold the workers of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raysys.config.schema import TrainConfig

Resources = Mapping[str, float]


def capacity_shortfall(
    nodes: Sequence[Resources], worker_resources: Resources, section: TrainConfig
) -> str | None:
    """One line if the cluster cannot hold the fewest workers that `section` allows; None if it can."""
    fewest = section.min_workers or section.workers
    if max_num_workers(nodes, worker_resources) >= fewest:
        return None
    key = "train.min_workers" if section.min_workers else "train.workers"
    each = " and ".join(f"{amount:g} {kind}" for kind, amount in worker_resources.items())
    remedy = f"lower {key}{', set train.use_gpu=false' if section.use_gpu else ''} or add nodes"
    return f"{key}: {fewest} workers with {each} each; the cluster has {_describe(nodes)}; {remedy}"


def max_num_workers(nodes: Sequence[Resources], worker_resources: Resources) -> int:
    """How many workers fit on the nodes; a worker is never split over two nodes."""
    return sum(
        min(int(node.get(kind, 0) / amount) for kind, amount in worker_resources.items()) for node in nodes
    )


def _describe(nodes: Sequence[Resources]) -> str:
    cpus, gpus = ([f"{node.get(kind, 0):g}" for node in nodes] for kind in ("CPU", "GPU"))
    if len(nodes) == 1:
        return f"1 node with {cpus[0]} CPUs and {gpus[0]} GPUs"
    return f"{len(nodes)} nodes with {', '.join(cpus) or 0} CPUs and {', '.join(gpus) or 0} GPUs"
