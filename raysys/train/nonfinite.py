"""A loss that is no number ends a run, before weights that are none get into a checkpoint."""

from __future__ import annotations

import math

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from raysys.columns import SAMPLE_NUMBER, SHARD_NUMBER, STREAM_POSITION
from raysys.errors import RaysysError, TrainingDiverged
from raysys.shards.reader import BadSample, ShardRef, open_shard
from raysys.train.job import TrainJob
from raysys.train.step import StepResult

_NAMED_ITEMS, _NAMED_RANKS = 3, 4


def require_finite(
    result: StepResult, step: int, batch: dict[str, torch.Tensor], job: TrainJob, accelerator: Accelerator
) -> None:
    """Raise TrainingDiverged, on all ranks, if the loss or the gradient is no number.

    Both are the same on every rank, so that all of them come here together.
    """
    if math.isfinite(result.loss) and math.isfinite(result.grad_norm):
        return
    of_ranks: list[str] = gather_object([f"rank {accelerator.process_index}: {_samples(batch, job)}"])
    raise TrainingDiverged(
        f"train: the loss is {result.loss} at step {step} (gradient norm {result.grad_norm:.3g}, scale "
        f"{result.scale:.3g}); no checkpoint has it; its batch had {_few(of_ranks)}: lower "
        "train.learning_rate, or look at these items with `raysys verify`"
    )


def _few(of_ranks: list[str]) -> str:
    more = f"; and {len(of_ranks) - _NAMED_RANKS} more ranks" if len(of_ranks) > _NAMED_RANKS else ""
    return "; ".join(of_ranks[:_NAMED_RANKS]) + more


def _samples(batch: dict[str, torch.Tensor], job: TrainJob) -> str:
    is_sample = batch[STREAM_POSITION] >= 0  # and no padding
    positions, *place = (
        batch[name][is_sample].tolist() for name in (STREAM_POSITION, SHARD_NUMBER, SAMPLE_NUMBER)
    )
    places = zip(*place, strict=True)
    few = list(places)[:_NAMED_ITEMS]
    items = ", ".join(_name(job.shards[shard], number) for shard, number in few)
    more = ", .." if len(positions) > len(few) else ""
    return f"samples {min(positions)} to {max(positions)} ({items}{more})"


def _name(shard: ShardRef, number: int) -> str:
    """The item's id; if its shard cannot be read any more, its place."""
    try:
        with open_shard(shard) as samples:
            stored = samples.read(number)
    except RaysysError:
        return f"sample {number} of {shard.uri}"
    return stored.key or f"sample {number}" if isinstance(stored, BadSample) else stored.item.item_id
