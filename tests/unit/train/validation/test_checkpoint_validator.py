"""A checkpoint's metrics are recorded with its gain over the start, which is measured once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from raysys.config.schema import ValidationConfig
from raysys.evaluate.retrieval import PairEmbeddings
from raysys.evaluate.validation import Validation
from raysys.tracking.metrics_log import read_validations, record_validation
from raysys.train.job import TrainJob
from raysys.train.model import TrainState
from raysys.train.monitor.control_group import ControlGroup
from raysys.train.validation.checkpoint_validator import CheckpointValidator
from raysys.train.worker import Worker
from tests.unit.train.small_model import (
    build_small_model,
    small_job,
    small_section,
    small_state,
    write_validation_pairs,
)


@dataclass(frozen=True)
class FixedScores(Validation):
    """A validation with given scores, in order."""

    scores: tuple[float, ...] = ()

    def metrics(self, embedded: PairEmbeddings) -> dict[str, float]:
        assert len(embedded.photos) == 9
        (score, *rest) = self.scores
        object.__setattr__(self, "scores", tuple(rest))
        return {"r@5": score, "score": score}


@dataclass
class FakeRank:
    """The heartbeat and the consensus of a worker."""

    is_stop_requested: bool = False
    group: ControlGroup = field(default_factory=lambda: ControlGroup(60.0))

    def enter(self, phase: str) -> None: ...

    def watch_towers(self, towers: torch.nn.Module) -> None: ...

    def should_stop(self) -> bool:
        return self.is_stop_requested


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


@pytest.fixture
def state(start: Path) -> TrainState:
    return small_state(start, small_section())


@pytest.fixture
def job_of(start: Path, tmp_path: Path) -> Callable[..., TrainJob]:
    """A run, with the given scores and the early stopping that follows from them."""

    def make(*scores: float, patience: int | None = None) -> TrainJob:
        validation = FixedScores(**vars(write_validation_pairs(tmp_path / "val")), scores=scores)
        section = small_section(validation=ValidationConfig(patience=patience))
        return small_job(tmp_path / "run", start, section, validation)

    return make


def validator_of(job: TrainJob, **rank: Any) -> CheckpointValidator:
    fake: Any = FakeRank(**rank)
    return CheckpointValidator(Worker(job, Accelerator(cpu=True), fake, fake))


def test_start_is_measured_once_and_gains_are_relative_to_it(
    job_of: Callable[..., TrainJob], state: TrainState
) -> None:
    job = job_of(0.25, 0.5, 0.125)
    validator = validator_of(job)
    assert validator.is_missing(0)
    assert validator.validate(state, 0) == {"r@5": 0.25, "score": 0.25}
    assert validator.validate(state, 8) == {"r@5": 0.5, "score": 0.5}
    restarted = validator_of(job)
    assert not any(restarted.is_missing(step) for step in (0, 8, 11))  # 11 is saved because of the time
    assert restarted.is_missing(16)
    assert restarted.validate(state, 16) == {"r@5": 0.125, "score": 0.125}
    assert read_validations(job.run_uri) == [
        {"step": 0, "val_r@5": 0.25, "val_score": 0.25},
        {"step": 8, "val_r@5": 0.5, "val_score": 0.5, "val_r@5_gain": 0.25, "val_score_gain": 0.25},
        {"step": 16, "val_r@5": 0.125, "val_score": 0.125, "val_r@5_gain": -0.125, "val_score_gain": -0.125},
    ]
    for step, has_grid in ((0, False), (8, True), (16, True)):
        assert Path(job.run_uri, f"validated/{step:08d}.jpg").exists() is has_grid
    with Image.open(f"{job.run_uri}/validated/00000016.jpg") as grid:
        assert grid.size == (9 * 64 + 2 * 8, 6 * 64)


def test_run_without_metrics_of_the_start_has_no_gains(
    job_of: Callable[..., TrainJob], state: TrainState
) -> None:
    job = job_of(0.5)
    assert validator_of(job).validate(state, 8) == {"r@5": 0.5, "score": 0.5}
    assert read_validations(job.run_uri) == [{"step": 8, "val_r@5": 0.5, "val_score": 0.5}]


def test_run_stops_early_at_the_checkpoint_that_exhausts_the_patience(
    job_of: Callable[..., TrainJob], state: TrainState
) -> None:
    job = job_of(0.9, 0.5, 0.4, 0.3, patience=1)
    validator = validator_of(job)
    has_stopped = []
    for step in (0, 8, 16):
        validator.validate(state, step)
        has_stopped.append(validator.has_stopped_early(step))
    assert has_stopped == [False, False, True]
    assert validator_of(job).has_stopped_early(16)
    assert not validator_of(job).has_stopped_early(8)  # a kill before step 16 was saved


def test_metrics_of_a_checkpoint_that_was_not_saved_are_replaced(
    job_of: Callable[..., TrainJob], state: TrainState
) -> None:
    job = job_of(0.5)
    record_validation(job.run_uri, 8, {"val_score": 0.1})
    validator_of(job).validate(state, 8)
    assert [row["val_score"] for row in read_validations(job.run_uri)] == [0.5]


def test_stop_request_ends_a_validation_only_where_nothing_is_lost(
    job_of: Callable[..., TrainJob], state: TrainState
) -> None:
    job = job_of(0.5)
    validator = validator_of(job, is_stop_requested=True)
    assert validator.validate(state, 0, may_stop=True) == {}
    assert read_validations(job.run_uri) == []
    assert validator.validate(state, 8)["score"] == 0.5


def test_run_without_validation_pairs_has_no_metrics(start: Path, tmp_path: Path, state: TrainState) -> None:
    validator = validator_of(small_job(tmp_path, start, small_section()))
    assert not validator.is_missing(0)
    assert validator.measure(state.towers) == {}
