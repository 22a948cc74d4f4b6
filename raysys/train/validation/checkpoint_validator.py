"""Validation of a checkpoint: its metrics, those of the start, and its gain over the start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysys import storage
from raysys.encoder import siglip
from raysys.tracking.metrics_log import neighbour_grid_uri, read_validations, record_validation
from raysys.train.checkpoint.format import load_weights
from raysys.train.validation.model_metrics import Validation
from raysys.train.validation.neighbour_grid import NeighbourGrid


@dataclass(frozen=True)
class CheckpointValidator:
    """Validates checkpoints of one run; Ray Train calls it in Ray tasks while training continues."""

    run_uri: str
    start_uri: str
    validation: Validation
    neighbour_grid: NeighbourGrid

    def __call__(self, checkpoint: Any, **_: Any) -> dict[str, float]:
        """The metrics of a `ray.train.Checkpoint`, which Ray Train stores with it."""
        with checkpoint.as_directory() as folder:
            return self.validate(Path(folder))

    def validate(self, folder: Path) -> dict[str, float]:
        """Compute the metrics of a checkpoint's model, record them in the run's folder, and return them.

        The run's first validation also records the metrics of the start (zero-shot) as step 0.
        """
        with storage.readable_folder(self.start_uri) as start_folder:
            start_model, model = siglip.load_model(start_folder), siglip.load_model(start_folder)
        start = next((row for row in read_validations(self.run_uri) if row["step"] == 0), None)
        if start is None:
            start = _prefixed(self.validation.measure(start_model))
            record_validation(self.run_uri, 0, start)
        step = load_weights(model, folder)
        if grid := self.neighbour_grid.draw(start_model, model):  # the metrics' file comes last
            storage.write_bytes(neighbour_grid_uri(self.run_uri, step), grid)
        metrics = self.validation.measure(model)
        record_validation(self.run_uri, step, {**_prefixed(metrics), **gains(metrics, start)})
        return metrics


def gains(metrics: dict[str, float], start: dict[str, float]) -> dict[str, float]:
    """Each metric minus that of the start, named like `val_r@5_gain`."""
    return {f"val_{name}_gain": value - start[f"val_{name}"] for name, value in metrics.items()}


def _prefixed(metrics: dict[str, float]) -> dict[str, float]:
    return {f"val_{name}": value for name, value in metrics.items()}
