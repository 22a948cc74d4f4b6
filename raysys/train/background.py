"""Work in a thread of its own: the driver follows a training meanwhile, a worker hears what others want."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Made = TypeVar("Made")


def in_background(work: Callable[[], Made]) -> Future[Made]:
    """What `work` comes to in a thread that holds up nobody's exit."""
    future: Future[Made] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
