"""Log lines of a worker in the driver's log: waits for a store or for W&B, and warnings."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from raysys.tracking.logs import log


@contextlib.contextmanager
def log_to_driver(coordinator: Any) -> Iterator[None]:
    """Pass the lines that raysys logs in this process to the run's `RunCoordinator` while the block runs."""
    handler, level = _CoordinatorHandler(coordinator), log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _CoordinatorHandler(logging.Handler):
    def __init__(self, coordinator: Any) -> None:
        super().__init__()
        self._coordinator = coordinator

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on, without the label that the driver adds itself. Does not wait for an answer."""
        self._coordinator.log.remote(record.getMessage().strip().removeprefix("train").lstrip())
