"""A step queues its work and waits for nothing: what it moves between host and device is counted.

The meta device takes the place of a GPU: every operation runs, but no value exists that the host could read.
"""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from raysys.config.schema import TrainConfig
from raysys.train.model import TrainState, optim
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import train_step
from tests.unit.train.small_model import IMAGE, build_small_model, small_batch, small_section, small_state

HOST, DEVICE = torch.device("cpu"), torch.device("meta")


class Transfers(TorchDispatchMode):
    """Counts copies between host and device, and values of the device that the host waits for."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not type it
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        source = args[0].device if args and isinstance(args[0], Tensor) else None
        waits = "queued" if kwargs.get("non_blocking") else "waited for"
        if func is torch.ops.aten._to_copy.default and kwargs.get("device", source) != source:
            self.counts[f"to {'device' if source == HOST else 'host'}, {waits}"] += 1
            if source == DEVICE:
                return torch.zeros(args[0].shape, dtype=args[0].dtype)
        if func is torch.ops.aten._local_scalar_dense.default and source == DEVICE:
            self.counts["to host, waited for"] += 1
            return 0.0
        return func(*args, **kwargs)


class NewTensors(TorchFunctionMode):
    """Refuses tensors that the host makes for the device: each would be a copy that it waits for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        assert func is not torch.tensor or torch.device(kwargs.get("device") or HOST) == HOST
        return func(*args, **kwargs)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def state_on_device(start: Path, section: TrainConfig) -> TrainState:
    state = small_state(start, section)
    model = state.model.to(DEVICE)
    optimizers = optim.make_optimizers(model, section)
    for group in optimizers[-1].param_groups:
        group["fused"] = False  # the fused AdamW has no meta kernel
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0) for optimizer in optimizers]
    return dataclasses.replace(
        state,
        model=model,
        towers=DualEncoder(model, IMAGE),
        optimizers=optimizers,
        schedules=schedules,
        start=DualEncoder(model, IMAGE) if state.start is not None else None,
        ema=optim.Ema(model.named_parameters(), 0.9),
    )


@pytest.mark.parametrize(
    ("changes", "num_copied"),
    [
        ({}, 4),  # photos, tokens, caption keys, group keys
        ({"optimizer": "muon"}, 4),
        ({"method": "distil"}, 6),  # photos and tokens once more for the start
        ({"micro_batch_size": 2}, 12),  # the keys and the last micro-batch once, the two before it twice
    ],
)
def test_a_step_only_queues_its_copies(start: Path, changes: dict[str, Any], num_copied: int) -> None:
    section = small_section(**changes)
    state = state_on_device(start, section)
    for _ in range(2):  # the first step makes the state of the optimisers
        with NewTensors(), Transfers() as transfers:
            train_step(state, small_batch(), section, measure_weights=True)
        assert transfers.counts == {"to device, queued": num_copied, "to host, queued": 1}


def test_reads_that_wait_are_counted() -> None:
    value = torch.ones(1, device=DEVICE)
    with Transfers() as transfers:
        value.to(HOST)
        float(value)
    assert transfers.counts == {"to host, waited for": 2}
    with pytest.raises(AssertionError), NewTensors():
        torch.tensor([1.0], device=DEVICE)
    with pytest.raises(NotImplementedError), Transfers():
        value.unique()  # its size depends on values
