"""What workers agree on between steps, seen from a rank whose fellow's words are added to its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from raysys.train.monitor.consensus import StepConsensus, StepDecision


@dataclass
class Pair:
    """The second rank of two; `other` is what rank 0 says: stop, save, enough, look, and its batch."""

    other: list[float]
    is_main_process: bool = False
    num_processes: int = 2
    device: str = "cpu"

    def reduce(self, said: torch.Tensor) -> torch.Tensor:
        return said + torch.tensor(self.other)


def agreed(other: list[float], *, has_batch: bool, save: bool = False) -> StepDecision:
    lookout = StepConsensus(coordinator=None, accelerator=_as_any(Pair(other)))
    return lookout.agree(has_batch=has_batch, save=save, enough=False)


def _as_any(value: object) -> Any:
    return value


def test_they_step_once_each_of_them_has_its_batch() -> None:
    assert agreed([0, 0, 0, 0, 1], has_batch=True).is_ready
    assert not agreed([0, 0, 0, 0, 0], has_batch=True).is_ready
    assert not agreed([0, 0, 0, 0, 1], has_batch=False).is_ready


def test_rank_that_waits_for_data_hears_of_a_checkpoint_and_of_the_end() -> None:
    assert agreed([0, 1, 0, 0, 1], has_batch=False) == StepDecision(
        is_ready=False, stop=False, save=True, enough=False
    )
    assert agreed([1, 0, 0, 0, 1], has_batch=False).ends
    assert agreed([0, 0, 1, 0, 1], has_batch=False).ends


def test_wishes_are_rank_0s_alone() -> None:
    assert not agreed([0, 0, 0, 0, 1], has_batch=True, save=True).save
