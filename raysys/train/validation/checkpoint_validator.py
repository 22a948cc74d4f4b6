"""Validation of checkpoints by the workers that train: metrics, gains over the start, early stopping.

Between two steps the workers embed the validation pairs together on their own devices. Metrics are recorded
before their checkpoint is saved. After a kill in between, the step is trained and validated again.
"""

from __future__ import annotations

import torch

from raysys.evaluate.neighbour_grid import record_neighbours
from raysys.evaluate.retrieval import PairEmbeddings
from raysys.evaluate.validation import has_stopped_early
from raysys.tracking.metrics_log import read_validations, record_validation
from raysys.train.model import TrainState
from raysys.train.monitor.stall import VALIDATING
from raysys.train.validation.worker_pairs import WorkerPairs
from raysys.train.worker import Worker


class CheckpointValidator:
    """One instance a worker; all workers make each call together and get the same result, bit for bit."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._job = worker, worker.job
        self._is_main = worker.accelerator.is_main_process
        self._pairs = WorkerPairs(self._job.validation.pairs, self._job, worker.accelerator)
        rows = read_validations(self._job.run_uri) if self._is_main else None
        self._step_to_row = {int(row["step"]): row for row in worker.consensus.group.from_main(rows)}

    def is_missing(self, step: int) -> bool:
        """Whether the state after `step` steps, from which training continues, was not validated yet.

        It is the start, or a checkpoint whose metrics were lost.
        """
        return self._job.is_validated_step(step) and step not in self._step_to_row

    def has_stopped_early(self, step: int) -> bool:
        """Whether early stopping ends the run after `step` steps."""
        rows = [row for _, row in sorted(self._step_to_row.items())]
        return has_stopped_early(rows, step, self._job.section.validation.patience)

    def validate(self, state: TrainState, step: int, *, may_stop: bool = False) -> dict[str, float]:
        """The metrics of the weights after `step` steps, as exported; recorded in the run's folder.

        With `may_stop` a stop request ends the call early: nothing is recorded, and there are no metrics.
        """
        self._worker.heartbeat.enter(VALIDATING)
        should_stop = self._worker.consensus.should_stop if may_stop else None
        with state.exported_weights():
            embedded = self._pairs.embed(state.towers, should_stop)
        if embedded is None:
            return {}
        metrics = self._metrics(embedded)
        start = self._step_to_row.get(0)
        gains = {f"val_{name}_gain": value - start[f"val_{name}"] for name, value in metrics.items() if start}
        row = {**{f"val_{name}": value for name, value in metrics.items()}, **gains}
        self._step_to_row[step] = {"step": step, **row}
        if self._is_main:
            record_neighbours(self._job.run_uri, step, self._pairs.inputs.pixels, embedded.photos.numpy())
            record_validation(self._job.run_uri, step, row)  # last: from now on the step counts as validated
        return metrics

    def measure(self, towers: torch.nn.Module) -> dict[str, float] | None:
        """The metrics of any towers; empty without validation pairs, None after a stop request."""
        if not self._job.validation.item_ids:
            return {}
        embedded = self._pairs.embed(towers, self._worker.consensus.should_stop)
        return self._metrics(embedded) if embedded is not None else None

    def _metrics(self, embedded: PairEmbeddings) -> dict[str, float]:
        # Only on rank 0: another CPU may round differently, and then only some workers would stop early.
        local = self._job.validation.metrics(embedded) if self._is_main else None
        metrics: dict[str, float] = self._worker.consensus.group.from_main(local)
        return metrics
