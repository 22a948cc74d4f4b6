"""The coordinator's exchange between driver and workers, without an actor around it."""

from __future__ import annotations

import asyncio
import dataclasses

from raysys.errors import TrainingDiverged
from raysys.train.monitor.coordinator import RunCoordinator
from raysys.train.monitor.stall import LOSS_AND_BACKWARD, WAITING_FOR_DATA, WorkerStatus


def test_run_is_over_for_a_group_that_starts_after_a_stop_request() -> None:
    async def start_before_and_after_request() -> list[bool]:
        coordinator = RunCoordinator(60.0, 600.0)
        before = await coordinator.is_over()
        await coordinator.request_stop()
        return [before, await coordinator.is_over(), await coordinator.wait_for_stop_request()]

    assert asyncio.run(start_before_and_after_request()) == [False, True, True]


def test_of_lines_that_several_ranks_report_the_first_is_logged() -> None:
    async def report_sizes() -> list[str]:
        coordinator = RunCoordinator(60.0, 600.0)
        for size, rank in ((16, 0), (16, 1), (8, 1)):
            await coordinator.log(f"rank {rank}: {size} pairs do not fit", once=f"size {size}")
        return (await coordinator.status()).lines

    assert asyncio.run(report_sizes()) == ["rank 0: 16 pairs do not fit", "rank 1: 8 pairs do not fit"]


def test_run_ends_with_the_first_error_once_all_ranks_give_up() -> None:
    async def give_up() -> tuple[list[bool], bool, str]:
        coordinator = RunCoordinator(60.0, 600.0)
        errors = [TrainingDiverged("first"), TrainingDiverged("second")]
        all_gave_up = await asyncio.gather(*(coordinator.give_up(error, 2) for error in errors))
        is_over = await coordinator.is_over()
        return all_gave_up, is_over, str((await coordinator.status()).fatal_error)

    assert asyncio.run(give_up()) == ([True, True], True, "first")


def test_stall_is_reported_before_the_collective_timeout() -> None:
    now_s = 0.0
    ahead = WorkerStatus(0, 2, "10.0.0.1", 7, LOSS_AND_BACKWARD, 4, is_warm=True)
    behind = dataclasses.replace(ahead, rank=1, phase=WAITING_FOR_DATA, num_phase_changes=3)

    async def stalls() -> list[str | None]:
        nonlocal now_s
        coordinator, lines = RunCoordinator(100.0, 600.0, clock=lambda: now_s), list[str | None]()
        for second in (0.0, 40.0, 79.0, 81.0):
            now_s = second
            await coordinator.heartbeat(ahead)
            await coordinator.heartbeat(behind)
            lines.append((await coordinator.status()).stall)
        return lines

    *before, line = asyncio.run(stalls())
    assert before == [None, None, None]
    assert line == (
        "no progress for 81 s: rank 1 on node 10.0.0.1 is at step 7, waiting for data; "
        "the other ranks wait for it"
    )


def test_log_lines_are_returned_once() -> None:
    async def read_twice() -> list[list[str]]:
        coordinator = RunCoordinator(60.0, 600.0)
        await coordinator.log("a line")
        return [(await coordinator.status()).lines, (await coordinator.status()).lines]

    assert asyncio.run(read_twice()) == [["a line"], []]


def test_first_batch_that_does_not_come_ends_the_run() -> None:
    async def wait() -> tuple[str, bool, str | None]:
        now_s = 0.0
        coordinator = RunCoordinator(1000.0, 100.0, clock=lambda: now_s)
        waiting = WorkerStatus(0, 1, "10.0.0.1", 0, WAITING_FOR_DATA, 0, is_warm=False)
        await coordinator.heartbeat(waiting)
        now_s = 99.0
        await coordinator.heartbeat(waiting)
        await coordinator.stream_waits("0 of 2 CPUs of the cluster are free")
        assert (await coordinator.status()).fatal_error is None
        now_s = 101.0
        await coordinator.heartbeat(waiting)
        status = await coordinator.status()
        return str(status.fatal_error), await coordinator.wait_for_stop_request(), status.stall

    line, is_stopped, stall = asyncio.run(wait())
    assert line.startswith(
        "train: no batch within 101 s (stream.first_batch_timeout_s): 0 of 2 CPUs of the cluster are free; "
    )
    assert (is_stopped, stall) == (True, None)


def test_later_wait_for_data_is_a_stall() -> None:
    async def wait() -> tuple[str | None, object]:
        now_s = 0.0
        coordinator = RunCoordinator(1000.0, 100.0, clock=lambda: now_s)
        waiting = WorkerStatus(0, 1, "10.0.0.1", 7, WAITING_FOR_DATA, 9, is_warm=True)
        await coordinator.heartbeat(waiting)
        now_s = 120.0
        await coordinator.heartbeat(waiting)
        status = await coordinator.status()
        return status.stall, status.fatal_error

    assert asyncio.run(wait()) == ("no progress for 120 s: the only rank waits for data after step 7", None)
