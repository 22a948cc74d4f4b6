"""What the driver and the workers of a run tell each other beside the training: an actor's class.

It lives on the driver's node: when that is gone, so is the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from raysys.errors import RaysysError
from raysys.train.driver.stall import Heard, Sign, is_running, stall_line

_ALARM_SHARE = 0.8  # of the time after which the waiting ranks fail: they should be told of before
_SILENT_S = 5.0
_ALL_S = 5.0  # how long the first rank that gives up waits for the others


class Orders(NamedTuple):
    """What a worker group is told when it starts."""

    is_over: bool
    micro_batch_size: int | None
    """Smaller than the configured one after a lack of memory; None: as configured."""


@dataclass(frozen=True)
class News:
    """What the driver has not heard yet, and how it stands."""

    lines: list[str]
    stall: str | None
    verdict: RaysysError | None
    is_running: bool
    has_ended: bool
    """Whether a worker came to its end, as it should; what Ray still does then is to measure checkpoints."""


class Watch:
    """One a run, as an asynchronous Ray actor."""

    def __init__(self, stall_after_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_after_s, self._clock = _ALARM_SHARE * stall_after_s, clock
        self._stop, self._all_gave_up = asyncio.Event(), asyncio.Event()
        self._heard: dict[int, Heard] = {}
        self._lines: list[str] = []
        self._verdict: RaysysError | None = None
        self._num_gave_up = 0
        self._micro_batch_size: int | None = None
        self._has_ended = False

    async def ask_to_stop(self) -> None:
        """The run should end after its step, with a checkpoint."""
        self._stop.set()

    async def stop_wanted(self) -> bool:
        """Answers once somebody has asked."""
        await self._stop.wait()
        return True

    async def orders(self) -> Orders:
        """For a worker that starts."""
        return Orders(self._stop.is_set() or self._verdict is not None, self._micro_batch_size)

    async def tell(self, sign: Sign) -> None:
        """A worker lives, and is where it says."""
        now, before = self._clock(), self._heard.get(sign.rank)
        moved = before.moved_s if before and before.sign == sign else now
        self._heard[sign.rank] = Heard(sign, now, moved)

    async def say(self, line: str) -> None:
        """A line for the driver's log."""
        self._lines.append(line)

    async def halve(self, micro_batch_size: int, who: str) -> None:
        """A micro-batch of this size is too much for `who`: the next group takes half, however many ask."""
        half = max(1, micro_batch_size // 2)
        if self._micro_batch_size is None or half < self._micro_batch_size:
            self._micro_batch_size = half
            self._lines.append(
                f"{who} for {micro_batch_size} pairs at a time; from the last checkpoint on {half}"
            )

    async def give_up(self, error: RaysysError, world_size: int) -> bool:
        """Keep why the run must end; answers whether all the ranks came to give up within seconds."""
        self._verdict = self._verdict or error
        self._num_gave_up += 1
        if self._num_gave_up >= world_size:
            self._all_gave_up.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_gave_up.wait(), _ALL_S)
        return self._all_gave_up.is_set()

    async def end(self) -> None:
        """A worker ends as it should: after its last step, or because it was asked to."""
        self._has_ended = True

    async def news(self) -> News:
        """For the driver; lines are told once."""
        now, heard = self._clock(), list(self._heard.values())
        lines, self._lines = self._lines, []
        return News(
            lines=lines,
            stall=stall_line(heard, now, self._stall_after_s),
            verdict=self._verdict,
            is_running=is_running(heard, now, _SILENT_S),
            has_ended=self._has_ended,
        )
