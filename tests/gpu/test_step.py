"""Training steps on a GPU: their losses, no wait for the host, compilation, TF32, DDP and FSDP2."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from torch.distributed.fsdp import FSDPModule

from raysys.config.schema import FalseNegativesConfig, TrainConfig
from raysys.encoder.flops import peak_flops
from raysys.train.loss import LossAndGradients, Pairs, local_pairs, tiled_loss
from raysys.train.model import TrainState, make_train_state, open_accelerator
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.model.muon import CpuMuon
from raysys.train.step import train_step
from tests.unit.train.small_model import IMAGE, build_small_model, small_batch, small_section


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def state_of(start: Path, section: TrainConfig) -> TrainState:
    AcceleratorState._reset_state(reset_partial_state=True)  # other tests of this process train on the CPU
    return make_train_state(str(start), IMAGE, section, 8, open_accelerator(section, world_size=1))


def seeded_batch(seed: int = 3) -> dict[str, torch.Tensor]:
    return {**small_batch(seed), "patch_seeds": torch.arange(6) + 6 * seed}


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16"}, {"optimizer": "muon"}, {"micro_batch_size": 2}, {"method": "distil"}, {"ema_decay": 0.9}, {"patch_dropout": 0.5}],
    ids=str,
)  # fmt: skip
def test_step_never_waits_for_the_gpu(start: Path, changes: dict[str, Any]) -> None:
    section = small_section(use_gpu=True, **changes)
    state = state_of(start, section)
    batch = {name: rows.pin_memory() for name, rows in seeded_batch().items()}
    train_step(state, batch, section, measure_weights=True)  # makes handles and the state of the optimiser
    with no_wait_for_the_gpu():
        results = [train_step(state, batch, section, measure_weights=True) for _ in range(3)]
    losses = [result.metrics()["loss"] for result in results]
    assert losses[2] < losses[0]


def test_losses_equal_those_of_a_cpu_within_rounding(start: Path) -> None:
    losses = {}
    for use_gpu in (False, True):
        section = small_section(use_gpu=use_gpu)
        state = state_of(start, section)
        losses[use_gpu] = [
            train_step(state, small_batch(seed), section).metrics()["loss"] for seed in range(3)
        ]
    assert losses[True] == pytest.approx(losses[False], rel=2e-3)  # TF32 has 11 significant bits


@pytest.mark.parametrize(
    "changes", [{}, {"micro_batch_size": 2}, {"patch_dropout": 0.5, "micro_batch_size": 2}], ids=str
)
def test_compiled_bf16_steps_have_the_losses_of_a_cpu_in_fp32(start: Path, changes: dict[str, Any]) -> None:
    losses = {}
    for use_gpu, on_gpu in ((False, {}), (True, {"compile": True, "precision": "bf16"})):
        section = small_section(use_gpu=use_gpu, **changes, **on_gpu)
        state = state_of(start, section)
        losses[use_gpu] = [
            train_step(state, seeded_batch(seed), section).metrics()["loss"] for seed in range(4)
        ]
    assert losses[True] == pytest.approx(losses[False], rel=2e-2)  # bfloat16 has 8 significant bits


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_restored_state_has_the_same_losses_with_one_rank(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: str
) -> None:
    with one_rank(monkeypatch, tmp_path):
        section = small_section(use_gpu=True, parallel=parallel, precision="bf16")
        state = state_of(start, section)
        kind = FSDPModule if parallel == "fsdp" else DualEncoder  # one rank needs no DistributedDataParallel
        assert isinstance(state.towers, kind)
        for seed in range(2):
            train_step(state, small_batch(seed), section)
        saved = copy.deepcopy(state.state_dict())
        expected = [train_step(state, small_batch(seed), section).metrics()["loss"] for seed in (2, 3)]
        restored = state_of(start, section)
        restored.load_state_dict(saved)
        losses = [train_step(restored, small_batch(seed), section).metrics()["loss"] for seed in (2, 3)]
    assert losses == pytest.approx(expected, rel=1e-6)


@contextlib.contextmanager
def no_wait_for_the_gpu() -> Iterator[None]:
    """An operation that waits for the GPU is an error."""
    try:
        with warnings.catch_warnings():  # that not every such operation is detected
            warnings.simplefilter("ignore", UserWarning)
            torch.cuda.set_sync_debug_mode("error")
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@contextlib.contextmanager
def one_rank(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[None]:
    """A process group of one rank, with the variables that Ray Train sets for its workers."""
    for name, value in (("RANK", 0), ("LOCAL_RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_WORLD_SIZE", 1)):
        monkeypatch.setenv(name, str(value))
    dist.init_process_group("cuda:nccl,cpu:gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)


def test_compiled_tile_equals_the_plain_one() -> None:
    pairs, policy = random_pairs(700), FalseNegativesConfig()

    def loss(compile_backend: str | None) -> LossAndGradients:
        scale, bias = (torch.tensor(value, device="cuda") for value in (10.0, -10.0))
        return tiled_loss(
            pairs, pairs, policy, scale=scale, bias=bias, num_images=700, tile_rows=256,
            compile_backend=compile_backend,
        )  # fmt: skip

    plain, compiled = loss(None), loss("inductor")
    for name in ("loss", "images", "captions", "scale", "bias"):
        torch.testing.assert_close(getattr(compiled, name), getattr(plain, name), rtol=1e-3, atol=1e-5)


def random_pairs(num_rows: int) -> Pairs:
    images, captions = (
        torch.nn.functional.normalize(torch.randn(num_rows, 64, device="cuda"), dim=-1) for _ in range(2)
    )
    keys = torch.arange(1, num_rows + 1, device="cuda")
    return local_pairs(images, captions, keys, keys, first_row=0, all_keys=keys, all_groups=keys)


def test_float32_products_use_tf32_and_muon_is_that_of_torch(start: Path) -> None:
    state = state_of(start, small_section(use_gpu=True, optimizer="muon"))
    assert torch.get_float32_matmul_precision() == "high"
    assert not isinstance(state.optimizers[0], CpuMuon)


def test_peak_of_this_gpu_is_known_or_not_reported() -> None:
    peak = peak_flops(torch.cuda.get_device_name())
    assert peak is None or peak > 1e14
