"""What the driver and the workers of a run tell each other beside the training: an actor's class.

It lives on the driver's node: when that is gone, so is the run.
"""

from __future__ import annotations

import asyncio


class Watch:
    """One a run, as an asynchronous Ray actor."""

    def __init__(self) -> None:
        self._stop = asyncio.Event()

    async def ask_to_stop(self) -> None:
        """The run should end after its step, with a checkpoint."""
        self._stop.set()

    async def stop_wanted(self) -> bool:
        """Answers once somebody has asked."""
        await self._stop.wait()
        return True
