"""The figures of a checkpoint, of the start that it came from, and what it gained over it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from raysys import storage
from raysys.encoder import siglip
from raysys.train.figures.metrics import read_validations, record_validation, sheet_uri
from raysys.train.run.checkpoint import load_weights

Measure: TypeAlias = Callable[[Any], dict[str, float]]  # a loaded model -> its figures, SCORE among them
Draw: TypeAlias = Callable[[Any, Any], bytes | None]  # the start and a tuned model -> a JPEG


def measure_checkpoint(
    run_uri: str, start_uri: str, checkpoint: Path, measure: Measure, draw: Draw
) -> dict[str, float]:
    """Measure the model of a checkpoint, keep what was found with the run, and return it.

    The run's first measurement measures its start, too, as step 0: zero-shot, what every later one is
    held against.
    """
    with storage.readable_folder(start_uri) as folder:
        base, model = siglip.load_model(folder), siglip.load_model(folder)
    start = next((row for row in read_validations(run_uri) if row["step"] == 0), None)
    if start is None:
        start = _recorded(measure(base))
        record_validation(run_uri, 0, start)
    step = load_weights(model, checkpoint)
    if sheet := draw(base, model):  # before the figures, which say that all is there
        storage.write_bytes(sheet_uri(run_uri, step), sheet)
    figures = measure(model)
    record_validation(run_uri, step, {**_recorded(figures), **gains(figures, start)})
    return figures


def gains(figures: dict[str, float], start: dict[str, float]) -> dict[str, float]:
    """How much higher each figure is than that of the start, as `val_r@5_gain`."""
    return {f"val_{name}_gain": value - start[f"val_{name}"] for name, value in figures.items()}


def _recorded(figures: dict[str, float]) -> dict[str, float]:
    return {f"val_{name}": value for name, value in figures.items()}
