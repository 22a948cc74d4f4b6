"""What a person sees of a run that goes on elsewhere: a bar or log lines, from the files in its folder."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from raysys import observe, storage
from raysys.train.driver.progress import Length, progress_line, rest_of_line, standing
from raysys.train.figures.metrics import read_validations, recent_steps

_SAY_EVERY_S = 60.0
_LOOK_EVERY_S, _LOOK_AT_STORE_EVERY_S = 1.0, 10.0


@contextlib.contextmanager
def followed(run_uri: str, length: Length, score: str) -> Iterator[None]:
    """A bar on a terminal, a log line a measurement, and elsewhere one a minute, while the block runs."""
    finished = threading.Event()
    every_s = _LOOK_EVERY_S if storage.is_local(run_uri) else _LOOK_AT_STORE_EVERY_S
    with observe.status_bar("train", length.num_steps) as show:
        follower = Follower(run_uri, length, score, show)

        def watch() -> None:
            while not finished.wait(every_s):
                follower.look()

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            finished.set()
            watcher.join()
            follower.look()


class Follower:
    """Looks at a run's folder when asked to, and says what is new; `show` moves the bar, if there is one."""

    def __init__(
        self,
        run_uri: str,
        length: Length,
        score: str,
        show: observe.Show | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_uri, self._length, self._score = run_uri, length, score
        self._show, self._clock = show, clock
        self._validations = read_validations(run_uri)
        self._said_at = clock()

    def look(self) -> None:
        """Read what was added, and show it."""
        known = frozenset(int(row["step"]) for row in self._validations)
        new = read_validations(self._run_uri, without=known)
        self._validations = sorted([*self._validations, *new], key=lambda row: row["step"])
        now = standing(self._length, recent_steps(self._run_uri))
        if now is None:
            return
        if self._show is not None:
            self._show(now.step, rest_of_line(now, self._validations, self._score))
        elapsed = self._clock() - self._said_at
        if new or (self._show is None and elapsed >= _SAY_EVERY_S):
            self._said_at = self._clock()
            observe.log.info("    train  %s", progress_line(now, self._validations, self._score))
