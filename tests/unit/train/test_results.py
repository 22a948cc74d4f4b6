"""The result of a step is read while the next step is queued, and before a checkpoint."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from raysys.columns import SAMPLE_NUMBER, SHARD_NUMBER, STREAM_POSITION
from raysys.config.schema import TrainConfig
from raysys.errors import TrainingDiverged
from raysys.shards.reader import ShardRef
from raysys.tracking.recorder import MetricsRecorder
from raysys.train.monitor.control_group import ControlGroup
from raysys.train.results import ResultReader
from raysys.train.step_metrics import StepResult, Throughput
from tests.unit.encoder.small_towers import small_config


class Rows(list[tuple[int, dict[str, float]]]):
    """A sink that stores the metrics of steps."""

    def add(self, step: int, values: dict[str, float]) -> None:
        self.append((step, values))

    def flush(self) -> None: ...


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def results(rows: Rows) -> ResultReader:
    section = TrainConfig(batch_size=4)
    throughput = Throughput(transformers.SiglipModel(small_config()), section, workers=1, device="cpu")
    throughput.begin_step()
    job: Any = SimpleNamespace(
        section=section, num_items=40, max_bad_fraction=0.5, shards=[ShardRef("/none/00000.tar")]
    )
    skipped: Any = SimpleNamespace(num_skipped=lambda first, stop: 1 if first <= 2 < stop else 0)
    return ResultReader(job, ControlGroup(60.0), MetricsRecorder([rows]), throughput, skipped)


def add(results: ResultReader, step: int, loss: float = 2.0, *, is_logged: bool = True) -> None:
    """Queue a step of four samples, the first of which is number 4 * step of its shard."""
    numbers = np.arange(4) + 4 * step
    samples = {STREAM_POSITION: numbers, SHARD_NUMBER: np.zeros_like(numbers), SAMPLE_NUMBER: numbers}
    metrics = {"loss": torch.tensor(loss), "grad_norm": torch.tensor(1.0), "scale": torch.tensor(10.0)}
    results.add(step, StepResult(metrics), samples, learning_rate=1e-3, is_logged=is_logged)


def test_result_is_read_when_the_next_step_is_queued(results: ResultReader, rows: Rows) -> None:
    add(results, 1, loss=3.0)
    assert (rows, math.isnan(results.loss)) == ([], True)
    add(results, 2, loss=2.5)
    assert [(step, values["loss"]) for step, values in rows] == [(1, 3.0)]
    results.read()
    assert [(step, values["loss"]) for step, values in rows] == [(1, 3.0), (2, 2.5)]
    assert results.loss == 2.5
    results.read()
    assert len(rows) == 2


def test_logged_step_has_the_counts_of_its_own_batch(results: ResultReader, rows: Rows) -> None:
    for step, is_logged in ((1, False), (2, True)):
        add(results, step, is_logged=is_logged)
    results.read()
    ((step, values),) = rows
    assert (step, values["samples_seen"], values["samples_skipped"]) == (2, 8, 1)
    assert (values["learning_rate"], values["grad_norm"]) == (1e-3, 1.0)


@pytest.mark.parametrize("before_checkpoint", [True, False])
def test_diverged_step_is_named_with_its_own_samples(results: ResultReader, before_checkpoint: bool) -> None:
    add(results, 3)
    add(results, 4, loss=math.nan)
    with pytest.raises(TrainingDiverged) as caught:
        results.read() if before_checkpoint else add(results, 5, loss=math.nan)
    named = "sample 16 of /none/00000.tar, sample 17 of /none/00000.tar, sample 18 of /none/00000.tar"
    assert str(caught.value) == (
        "train: the loss is nan at step 4 (gradient norm 1, scale 10); no checkpoint has it; its batch: rank 0: "
        f"samples 16 to 19 ({named}, ..); lower train.learning_rate, or check these items with `raysys verify`"
    )
