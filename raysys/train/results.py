"""The results of steps, read one step late: first the host queues the next step.

A non-finite loss or gradient norm ends the run before a checkpoint stores invalid weights.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from jaxtyping import Int64
from numpy import ndarray

from raysys.columns import SAMPLE_NUMBER, SHARD_NUMBER, STREAM_POSITION
from raysys.errors import RaysysError, TrainingDiverged
from raysys.shards.reader import BadSample, ShardRef, open_shard
from raysys.stream.skipped import SkippedSamples, check_skipped_fraction, read_skipped
from raysys.tracking.recorder import MetricsRecorder
from raysys.train.job import TrainJob
from raysys.train.monitor.control_group import ControlGroup
from raysys.train.step_metrics import StepResult, Throughput

Samples: TypeAlias = Mapping[str, Int64[ndarray, " n"]]
_MAX_NAMED_ITEMS, _MAX_NAMED_RANKS = 3, 4


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
        self._read_queued: Callable[[], None] | None = None
        self.loss = math.nan
        """The loss of the last step that was read."""

    def add(
        self, step: int, result: StepResult, samples: Samples, *, learning_rate: float, is_logged: bool
    ) -> None:
        """Read the result of the step before, while the device computes this one.

        `step` is the number of completed steps after it, `samples` has `SKIPPED_COLUMNS` of its batch.
        """
        self.read()
        self._read_queued = functools.partial(
            self._read, step, result, samples, learning_rate if is_logged else None
        )

    def read(self) -> None:
        """Read the result that was not read yet, if there is one; call it before a checkpoint."""
        if self._read_queued is not None:
            read, self._read_queued = self._read_queued, None
            read()

    def _read(self, step: int, result: StepResult, samples: Samples, learning_rate: float | None) -> None:
        """The step is logged unless `learning_rate` is None."""
        metrics = result.metrics()
        self._require_finite(step, metrics, samples)
        self.loss = metrics["loss"]
        self._throughput.end_step()
        if learning_rate is not None:
            metrics |= {
                "learning_rate": learning_rate,
                **self._throughput.metrics(),
                "samples_seen": step * self._job.section.batch_size,
                "samples_skipped": self._count_skipped(step),
            }
            self._recorder.add(step, metrics)

    def _require_finite(self, step: int, metrics: Mapping[str, float], samples: Samples) -> None:
        # Both numbers are equal on all workers, so that all raise at the same step.
        if math.isfinite(metrics["loss"]) and math.isfinite(metrics["grad_norm"]):
            return
        described = self._group.gather(_describe(samples, self._job.shards))
        named = [f"rank {rank}: {text}" for rank, text in enumerate(described[:_MAX_NAMED_RANKS])]
        if num_more := len(described) - len(named):
            named.append(f"and {num_more} more ranks")
        raise TrainingDiverged(
            f"train: the loss is {metrics['loss']} at step {step} (gradient norm "
            f"{metrics['grad_norm']:.3g}, scale {metrics['scale']:.3g}); no checkpoint has it; its batch: "
            f"{'; '.join(named)}; lower train.learning_rate, or check these items with `raysys verify`"
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


def _describe(samples: Samples, shards: Sequence[ShardRef]) -> str:
    is_sample = samples[STREAM_POSITION] >= 0  # not padding
    positions, numbers = samples[STREAM_POSITION][is_sample], samples[SAMPLE_NUMBER][is_sample]
    named = list(zip(samples[SHARD_NUMBER][is_sample], numbers, strict=True))[:_MAX_NAMED_ITEMS]
    items = ", ".join(_item_name(shards[shard], int(number)) for shard, number in named)
    more = ", .." if len(positions) > len(named) else ""
    return f"samples {positions.min()} to {positions.max()} ({items}{more})"


def _item_name(shard: ShardRef, number: int) -> str:
    """The item's id, or its number and shard if the shard is no longer readable."""
    try:
        with open_shard(shard) as samples:
            sample = samples.read(number)
    except RaysysError:
        return f"sample {number} of {shard.uri}"
    return sample.key or f"sample {number}" if isinstance(sample, BadSample) else sample.item_id
