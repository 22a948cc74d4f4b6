"""What workers decide together between steps, as rank 1 of two sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from raysys.train.monitor.consensus import StepConsensus, StepDecision


@dataclass
class Rank1:
    """The accelerator of rank 1, and a group that adds the votes of rank 0: stop, save, check, has batch."""

    rank_0_votes: list[float]
    is_main_process: bool = False
    num_processes: int = 2

    def sum(self, votes: list[float]) -> list[float]:
        return [vote + other for vote, other in zip(votes, self.rank_0_votes, strict=True)]


def decide(rank_0_votes: list[float], *, has_batch: bool, save: bool = False) -> StepDecision:
    rank_1: Any = Rank1(rank_0_votes)
    consensus = StepConsensus(coordinator=None, accelerator=rank_1, group=rank_1)
    return consensus.decide(has_batch=has_batch, save=save)


def test_workers_step_once_all_have_their_batch() -> None:
    assert decide([0, 0, 0, 1], has_batch=True).is_ready
    assert not decide([0, 0, 0, 0], has_batch=True).is_ready
    assert not decide([0, 0, 0, 1], has_batch=False).is_ready


def test_rank_without_data_saves_and_stops_with_the_others() -> None:
    assert decide([0, 1, 0, 1], has_batch=False) == StepDecision(is_ready=False, stop=False, save=True)
    assert decide([1, 0, 0, 1], has_batch=False).stop


def test_only_rank_0_decides_on_a_save() -> None:
    assert not decide([0, 0, 0, 1], has_batch=True, save=True).save


def test_workers_stop_together_on_the_request_that_rank_0_sees() -> None:
    for vote in (0, 1):
        rank_1: Any = Rank1([vote])
        consensus = StepConsensus(coordinator=None, accelerator=rank_1, group=rank_1)
        assert consensus.should_stop() is bool(vote)
