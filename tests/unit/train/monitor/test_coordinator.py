"""What driver and workers tell each other, without an actor around it."""

from __future__ import annotations

import asyncio
import dataclasses

from raysys.errors import TrainingDiverged
from raysys.train.monitor.coordinator import AttemptConfig, RunCoordinator
from raysys.train.monitor.stall import EXCHANGING, WAITING, WorkerStatus


def test_new_group_trains_as_configured() -> None:
    assert asyncio.run(RunCoordinator(60.0).attempt_config()) == AttemptConfig(
        is_over=False, micro_batch_size=None
    )


def test_group_that_starts_after_a_wish_to_stop_is_over() -> None:
    async def asked() -> tuple[AttemptConfig, bool]:
        coordinator = RunCoordinator(60.0)
        await coordinator.request_stop()
        return await coordinator.attempt_config(), await coordinator.wait_for_stop_request()

    assert asyncio.run(asked()) == (AttemptConfig(is_over=True, micro_batch_size=None), True)


def test_ranks_that_lack_memory_together_halve_once() -> None:
    async def scarce() -> tuple[list[int | None], list[str]]:
        coordinator, sizes = RunCoordinator(60.0), list[int | None]()
        for size, who in ((16, "rank 0"), (16, "rank 1"), (8, "rank 1")):
            await coordinator.halve_micro_batch(size, who)
            sizes.append((await coordinator.attempt_config()).micro_batch_size)
        return sizes, (await coordinator.status()).lines

    assert asyncio.run(scarce()) == (
        [8, 8, 4],
        [
            "rank 0 for micro_batch_size 16; from the last checkpoint on 8",
            "rank 1 for micro_batch_size 8; from the last checkpoint on 4",
        ],
    )


def test_run_is_over_once_a_rank_has_given_up_and_all_return_if_all_do() -> None:
    async def diverged() -> tuple[list[bool], bool, str]:
        coordinator = RunCoordinator(60.0)
        errors = [TrainingDiverged("first"), TrainingDiverged("second")]
        all_did = await asyncio.gather(*(coordinator.give_up(error, 2) for error in errors))
        return (
            all_did,
            (await coordinator.attempt_config()).is_over,
            str((await coordinator.status()).fatal_error),
        )

    assert asyncio.run(diverged()) == ([True, True], True, "first")


def test_stall_is_told_before_the_ranks_that_wait_fail() -> None:
    now_s = 0.0
    ahead = WorkerStatus(0, 2, "10.0.0.1", 7, EXCHANGING, 4, is_warm=True)
    behind = dataclasses.replace(ahead, rank=1, phase=WAITING, moves=3)

    async def waited() -> list[str | None]:
        nonlocal now_s
        coordinator, found = RunCoordinator(100.0, clock=lambda: now_s), list[str | None]()
        for second in (0.0, 40.0, 79.0, 81.0):
            now_s = second
            await coordinator.heartbeat(ahead)
            await coordinator.heartbeat(behind)
            found.append((await coordinator.status()).stall)
        return found

    *before, line = asyncio.run(waited())
    assert before == [None, None, None]
    assert (
        line == "rank 1 on node 10.0.0.1 is at step 7, waiting for data, since 81 s; the others wait for it"
    )


def test_lines_are_told_once() -> None:
    async def said() -> list[list[str]]:
        coordinator = RunCoordinator(60.0)
        await coordinator.log("a node goes")
        return [(await coordinator.status()).lines, (await coordinator.status()).lines]

    assert asyncio.run(said()) == [["a node goes"], []]
