"""Who is said to keep the others waiting, by hand: nothing has moved for 100 s, or it has."""

from __future__ import annotations

import pytest

from raysys.train.monitor.stall import (
    ENDED,
    EXCHANGING,
    IN_TOWERS,
    READY,
    SAVING,
    WAITING,
    LastHeartbeat,
    WorkerStatus,
    is_running,
    stall_line,
)

NOW_S, AFTER_S = 1000.0, 100.0


def heard(
    rank: int,
    phase: str = EXCHANGING,
    moves: int = 9,
    *,
    at_s: float = 999.0,
    moved_s: float = 880.0,
    is_warm: bool = True,
    world_size: int = 2,
) -> LastHeartbeat:
    sign = WorkerStatus(rank, world_size, f"10.0.0.{rank}", 120, phase, moves, is_warm)
    return LastHeartbeat(sign, at_s, moved_s)


def test_rank_that_is_behind_is_named() -> None:
    found = stall_line([heard(0), heard(1, WAITING, 7)], NOW_S, AFTER_S)
    assert found == (
        "rank 1 on node 10.0.0.1 is at step 120, waiting for data, since 120 s; the others wait for it"
    )


def test_silent_rank_is_named_wherever_it_was() -> None:
    found = stall_line([heard(0), heard(1, at_s=890.0)], NOW_S, AFTER_S)
    assert found == (
        "rank 1 on node 10.0.0.1 is silent (last at step 120, exchanging), since 120 s; the others wait for it"
    )


def test_several_that_are_behind_are_named_and_the_rest_counted() -> None:
    behind = [heard(rank, IN_TOWERS, 7, world_size=8) for rank in range(5)]
    found = stall_line([*behind, heard(5, world_size=8)], NOW_S, AFTER_S)
    assert found is not None
    assert found.startswith("rank 0 on node 10.0.0.0 is at step 120, in the towers, rank 1 on node")
    assert found.endswith(" and 2 more ranks, since 120 s; the others wait for them")


def test_nobody_is_named_as_long_as_one_rank_moves() -> None:
    assert stall_line([heard(0, moved_s=901.0), heard(1, WAITING, 7)], NOW_S, AFTER_S) is None


@pytest.mark.parametrize("phase", [WAITING, IN_TOWERS, SAVING])
def test_ranks_that_do_the_same_are_left_alone(phase: str) -> None:
    """The first batch, compiling, a large checkpoint."""
    assert stall_line([heard(0, phase), heard(1, phase)], NOW_S, AFTER_S) is None


def test_exchange_that_hangs_for_all_is_said_to_be_nobodys() -> None:
    assert stall_line([heard(0), heard(1)], NOW_S, AFTER_S) == (
        "all 2 ranks are at step 120, exchanging, since 120 s and none is behind; the network or a GPU hangs"
    )


def test_rank_without_data_is_named_by_those_that_are_ready() -> None:
    found = stall_line([heard(0, READY, 8), heard(1, WAITING, 7)], NOW_S, AFTER_S)
    assert found is not None
    assert found.startswith("rank 1 on node 10.0.0.1 is at step 120, waiting for data, since 120 s")


def test_ranks_that_are_ready_and_do_not_step_hang() -> None:
    found = stall_line([heard(0, READY), heard(1, READY)], NOW_S, AFTER_S)
    assert found is not None
    assert found.startswith("all 2 ranks are at step 120, ready with data, since 120 s")


def test_first_step_may_compile_as_long_as_it_wants() -> None:
    assert stall_line([heard(0, is_warm=False), heard(1, is_warm=False)], NOW_S, AFTER_S) is None


def test_group_that_is_gone_is_not_accused() -> None:
    assert stall_line([heard(0, at_s=880.0), heard(1, at_s=870.0)], NOW_S, AFTER_S) is None
    assert stall_line([], NOW_S, AFTER_S) is None


def test_rank_that_has_ended_is_not_waited_for() -> None:
    assert stall_line([heard(0, SAVING), heard(1, ENDED, at_s=890.0)], NOW_S, AFTER_S) is None


def test_ranks_of_an_earlier_larger_group_are_forgotten() -> None:
    old = heard(1, at_s=850.0)
    assert stall_line([heard(0, WAITING, world_size=1), old], NOW_S, AFTER_S) is None


def test_group_runs_while_one_of_it_is_heard() -> None:
    assert is_running([heard(0, at_s=996.0), heard(1, at_s=10.0)], NOW_S, 5.0)
    assert not is_running([heard(0, at_s=994.0)], NOW_S, 5.0)
    assert not is_running([heard(0, ENDED)], NOW_S, 5.0)
