"""Ctrl-C and SIGTERM as a wish that can be asked after, rather than an exception at any line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopWish:
    """What signals have asked for so far; `number` is the first one's, None before it."""

    number: int | None = None

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Remember the first signal. Raises: KeyboardInterrupt at the second."""
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def stop_wish() -> Iterator[StopWish]:
    """A wish that SIGINT and SIGTERM fill while the block runs; outside the main thread none can come."""
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.signal(number, wish.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
