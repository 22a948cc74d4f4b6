"""Applies the changes of a log to an opened index while it serves."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Sequence
from typing import TypedDict

from raysys.errors import RaysysError
from raysys.index.search import Searcher
from raysys.serve import metrics
from raysys.store.change_log import ChangeLog
from raysys.store.changes import Change, LoggedChange, Upsert
from raysys.store.log_process import LogReader
from raysys.tracking.logs import log

_PAGE = 1000
_RECORD_S = 5.0
_LATE_VECTORS_S = 1.0  # how often to look for vectors that came after their change


class FollowerConfig(TypedDict):
    """Where the log is, and how often to look for changes."""

    url: str
    timeout_s: float
    poll_s: float


class ChangeFollower:
    """A thread that brings an index up to date, and keeps it so until `stop`.

    The constructor returns when the index has every change that the log has: a service never starts with
    items that were deleted. A vector that comes after its change, as before a switch to another space, is
    found about a second later. While the database does not answer, the index stays as it is.
    Raises: StoreFailed.
    """

    def __init__(self, searcher: Searcher, config: FollowerConfig) -> None:
        self._searcher, self._poll_s = searcher, config["poll_s"]
        self._log = LogReader(config["url"], config["timeout_s"])
        self._stopped = threading.Event()
        self._waiting: dict[str, int] = {}
        """Items that were put without a vector, to the sequences of these changes."""
        self._looked_at = time.monotonic()
        if searcher.manifest.num_without_vector:
            self._find_waiting(config)
        while self._apply_page():  # without lags: nobody waited for these changes
            pass
        for _ in range(0, len(self._waiting), _PAGE):
            self._apply_late_vectors()
        self._thread = threading.Thread(target=self._follow, name="changes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Apply no further changes."""
        self._stopped.set()
        self._thread.join()
        self._log.close()

    def _follow(self) -> None:
        is_failing, recorded_at = False, -math.inf
        while not self._stopped.wait(self._poll_s):
            was_failing = is_failing
            try:
                while changes := self._apply_page():
                    _record_lags(changes)
                if time.monotonic() - self._looked_at >= _LATE_VECTORS_S:
                    self._apply_late_vectors()
                is_failing = False
            except RaysysError as error:
                if not was_failing:
                    log.warning("serve: changes are not applied: %s", error)
                is_failing = True
            if was_failing and not is_failing:
                log.info("    serve  changes are applied again")
            # Again and again: a gauge that was set once, at the start, was not among the exported metrics.
            if is_failing != was_failing or time.monotonic() - recorded_at >= _RECORD_S:
                metrics.record("raysys_changes_failing", int(is_failing))
                recorded_at = time.monotonic()

    def _apply_page(self) -> list[LoggedChange]:
        """Apply the next changes; none once the index has all."""
        changes = self._log.after(self._searcher.last_change, self._searcher.space_id, _PAGE)
        if changes:
            self._searcher.apply(changes)
        for logged in changes:
            self._waiting.pop(logged.change.item_id, None)
            if _lacks_vector(logged.change, self._searcher.space_id):
                self._waiting[logged.change.item_id] = logged.sequence
        return changes

    def _find_waiting(self, config: FollowerConfig) -> None:
        """The items that the build of the index left out because they had no vector."""
        searcher, log_of_changes = self._searcher, ChangeLog(config["url"], config["timeout_s"])
        for logged in log_of_changes.latest(searcher.space_id, searcher.last_change):
            if isinstance(logged.change, Upsert) and logged.change.item_id not in searcher:
                self._waiting[logged.change.item_id] = logged.sequence
        log_of_changes.close()

    def _apply_late_vectors(self) -> None:
        """Put the items of up to `_PAGE` changes whose vectors came later; the others are looked at next."""
        space_id = self._searcher.space_id
        page = dict(itertools.islice(self._waiting.items(), _PAGE))
        found = [logged.change for logged in self._log.at(page.values(), space_id)]
        late = [upsert for upsert in found if isinstance(upsert, Upsert) and space_id in upsert.vectors]
        if late:
            self._searcher.apply_late_vectors(late)
        remaining = page.keys() - {upsert.item_id for upsert in late}
        for item_id in page:
            sequence = self._waiting.pop(item_id)
            if item_id in remaining:
                self._waiting[item_id] = sequence
        self._looked_at = time.monotonic()


def _lacks_vector(change: Change, space_id: str) -> bool:
    return isinstance(change, Upsert) and space_id not in change.vectors


def _record_lags(changes: Sequence[LoggedChange]) -> None:
    now = time.time()
    lags_ms = [1000 * max(0.0, now - change.accepted_at) for change in changes]
    for lag_ms in lags_ms:
        metrics.record("raysys_change_lag_ms", lag_ms)
    metrics.record("raysys_last_change_lag_ms", lags_ms[-1])
