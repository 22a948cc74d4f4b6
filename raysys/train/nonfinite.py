"""Stop on a non-finite loss or gradient norm before a checkpoint stores invalid weights."""

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

_MAX_NAMED_ITEMS, _MAX_NAMED_RANKS = 3, 4


def require_finite(
    result: StepResult, step: int, batch: dict[str, torch.Tensor], job: TrainJob, accelerator: Accelerator
) -> None:
    """Raise TrainingDiverged, on all ranks, if the loss or the gradient norm is not finite.

    Both are equal on every rank, so that all ranks raise at the same step. A collective call.
    """
    if math.isfinite(result.loss) and math.isfinite(result.grad_norm):
        return
    rank_samples: list[str] = gather_object(
        [f"rank {accelerator.process_index}: {_describe_samples(batch, job)}"]
    )
    raise TrainingDiverged(
        f"train: the loss is {result.loss} at step {step} (gradient norm {result.grad_norm:.3g}, scale "
        f"{result.scale:.3g}); no checkpoint has it; its batch: {_join(rank_samples)}; lower "
        "train.learning_rate, or check these items with `raysys verify`"
    )


def _join(rank_samples: list[str]) -> str:
    num_more = len(rank_samples) - _MAX_NAMED_RANKS
    more = f"; and {num_more} more ranks" if num_more > 0 else ""
    return "; ".join(rank_samples[:_MAX_NAMED_RANKS]) + more


def _describe_samples(batch: dict[str, torch.Tensor], job: TrainJob) -> str:
    is_sample = batch[STREAM_POSITION] >= 0  # not padding
    positions, shards, numbers = (
        batch[name][is_sample].tolist() for name in (STREAM_POSITION, SHARD_NUMBER, SAMPLE_NUMBER)
    )
    named = list(zip(shards, numbers, strict=True))[:_MAX_NAMED_ITEMS]
    items = ", ".join(_item_name(job.shards[shard], number) for shard, number in named)
    more = ", .." if len(positions) > len(named) else ""
    return f"samples {min(positions)} to {max(positions)} ({items}{more})"


def _item_name(shard: ShardRef, number: int) -> str:
    """The item's id, or its number and shard if the shard is no longer readable."""
    try:
        with open_shard(shard) as samples:
            sample = samples.read(number)
    except RaysysError:
        return f"sample {number} of {shard.uri}"
    return sample.key or f"sample {number}" if isinstance(sample, BadSample) else sample.item_id
