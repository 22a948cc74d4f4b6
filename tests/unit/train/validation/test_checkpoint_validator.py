"""A checkpoint's metrics are recorded with its gain over the start, which is measured once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from raysys.encoder import siglip
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.tracking.metrics_log import read_validations
from raysys.train.checkpoint.format import write_checkpoint
from raysys.train.validation.checkpoint_validator import CheckpointValidator
from raysys.train.validation.model_metrics import Validation
from raysys.train.validation.neighbour_grid import NeighbourGrid


class Model(torch.nn.Linear):
    """A model with one weight."""

    def __init__(self) -> None:
        super().__init__(1, 1, bias=False)
        torch.nn.init.constant_(self.weight, 0.25)


class WeightOnly(Validation):
    """A validation whose metrics are the one weight; it appends every measured weight to `measured`."""

    def __init__(self, measured: list[float]) -> None:
        super().__init__("", [], [], None, "r@5", 0, "cpu")
        object.__setattr__(self, "measured", measured)

    measured: list[float]

    def measure(self, model: Any) -> dict[str, float]:
        self.measured.append(model.weight.item())
        return {"r@5": model.weight.item(), "score": model.weight.item()}


class FixedGrid(NeighbourGrid):
    """A grid that is always the same bytes."""

    def __init__(self) -> None:
        super().__init__([], ImagePreprocessing(8, (0.5,) * 3, (0.5,) * 3))

    def draw(self, start_model: Any, fine_tuned_model: Any) -> bytes | None:
        return b"a grid"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The measured weights, in order; the start has the weight 0.25."""
    monkeypatch.setattr(siglip, "load_model", lambda folder: Model())
    return []


def checkpoint(folder: Path, step: int, weight: float) -> Path:
    state = {"step": step, "model": {"weight": torch.tensor([[weight]])}}
    write_checkpoint(state, str(folder), spec_hash="r", stream_position=step, world_size=1)
    return folder


def test_start_is_measured_once_and_gains_are_relative_to_it(tmp_path: Path, measured: list[float]) -> None:
    run_uri = str(tmp_path / "run")
    validator = CheckpointValidator(run_uri, str(tmp_path), WeightOnly(measured), FixedGrid())
    for step, weight in ((8, 0.5), (16, 0.125)):
        metrics = validator.validate(checkpoint(tmp_path / f"{step}", step, weight))
        assert metrics == {"r@5": weight, "score": weight}
    assert measured == [0.25, 0.5, 0.125]
    assert (tmp_path / "run/validated/00000008.jpg").read_bytes() == b"a grid"
    assert read_validations(run_uri) == [
        {"step": 0, "val_r@5": 0.25, "val_score": 0.25},
        {"step": 8, "val_r@5": 0.5, "val_score": 0.5, "val_r@5_gain": 0.25, "val_score_gain": 0.25},
        {"step": 16, "val_r@5": 0.125, "val_score": 0.125, "val_r@5_gain": -0.125, "val_score_gain": -0.125},
    ]
