"""The results of steps, read one step late: first the host queues the next step.

A non-finite loss or gradient norm ends the run before a checkpoint stores invalid weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from raysys.columns import SAMPLE_NUMBER, SHARD_NUMBER, STREAM_POSITION
from raysys.errors import RaysysError, TrainingDiverged
from raysys.shards.reader import BadSample, ShardRef, open_shard
from raysys.stream.skipped import SkippedSamples, check_skipped_fraction, read_skipped
from raysys.train.job import TrainJob
from raysys.train.metrics.recorder import MetricsRecorder
from raysys.train.metrics.step_metrics import StepResult, Throughput
from raysys.train.monitor.control_group import ControlGroup

_MAX_NAMED_ITEMS, _MAX_NAMED_RANKS = 3, 4


@dataclass(frozen=True)
class QueuedStep:
    """A step that the device may still be computing."""

    step: int
    """Number of completed steps after it."""
    result: StepResult
    batch: dict[str, Tensor]
    """The columns of its batch that the host reads, in host memory."""
    learning_rate: float
    is_logged: bool


class ResultReader:
    """Checks and records every step's result. One instance a worker; all make the same calls.

    Calls raise TrainingDiverged, or DamagedData if the epoch of a step skipped too many samples.
    """

    def __init__(
        self,
        job: TrainJob,
        group: ControlGroup,
        recorder: MetricsRecorder,
        throughput: Throughput,
        skipped: SkippedSamples,
    ) -> None:
        self._job, self._group, self._recorder = job, group, recorder
        self._throughput, self._skipped = throughput, skipped
        self._queued: QueuedStep | None = None
        self.loss = math.nan
        """The loss of the last step that was read."""

    def add(self, queued: QueuedStep) -> None:
        """Read the result of the step before `queued`, while the device computes `queued`."""
        self.read()
        self._queued = queued

    def read(self) -> None:
        """Read the result that was not read yet, if there is one; call it before a checkpoint."""
        if self._queued is None:
            return
        queued, self._queued = self._queued, None
        metrics = queued.result.metrics()
        self._require_finite(metrics, queued)
        self.loss = metrics["loss"]
        self._throughput.end_step()
        if queued.is_logged:
            metrics |= {
                "learning_rate": queued.learning_rate,
                **self._throughput.metrics(),
                "samples_seen": queued.step * self._job.section.batch_size,
                "samples_skipped": self._count_skipped(queued.step),
            }
            self._recorder.add(queued.step, metrics)

    def _require_finite(self, metrics: Mapping[str, float], queued: QueuedStep) -> None:
        # Both numbers are equal on all workers, so that all raise at the same step.
        if math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"]):
            return
        rank_samples = [
            f"rank {rank}: {samples}"
            for rank, samples in enumerate(self._group.gather(_describe_samples(queued.batch, self._job)))
        ]
        raise TrainingDiverged(
            f"train: the loss is {metrics['loss']} at step {queued.step} (gradient norm "
            f"{metrics['grad_norm']:.3g}, scale {metrics['scale']:.3g}); no checkpoint has it; its batch: "
            f"{_join(rank_samples)}; lower train.learning_rate, or check these items with `raysys verify`"
        )

    def _count_skipped(self, step: int) -> int:
        """Samples that all workers have skipped in this run; checks the epoch of the step."""
        job, stop = self._job, step * self._job.section.batch_size
        epoch_start = (stop - 1) // job.num_items * job.num_items
        local_counts = [self._skipped.num_skipped(0, stop), self._skipped.num_skipped(epoch_start, stop)]
        in_run, in_epoch = self._group.sum(local_counts)
        if in_epoch > job.max_bad_fraction * job.num_items:
            check_skipped_fraction(read_skipped(job.run_uri), job.shards, job.max_bad_fraction)
        return int(in_run)


def _join(rank_samples: list[str]) -> str:
    num_more = len(rank_samples) - _MAX_NAMED_RANKS
    more = f"; and {num_more} more ranks" if num_more > 0 else ""
    return "; ".join(rank_samples[:_MAX_NAMED_RANKS]) + more


def _describe_samples(batch: Mapping[str, Tensor], job: TrainJob) -> str:
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
