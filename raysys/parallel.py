"""How independent pieces of work run: the `Parallel` protocol, and a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")


class Parallel(Protocol):
    """How a stage runs independent pieces of work: builtin `map` in a test, Ray tasks on a cluster.

    Results come in the order of the pieces.
    """

    def __call__(self, work: Callable[[Piece], Result], pieces: Sequence[Piece], /) -> Iterable[Result]:
        """Yield `work(piece)` for every piece."""
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
