"""Threads of a fixed number for work that takes milliseconds; a limited number of calls may wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from raysys.errors import ServiceUnavailable
from raysys.serve.deadline import require_time

P = ParamSpec("P")
T = TypeVar("T")


class BoundedThreads:
    """Up to `num_threads` calls run at a time, and `queue_length` wait; `what` is their name in an error."""

    def __init__(self, what: str, num_threads: int, queue_length: int) -> None:
        self._what, self._num_threads = what, num_threads
        self._num_calls = 0
        self._threads = ThreadPoolExecutor(num_threads, what)
        self._places = threading.BoundedSemaphore(num_threads + queue_length)

    @property
    def are_busy(self) -> bool:
        """Whether a call would wait for a thread."""
        return self._num_calls >= self._num_threads

    async def run(self, deadline: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function in a thread, unless `deadline` passes before one is free.

        A call that waits when its request is cancelled is not made.
        Raises: DeadlineExceeded, ServiceUnavailable if no more calls may wait, and what the function raises.
        """

        def call() -> T:
            require_time(deadline)
            return function(*args, **kwargs)

        if not self._places.acquire(blocking=False):
            raise ServiceUnavailable(f"too many {self._what} wait; try again")
        called = self._threads.submit(call)
        called.add_done_callback(lambda _: self._places.release())
        self._num_calls += 1
        try:
            return await asyncio.wrap_future(called)
        finally:
            self._num_calls -= 1
