"""The size of micro-batches: found by a meter of memory, kept in the run's folder, and halved there."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raysys.config.schema import TrainConfig
from raysys.encoder.siglip import load_model
from raysys.errors import OutOfMemory
from raysys.train.job import TrainJob
from raysys.train.memory import DeviceMemory, batches_bytes, loss_bytes
from raysys.train.micro_batch import MicroBatch
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import run_micro_batch, train_step
from tests.unit.train.live_memory import CpuMemory
from tests.unit.train.small_model import (
    IMAGE,
    build_small_model,
    exported_weights,
    small_batch,
    small_job,
    small_section,
    small_state,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def job_of(start: Path, run_uri: Path, **changes: Any) -> TrainJob:
    """A job of 64 pairs a step for the small model."""
    return small_job(run_uri, start, TrainConfig(**{"batch_size": 64, **changes}))


class UnusedMemory(DeviceMemory):
    """A device on which nothing may be measured."""

    def __init__(self) -> None:
        self.total_bytes = 10**9

    def free_bytes(self, work: Callable[[], None]) -> float:
        raise AssertionError("was measured again")


def fitted_size(start: Path, job: TrainJob, memory: DeviceMemory | None = None) -> int | str | None:
    """The size that a worker uses for the job."""
    return MicroBatch(job, 1).fit(small_state(start, job.section), memory).micro_batch_size


def test_size_is_the_largest_that_leaves_space_for_batches_and_loss(start: Path, tmp_path: Path) -> None:
    job, large = job_of(start, tmp_path, batch_size=256), CpuMemory(10**9)
    assert fitted_size(start, job, large) == 256
    peak_of_16, peak_of_64, peak_of_256 = large.peaks
    assert peak_of_256 == pytest.approx(peak_of_64 + (peak_of_64 - peak_of_16) * 192 / 48, rel=0.02)

    loss = loss_bytes(job.section, rows=256, workers=1, dimensions=16)
    total = peak_of_64 + loss + batches_bytes(256, 16, 10**9)
    for number, (total_bytes, expected) in enumerate(((total, 64), (total - 1, 32))):
        job = job_of(start, tmp_path / str(number), batch_size=256)
        assert fitted_size(start, job, CpuMemory(total_bytes)) == expected


def test_attributes_and_gradients_in_memory_are_measured(start: Path, tmp_path: Path) -> None:
    titles, attributes, without_gradients = (CpuMemory(10**9) for _ in range(3))
    fitted_size(start, job_of(start, tmp_path), titles)
    fitted_size(start, job_of(start, tmp_path / "other", caption_weights={"colour": 0.5}), attributes)
    assert attributes.peaks[1] > 1.2 * titles.peaks[1]  # both with 64 pairs
    num_bytes = sum(4 * parameter.numel() for parameter in load_model(start).parameters())
    pixels, tokens = torch.zeros(64, 16, 16, 3, dtype=torch.uint8), torch.zeros(64, 1, 6, dtype=torch.int64)
    towers = DualEncoder(load_model(start), IMAGE)
    without_gradients.free_bytes(lambda: run_micro_batch(towers, {"pixels": pixels, "tokens": tokens}))
    assert titles.peaks[1] > without_gradients.peaks[0] + 0.9 * num_bytes


@pytest.mark.parametrize(
    "changes",
    [{}, {"optimizer": "muon"}, {"activation_checkpointing": "selective"}, {"frozen_text_layers": "all"}],
)
def test_measurement_leaves_state_and_random_numbers_as_they_were(
    start: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    section = small_section(**changes)
    job = dataclasses.replace(job_of(start, tmp_path), section=section)
    measured, expected = small_state(start, section), small_state(start, section)
    torch.manual_seed(5)
    section = MicroBatch(job, 1).fit(measured, CpuMemory(10**9))
    assert torch.initial_seed() == 5
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))
    assert all(parameter.grad is None for parameter in measured.towers.parameters())
    for seed in range(2):
        results = [train_step(state, small_batch(seed), section).metrics() for state in (measured, expected)]
        assert results[0] == results[1]
    weights = exported_weights(measured.state_dict())
    for name, value in exported_weights(expected.state_dict()).items():
        assert torch.equal(weights[name], value), name


def test_optimiser_state_exists_while_memory_is_measured(start: Path, tmp_path: Path) -> None:
    state = small_state(start, (job := job_of(start, tmp_path)).section)
    MicroBatch(job, 1).fit(state, CpuMemory(10**9))
    moments = [value for values in state.optimizers[0].state.values() for value in values.values()]
    trained = [parameter for parameter in state.towers.parameters() if parameter.requires_grad]
    assert len(moments) == 3 * len(trained)  # two averages and the number of steps
    assert not any(moment.any() for moment in moments)


def test_size_is_measured_once_for_the_same_settings(
    start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="raysys")
    job = job_of(start, tmp_path)
    state = small_state(start, job.section)
    assert MicroBatch(job, 1).fit(state, CpuMemory(10**9)).micro_batch_size == 64
    assert MicroBatch(job, 1).fit(state, UnusedMemory()).micro_batch_size == 64
    first, second = (record.getMessage().strip() for record in caplog.records)
    assert first.startswith(
        "train  micro_batch_size 64 of 64 pairs a worker: with the safety margin it leaves "
    )
    assert first.endswith(" of 1.0 GB (measured on cpu)")
    assert second == "train  micro_batch_size 64, as found by an earlier start"
    (recorded,) = json.loads((tmp_path / "micro_batch.json").read_bytes())
    expected = {"size": 64, "device": "cpu", "model": str(start), "torch": torch.__version__}
    assert {name: recorded[name] for name in expected} == expected

    other = job_of(start, tmp_path, activation_checkpointing="full")
    with pytest.raises(AssertionError, match="was measured again"):
        fitted_size(start, other, UnusedMemory())


def test_halved_size_survives_into_the_next_start(start: Path, tmp_path: Path) -> None:
    job = job_of(start, tmp_path, micro_batch_size=16)
    ranks = [MicroBatch(job, 1) for _ in range(2)]
    for micro_batch in ranks:
        assert micro_batch.fit(small_state(start, job.section)).micro_batch_size == 16
    assert [micro_batch.halve() for micro_batch in ranks] == [8, 8]  # both ran out of memory
    assert fitted_size(start, job) == 8
    assert fitted_size(start, job_of(start, tmp_path, micro_batch_size=32)) == 32  # a new setting


def test_device_without_space_for_one_pair_is_an_error(start: Path, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory) as caught:
        fitted_size(start, job_of(start, tmp_path), CpuMemory(10_000))
    assert str(caught.value) == (
        "train: cpu with 10.0 kB has too little memory for one pair at a time; "
        "set train.activation_checkpointing=full (now none)"
    )


def test_auto_is_the_complete_share_on_a_cpu(start: Path, tmp_path: Path) -> None:
    assert fitted_size(start, job_of(start, tmp_path)) == 64
    assert fitted_size(start, job_of(start, tmp_path, micro_batch_size=None)) == 64
    assert not list(tmp_path.iterdir())
