"""Memory of a GPU: the measured micro-batch, out of memory, and where batches are."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from raysys.errors import out_of_memory_reason
from raysys.parallel import run_in_thread
from raysys.train.batches import BatchJoin, joined
from raysys.train.memory import DeviceMemory
from raysys.train.micro_batch import MicroBatch
from raysys.train.model import make_train_state, open_accelerator
from raysys.train.step import train_step
from tests.unit.train.small_model import IMAGE, build_small_model, small_batch, small_job, small_section
from tests.unit.train.test_batches import five_pairs


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def test_measured_micro_batch_trains(start: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="raysys")
    AcceleratorState._reset_state(reset_partial_state=True)  # other tests of this process train on the CPU
    section = small_section(use_gpu=True, precision="bf16", batch_size=64)
    job = small_job(tmp_path, start, section)
    state = make_train_state(str(start), IMAGE, section, 8, open_accelerator(section, world_size=1))
    assert MicroBatch(job, 1).fit(state).micro_batch_size == 64
    assert torch.cuda.get_device_name() in caplog.text
    assert all(parameter.grad is None for parameter in state.towers.parameters())
    assert math.isfinite(train_step(state, small_batch(), small_section(use_gpu=True)).metrics()["loss"])


def test_too_large_allocation_is_told_and_leaves_the_memory_free() -> None:
    memory = DeviceMemory(device := torch.device("cuda", 0))

    def allocate_too_much() -> None:
        torch.empty(memory.total_bytes, dtype=torch.uint8, device=device)

    assert memory.free_bytes(allocate_too_much) == -math.inf
    assert 0 < memory.free_bytes(lambda: None) < memory.total_bytes


def test_step_that_runs_out_of_memory_is_recognised(start: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    section = small_section(use_gpu=True)
    state = make_train_state(str(start), IMAGE, section, 8, open_accelerator(section, world_size=1))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)  # not even a block of the allocator
    try:
        with pytest.raises(RuntimeError) as caught:
            train_step(
                state,
                {name: rows.repeat(64, *[1] * (rows.dim() - 1)) for name, rows in small_batch().items()},
                section,
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert out_of_memory_reason(caught.value) is not None


@pytest.mark.parametrize("is_on_gpu", [True, False])
def test_batch_is_on_the_gpu_or_pinned(monkeypatch: pytest.MonkeyPatch, is_on_gpu: bool) -> None:
    monkeypatch.setattr("raysys.train.batches.batches_bytes", lambda *_: int(is_on_gpu))
    join = BatchJoin(torch.device("cuda", 0), rank=0, num_rows=8, size_px=16)
    batch = run_in_thread(lambda: join([five_pairs()])).result()
    expected = joined([five_pairs()], 8, rank=0)
    assert all(torch.equal(batch[name].cpu(), rows) for name, rows in expected.items())
    assert batch["pixels"].is_cuda is is_on_gpu
    assert batch["pixels"].is_pinned() is not is_on_gpu
    assert not batch["stream_position"].is_cuda
