"""Which ranks a stall line names when nothing has changed for 100 s."""

from __future__ import annotations

import pytest

from raysys.train.monitor.stall import (
    DATA_READY,
    ENDED,
    FORWARD,
    LOSS_AND_BACKWARD,
    SAVING,
    VALIDATING,
    WAITING_FOR_DATA,
    LastHeartbeat,
    WorkerStatus,
    first_batch_wait_s,
    is_running,
    stall_line,
)

NOW_S, AFTER_S = 1000.0, 100.0


def heartbeat(
    rank: int,
    phase: str = LOSS_AND_BACKWARD,
    num_phase_changes: int = 9,
    *,
    received_s: float = 999.0,
    unchanged_since_s: float = 880.0,
    is_warm: bool = True,
    world_size: int = 2,
) -> LastHeartbeat:
    status = WorkerStatus(rank, world_size, f"10.0.0.{rank}", 120, phase, num_phase_changes, is_warm)
    return LastHeartbeat(status, received_s, unchanged_since_s)


def test_rank_that_is_behind_is_named() -> None:
    assert stall_line([heartbeat(0), heartbeat(1, WAITING_FOR_DATA, 7)], NOW_S, AFTER_S) == (
        "no progress for 120 s: rank 1 on node 10.0.0.1 is at step 120, waiting for data; "
        "the other ranks wait for it"
    )


def test_rank_that_validates_more_slowly_is_named() -> None:
    line = stall_line([heartbeat(0, VALIDATING, 12), heartbeat(1, VALIDATING, 10)], NOW_S, AFTER_S)
    assert line == (
        "no progress for 120 s: rank 1 on node 10.0.0.1 is at step 120, validating; the other ranks wait for it"
    )


def test_silent_rank_is_named_with_its_last_phase() -> None:
    assert stall_line([heartbeat(0), heartbeat(1, received_s=890.0)], NOW_S, AFTER_S) == (
        "no progress for 120 s: rank 1 on node 10.0.0.1 sends no heartbeat "
        "(last: step 120, loss and backward pass); the other ranks wait for it"
    )


def test_three_ranks_are_named_and_the_others_counted() -> None:
    behind = [heartbeat(rank, FORWARD, 7, world_size=8) for rank in range(5)]
    line = stall_line([*behind, heartbeat(5, world_size=8)], NOW_S, AFTER_S)
    assert line is not None
    assert line.startswith(
        "no progress for 120 s: rank 0 on node 10.0.0.0 is at step 120, forward pass, rank 1"
    )
    assert "rank 3" not in line
    assert line.endswith(" and 2 more; the other ranks wait for them")


def test_no_stall_while_one_rank_changes() -> None:
    changing = heartbeat(0, unchanged_since_s=901.0)
    assert stall_line([changing, heartbeat(1, WAITING_FOR_DATA, 7)], NOW_S, AFTER_S) is None


@pytest.mark.parametrize("phase", [WAITING_FOR_DATA, FORWARD, SAVING])
def test_ranks_in_the_same_phase_are_no_stall(phase: str) -> None:
    """They wait for the first batch, compile, or save a large checkpoint."""
    assert stall_line([heartbeat(0, phase), heartbeat(1, phase)], NOW_S, AFTER_S) is None


def test_collective_that_hangs_on_all_ranks_names_none() -> None:
    assert stall_line([heartbeat(0), heartbeat(1)], NOW_S, AFTER_S) == (
        "no progress for 120 s: all 2 ranks are at step 120, loss and backward pass, none is behind; "
        "the network or a GPU hangs"
    )


def test_rank_without_data_is_behind_those_with_data() -> None:
    line = stall_line([heartbeat(0, DATA_READY, 8), heartbeat(1, WAITING_FOR_DATA, 7)], NOW_S, AFTER_S)
    assert line is not None
    assert "rank 1 on node 10.0.0.1 is at step 120, waiting for data" in line


def test_ranks_that_all_have_data_and_do_not_step_hang() -> None:
    line = stall_line([heartbeat(0, DATA_READY), heartbeat(1, DATA_READY)], NOW_S, AFTER_S)
    assert line is not None
    assert "all 2 ranks are at step 120, data ready" in line


def test_first_step_may_take_longer_to_compile() -> None:
    assert stall_line([heartbeat(0, is_warm=False), heartbeat(1, is_warm=False)], NOW_S, AFTER_S) is None


def test_group_without_heartbeats_is_no_stall() -> None:
    silent_group = [heartbeat(0, received_s=880.0), heartbeat(1, received_s=870.0)]
    assert stall_line(silent_group, NOW_S, AFTER_S) is None
    assert stall_line([], NOW_S, AFTER_S) is None


def test_ended_rank_is_ignored() -> None:
    assert stall_line([heartbeat(0, SAVING), heartbeat(1, ENDED, received_s=890.0)], NOW_S, AFTER_S) is None


def test_ranks_of_an_earlier_larger_group_are_ignored() -> None:
    old = heartbeat(1, received_s=850.0)
    assert stall_line([heartbeat(0, WAITING_FOR_DATA, world_size=1), old], NOW_S, AFTER_S) is None


def test_group_is_running_while_one_rank_sends_heartbeats() -> None:
    assert is_running([heartbeat(0, received_s=996.0), heartbeat(1, received_s=10.0)], NOW_S, 5.0)
    assert not is_running([heartbeat(0, received_s=994.0)], NOW_S, 5.0)
    assert not is_running([heartbeat(0, ENDED)], NOW_S, 5.0)


def test_ranks_that_all_wait_for_data_are_a_stall_with_what_the_stream_waits_for() -> None:
    waiting = [heartbeat(0, WAITING_FOR_DATA), heartbeat(1, WAITING_FOR_DATA)]
    assert stall_line(waiting, NOW_S, AFTER_S, data_after_s=121.0) is None
    assert stall_line(waiting, NOW_S, AFTER_S, data_after_s=120.0, stream="reading: 1 task") == (
        "no progress for 120 s: all 2 ranks wait for data after step 120 (reading: 1 task)"
    )
    alone = [heartbeat(0, WAITING_FOR_DATA, world_size=1)]
    assert stall_line(alone, NOW_S, AFTER_S, data_after_s=100.0) == (
        "no progress for 120 s: the only rank waits for data after step 120"
    )


@pytest.mark.parametrize(
    ("phases", "is_warm", "expected"),
    [
        ((WAITING_FOR_DATA, WAITING_FOR_DATA), False, 120.0),
        ((WAITING_FOR_DATA, DATA_READY), False, 120.0),
        ((DATA_READY, DATA_READY), False, None),
        ((WAITING_FOR_DATA, FORWARD), False, None),  # compiles
        ((WAITING_FOR_DATA, WAITING_FOR_DATA), True, None),  # a later batch
    ],
)
def test_wait_for_the_first_batch(phases: tuple[str, str], is_warm: bool, expected: float | None) -> None:
    group = [heartbeat(rank, phase, is_warm=is_warm) for rank, phase in enumerate(phases)]
    assert first_batch_wait_s(group, NOW_S, 120.0) == expected
    assert first_batch_wait_s(group, NOW_S, 121.0) is None
    assert first_batch_wait_s([], NOW_S, 120.0) is None
