"""The resources that the workers of a training reserve, and which settings need less memory."""

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


def memory_advice(section: TrainConfig, workers: int) -> str:
    """The settings that would need less memory, each with its current value, most effective first."""
    size = micro_batch_size(section, workers)
    settings = []
    if size > 1:
        default = "" if section.micro_batch_size else ", a worker's full share of the batch"
        settings.append(f"lower train.micro_batch_size (now {size}{default})")
        if section.on_out_of_memory == "stop":
            settings.append("set train.on_out_of_memory=halve (now stop)")
    if not section.activation_checkpointing:
        settings.append("set train.activation_checkpointing=true (now false)")
    if section.parallel == "ddp" and workers > 1:
        settings.append("set train.parallel=fsdp (now ddp)")
    return ", or ".join(settings) or "use a GPU with more memory, or a smaller encoder"


def micro_batch_size(section: TrainConfig, workers: int) -> int:
    """Pairs that a worker passes through the towers at a time."""
    share = section.batch_size // workers
    return min(section.micro_batch_size or share, share)
