"""The kernels that a compiler makes of the towers; not a unit test, as torch waits for g++ there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing

from tests.ray.ranks import Trained, run_compiled_rank
from tests.unit.train.test_step import build_start, require_compiled_once

pytestmark = [
    pytest.mark.slow,  # g++ takes ten seconds and more for a model of any size
    # torch's own
    pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"),
]


def test_compiled_kernels_take_the_same_steps_and_compile_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_start(tmp_path / "tiny")
    require_compiled_once(tmp_path / "tiny", monkeypatch)


def test_sharded_towers_compiled_layer_by_layer_take_the_same_steps(tmp_path: Path) -> None:
    build_start(tmp_path / "tiny")
    torch.multiprocessing.start_processes(  # type: ignore[no-untyped-call, attr-defined]  # torch neither types nor exports it
        run_compiled_rank, args=(str(tmp_path), 2), nprocs=2, start_method="spawn"
    )
    found: dict[bool, Trained] = torch.load(tmp_path / "compiled.pt", weights_only=False)
    assert found[True].losses == pytest.approx(found[False].losses, rel=1e-5)
    assert found[True].losses_again == found[True].losses[2:]
    assert found[True].weights.keys() == found[False].weights.keys()
