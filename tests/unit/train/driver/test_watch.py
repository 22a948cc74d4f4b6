"""What driver and workers tell each other, without an actor around it."""

from __future__ import annotations

import asyncio
import dataclasses

from raysys.errors import TrainingDiverged
from raysys.train.driver.stall import EXCHANGING, WAITING, Sign
from raysys.train.driver.watch import Orders, Watch


def test_new_group_trains_as_configured() -> None:
    assert asyncio.run(Watch(60.0).orders()) == Orders(is_over=False, micro_batch_size=None)


def test_group_that_starts_after_a_wish_to_stop_is_over() -> None:
    async def asked() -> tuple[Orders, bool]:
        watch = Watch(60.0)
        await watch.ask_to_stop()
        return await watch.orders(), await watch.stop_wanted()

    assert asyncio.run(asked()) == (Orders(is_over=True, micro_batch_size=None), True)


def test_ranks_that_lack_memory_together_halve_once() -> None:
    async def scarce() -> tuple[list[int | None], list[str]]:
        watch, sizes = Watch(60.0), list[int | None]()
        for size, who in ((16, "rank 0"), (16, "rank 1"), (8, "rank 1")):
            await watch.halve(size, who)
            sizes.append((await watch.orders()).micro_batch_size)
        return sizes, (await watch.news()).lines

    assert asyncio.run(scarce()) == (
        [8, 8, 4],
        [
            "rank 0 for 16 pairs at a time; from the last checkpoint on 8",
            "rank 1 for 8 pairs at a time; from the last checkpoint on 4",
        ],
    )


def test_run_is_over_once_a_rank_has_given_up_and_all_return_if_all_do() -> None:
    async def diverged() -> tuple[list[bool], bool, str]:
        watch = Watch(60.0)
        errors = [TrainingDiverged("first"), TrainingDiverged("second")]
        all_did = await asyncio.gather(*(watch.give_up(error, 2) for error in errors))
        return all_did, (await watch.orders()).is_over, str((await watch.news()).verdict)

    assert asyncio.run(diverged()) == ([True, True], True, "first")


def test_stall_is_told_before_the_ranks_that_wait_fail() -> None:
    now_s = 0.0
    ahead = Sign(0, 2, "10.0.0.1", 7, EXCHANGING, 4, is_warm=True)
    behind = dataclasses.replace(ahead, rank=1, phase=WAITING, moves=3)

    async def waited() -> list[str | None]:
        nonlocal now_s
        watch, found = Watch(100.0, clock=lambda: now_s), list[str | None]()
        for second in (0.0, 40.0, 79.0, 81.0):
            now_s = second
            await watch.tell(ahead)
            await watch.tell(behind)
            found.append((await watch.news()).stall)
        return found

    *before, line = asyncio.run(waited())
    assert before == [None, None, None]
    assert (
        line == "rank 1 on node 10.0.0.1 is at step 7, waiting for data, since 81 s; the others wait for it"
    )


def test_lines_are_told_once() -> None:
    async def said() -> list[list[str]]:
        watch = Watch(60.0)
        await watch.say("a node goes")
        return [(await watch.news()).lines, (await watch.news()).lines]

    assert asyncio.run(said()) == [["a node goes"], []]
