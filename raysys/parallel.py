"""How independent pieces of work run: the `Parallel` protocol, threads, and a call with a time limit."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from typing import Any, Protocol, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

log = logging.getLogger("raysys")
_FIRST_NOTICE_S, _NEXT_NOTICE_S = 4.0, 15.0
_unfinished: set[Future[Any]] = set()  # work whose caller no longer waits for it


class Parallel(Protocol):
    """How a stage runs independent pieces of work: builtin `map` in a test, Ray tasks on a cluster.

    Results come in the order of the pieces.
    """

    def __call__(self, work: Callable[[Piece], Result], pieces: Iterable[Piece], /) -> Iterable[Result]:
        """Yield `work(piece)` for every piece; few pieces are taken before their results are."""
        ...


def run_in_thread(work: Callable[[], Result]) -> Future[Result]:
    """The future result of `work` in a daemon thread, which does not delay the exit of the process."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def map_in_threads(
    work: Callable[[Piece], Result], pieces: Iterable[Piece], max_threads: int
) -> Iterator[Result]:
    """Yield `work(piece)` for every piece, in order, with at most `max_threads` of them at a time.

    For work that waits. The threads are daemons, so Ctrl-C in the caller does not wait for them. With one
    there is none: the caller does the work.
    """
    if max_threads == 1:
        yield from map(work, pieces)
        return
    running: deque[Future[Result]] = deque()
    for piece in pieces:
        running.append(run_in_thread(partial(work, piece)))
        if len(running) == max_threads:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def call_within(timeout_s: float, work: Callable[[], Result], waiting_for: str) -> Result:
    """`work()`, in a daemon thread, with a log line every few seconds while it takes long.

    For calls into native code, which Ctrl-C does not interrupt: the caller ends at once, its thread does not.
    Raises: TimeLimitExceeded after `timeout_s`, and the errors of `work`.
    """
    future = run_in_thread(work)
    started = time.monotonic()
    notice_s = min(_FIRST_NOTICE_S, timeout_s)
    try:
        while not wait([future], timeout=max(0.0, started + notice_s - time.monotonic())).done:
            if notice_s >= timeout_s:
                raise TimeLimitExceeded(f"no answer within {timeout_s:g} s")
            log.info("%s: still waiting after %.0f s, at most %g s", waiting_for, notice_s, timeout_s)
            notice_s = min(notice_s + _NEXT_NOTICE_S, timeout_s)
    except BaseException:
        _unfinished.add(future)
        raise
    return future.result()


def has_unfinished_calls() -> bool:
    """Whether a thread still runs whose caller gave up: the normal end of the process would wait for it."""
    return any(not future.done() for future in _unfinished)


class TimeLimitExceeded(TimeoutError):
    """A call did not return within its time limit."""
