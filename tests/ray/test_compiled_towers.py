"""Compiled kernels of the towers and the loss. Not a unit test, because torch waits for g++."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from tests.ray.ranks import Training, check_compiled_tiles, run_compiled_rank
from tests.unit.train.model.test_state import require_compiled_once
from tests.unit.train.small_model import build_small_model

pytestmark = [
    pytest.mark.slow,  # g++ takes more than ten seconds for a model of any size
    # A warning inside torch.
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]


def test_compiled_kernels_take_the_same_steps_and_compile_once(tmp_path: Path) -> None:
    require_compiled_once(build_small_model(tmp_path / "tiny"))


def test_sharded_layers_take_the_same_steps_when_compiled(tmp_path: Path) -> None:
    build_small_model(tmp_path / "tiny")
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call, attr-defined]  # torch neither types nor exports it
        run_compiled_rank, args=(str(tmp_path), 2), nprocs=2, start_method="spawn"
    )
    trainings: dict[bool, Training] = torch.load(tmp_path / "compiled.pt", weights_only=False)
    compiled, plain = trainings[True], trainings[False]
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-5)
    assert compiled.restored_losses == compiled.losses[2:]
    assert compiled.weights.keys() == plain.weights.keys()


def test_compiled_tiles_equal_the_plain_ones_and_compile_four_times() -> None:
    # In another process: here each function checks the shapes of its arguments, which does not compile.
    torch.multiprocessing.start_processes(check_compiled_tiles, start_method="spawn")  # type: ignore[no-untyped-call, attr-defined]  # as above
