"""Applies the changes of a log to an opened index while it serves."""

from __future__ import annotations

import threading
import time
from typing import TypedDict

from raysys.errors import RaysysError
from raysys.index.search import Searcher
from raysys.store.change_log import ChangeLog
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
        self.lag_s = 0.0
        """Seconds from the acceptance of the change that was applied last until it could be found."""
        self._catch_up()
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
            try:
                self._catch_up()
                if is_failing:
                    log.info("    serve  changes are applied again")
                is_failing = False
            except RaysysError as error:
                if not is_failing:
                    log.warning("serve: changes are not applied: %s", error)
                is_failing = True

    def _catch_up(self) -> None:
        while some := self._log.after(self._searcher.last_change, self._searcher.space_id, _PAGE):
            self._searcher.apply(some)
            self.lag_s = time.time() - some[-1].accepted_at
