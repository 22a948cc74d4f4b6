"""What a worker without memory should do: the micro-batch that it had, and which settings need less."""

from __future__ import annotations

from raysys.config.schema import TrainConfig


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
