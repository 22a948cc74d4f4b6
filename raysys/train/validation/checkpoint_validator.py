"""Validation of checkpoints by the workers that train: metrics, gains over the start, early stopping.

Between two steps the workers embed the validation pairs together on their own devices. Metrics are recorded
before their checkpoint is saved. After a kill in between, the step is trained and validated again.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float32
from numpy import ndarray

from raysys import storage
from raysys.evaluate.neighbour_grid import NUM_PHOTOS, neighbour_grid
from raysys.evaluate.retrieval import PairEmbeddings
from raysys.tracking.metrics_log import (
    neighbour_grid_uri,
    read_validations,
    record_validation,
    start_vectors_uri,
)
from raysys.train.job import TrainJob
from raysys.train.model import TrainState
from raysys.train.monitor.consensus import StepConsensus
from raysys.train.monitor.heartbeat import Heartbeat
from raysys.train.validation.early_stopping import has_stopped_early
from raysys.train.validation.worker_pairs import WorkerPairs


class CheckpointValidator:
    """One instance a worker; all workers make each call together and get the same result, bit for bit."""

    def __init__(
        self, job: TrainJob, accelerator: Accelerator, consensus: StepConsensus, heartbeat: Heartbeat
    ) -> None:
        self._job, self._accelerator = job, accelerator
        self._consensus, self._heartbeat = consensus, heartbeat
        self._pairs = WorkerPairs(job.validation.pairs, job, accelerator)
        rows = read_validations(job.run_uri) if accelerator.is_main_process else None
        self._step_to_row = {int(row["step"]): row for row in consensus.group.from_main(rows)}

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
        self._heartbeat.validating()
        with state.exported_weights():
            embedded = self._pairs.embed(state.towers, self._consensus.should_stop if may_stop else never)
        if embedded is None:
            return {}
        metrics = self._metrics(embedded)
        start = self._step_to_row.get(0)
        gains = {f"val_{name}_gain": value - start[f"val_{name}"] for name, value in metrics.items() if start}
        row = {**{f"val_{name}": value for name, value in metrics.items()}, **gains}
        self._step_to_row[step] = {"step": step, **row}
        if self._accelerator.is_main_process:
            self._draw_neighbours(step, embedded.photos.numpy())
            record_validation(self._job.run_uri, step, row)  # last: from now on the step counts as validated
        return metrics

    def measure(self, towers: torch.nn.Module) -> dict[str, float] | None:
        """The metrics of any towers; empty without validation pairs, None after a stop request."""
        if not self._job.validation.item_ids:
            return {}
        embedded = self._pairs.embed(towers, self._consensus.should_stop)
        return self._metrics(embedded) if embedded is not None else None

    def _metrics(self, embedded: PairEmbeddings) -> dict[str, float]:
        # Only on rank 0: another CPU may round differently, and then only some workers would stop early.
        is_main = self._accelerator.is_main_process
        local = self._job.validation.metrics(embedded) if is_main else None
        metrics: dict[str, float] = self._consensus.group.from_main(local)
        return metrics

    def _draw_neighbours(self, step: int, vectors: Float32[ndarray, "n d"]) -> None:
        """Store the start's vectors of some photos, and compare the neighbours by later ones with them."""
        photos = self._pairs.pixels[: min(NUM_PHOTOS, len(vectors))]
        vectors, start_uri = vectors[: len(photos)], start_vectors_uri(self._job.run_uri)
        if step == 0:
            encoded = io.BytesIO()
            np.save(encoded, vectors)
            storage.write_bytes(start_uri, encoded.getvalue())
        elif storage.exists(start_uri):
            start = np.load(io.BytesIO(storage.read_bytes(start_uri)))
            photos = photos[: len(start)]  # fewer if more workers shared the pairs
            grid, encoded = neighbour_grid(photos, start[: len(photos)], vectors[: len(photos)]), io.BytesIO()
            grid.save(encoded, "JPEG", quality=85)
            storage.write_bytes(neighbour_grid_uri(self._job.run_uri, step), encoded.getvalue())


def never() -> bool:
    """A `should_stop` for calls that always run to their end."""
    return False
