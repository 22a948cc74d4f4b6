"""Whether a cluster can hold a training's workers, each of them whole on one node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from raysys.config.schema import TrainConfig

Resources = Mapping[str, float]


def num_workers_fit(nodes: Sequence[Resources], worker: Resources) -> int:
    """Workers for whom the nodes have room; a worker is never split over two nodes."""
    return sum(min(int(node.get(kind, 0) / amount) for kind, amount in worker.items()) for node in nodes)


def capacity_shortfall(nodes: Sequence[Resources], worker: Resources, section: TrainConfig) -> str | None:
    """One line if the cluster cannot hold the fewest workers that will do; None if it can."""
    wanted = section.min_workers or section.workers
    if num_workers_fit(nodes, worker) >= wanted:
        return None
    key = "train.min_workers" if section.min_workers else "train.workers"
    each = " and ".join(f"{amount:g} {kind}" for kind, amount in worker.items())
    do = f"lower {key}{', set train.use_gpu=false' if section.use_gpu else ''} or add nodes"
    return f"{key}: {wanted} workers with {each} each; the cluster has {_has(nodes)}; {do}"


def _has(nodes: Sequence[Resources]) -> str:
    cpus, gpus = ([f"{node.get(kind, 0):g}" for node in nodes] for kind in ("CPU", "GPU"))
    if len(nodes) == 1:
        return f"1 node with {cpus[0]} CPUs and {gpus[0]} GPUs"
    return f"{len(nodes)} nodes with {', '.join(cpus) or 0} CPUs and {', '.join(gpus) or 0} GPUs"


def micro_batch_size(section: TrainConfig, workers: int) -> int:
    """Pairs that a worker has in the towers at a time."""
    share = section.batch_size // workers
    return min(section.micro_batch_size or share, share)


def needs_less(section: TrainConfig, workers: int) -> str:
    """The settings that would need less memory, with their present values, best first."""
    size = micro_batch_size(section, workers)
    ways = []
    if size > 1:
        given = "" if section.micro_batch_size else ", the whole share of a worker"
        ways.append(f"lower train.micro_batch_size (now {size}{given})")
        if section.on_out_of_memory == "stop":
            ways.append("set train.on_out_of_memory=halve (now stop)")
    if not section.activation_checkpointing:
        ways.append("set train.activation_checkpointing=true (now false)")
    if section.parallel == "ddp" and workers > 1:
        ways.append("set train.parallel=fsdp (now ddp)")
    return ", or ".join(ways) or "take a GPU with more memory, or a smaller encoder"
