"""Applies the changes of a log to an opened index while it serves."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TypedDict

from raysys.errors import RaysysError
from raysys.index.search import Searcher
from raysys.serve import metrics
from raysys.store.change_log import ChangeLog
from raysys.store.changes import LoggedChange
from raysys.tracking.logs import log

_PAGE = 1000


class FollowerConfig(TypedDict):
    """Where the log is, and how often to look for changes."""

    url: str
    timeout_s: float
    poll_s: float


class ChangeFollower:
    """A thread that brings an index up to date, and keeps it so until `stop`.

    The constructor returns when the index has every change that the log has: a service never starts with
    items that were deleted. While the database does not answer, the index stays as it is.
    Raises: StoreFailed.
    """

    def __init__(self, searcher: Searcher, config: FollowerConfig) -> None:
        self._searcher, self._poll_s = searcher, config["poll_s"]
        self._log = ChangeLog(config["url"], config["timeout_s"])
        self._stopped = threading.Event()
        while self._apply_page():  # without lags: nobody waited for these changes
            pass
        metrics.record("raysys_changes_failing", 0)
        self._thread = threading.Thread(target=self._follow, name="changes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Apply no further changes."""
        self._stopped.set()
        self._thread.join()
        self._log.close()

    def _follow(self) -> None:
        is_failing = False
        while not self._stopped.wait(self._poll_s):
            was_failing = is_failing
            try:
                while changes := self._apply_page():
                    _record_lags(changes)
                is_failing = False
            except RaysysError as error:
                if not was_failing:
                    log.warning("serve: changes are not applied: %s", error)
                is_failing = True
            if is_failing != was_failing:
                metrics.record("raysys_changes_failing", int(is_failing))
                if was_failing:
                    log.info("    serve  changes are applied again")

    def _apply_page(self) -> list[LoggedChange]:
        """Apply the next changes; none once the index has all."""
        changes = self._log.after(self._searcher.last_change, self._searcher.space_id, _PAGE)
        if changes:
            self._searcher.apply(changes)
        return changes


def _record_lags(changes: Sequence[LoggedChange]) -> None:
    now = time.time()
    lags_ms = [1000 * max(0.0, now - change.accepted_at) for change in changes]
    for lag_ms in lags_ms:
        metrics.record("raysys_change_lag_ms", lag_ms)
    metrics.record("raysys_last_change_lag_ms", lags_ms[-1])
