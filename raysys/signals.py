"""SIGINT (Ctrl-C) and SIGTERM as a request that a process polls; or SIGTERM as an exception, as SIGINT is."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """`signal_number` is the first signal's; None while none has arrived."""

    signal_number: int | None = None

    def receive(self, number: int, _frame: FrameType | None) -> None:
        """Record the first signal. Raises: KeyboardInterrupt at the second."""
        if self.signal_number is not None:
            raise KeyboardInterrupt
        self.signal_number = number


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Handle SIGINT and SIGTERM while the block runs; outside the main thread nothing is handled."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    previous = {number: signal.signal(number, request.receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


def exit_at_sigterm() -> None:
    """From now on, SIGTERM raises SystemExit in the main thread: open contexts close, as at Ctrl-C."""
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(number))


@contextmanager
def without_abort_at_sigterm() -> Iterator[None]:
    """For a block that starts Ray, whose own handler aborts a process three seconds after SIGTERM.

    Afterwards SIGTERM does what it did before, or raises SystemExit if nothing handled it.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            if callable(before):
                signal.signal(signal.SIGTERM, before)
            else:
                exit_at_sigterm()
