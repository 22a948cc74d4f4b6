"""A run at a glance: where it stands, how fast it goes, when it ends, as one line."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from raysys import storage
from raysys.tracking import logs
from raysys.tracking.metrics_log import read_validations, recent_steps
from raysys.train.checkpoint.registry import SCORE

_SAY_EVERY_S = 60.0
_LOOK_EVERY_S, _LOOK_AT_STORE_EVERY_S = 1.0, 10.0
_RECENT_ROWS = 10
_WORTH_SAYING = 0.03  # of the time spent waiting for data


@dataclass(frozen=True)
class RunLength:
    """How long a run is."""

    num_steps: int
    batch_size: int
    num_items: int
    """Pairs in an epoch."""


@dataclass(frozen=True)
class Standing:
    """What the newest figures of a run come to; rates and loss are those of the last ten."""

    length: RunLength
    step: int
    loss: float
    pairs_per_s: float
    data_wait: float

    @property
    def seconds_left(self) -> float:
        """Until the last step, if it goes on like this."""
        return (self.length.num_steps - self.step) * self.length.batch_size / self.pairs_per_s


def standing(length: RunLength, rows: Sequence[dict[str, float]]) -> Standing | None:
    """Where a run stands by its rows, which may be those of before a restart; None before the first."""
    recent = [row for row in rows[-_RECENT_ROWS:] if row["pairs_per_s"] > 0]
    if not recent:
        return None
    return Standing(
        length,
        step=int(recent[-1]["step"]),
        loss=_mean([row["loss"] for row in recent]),
        # Rows cover equally many steps: the mean of their times, not of their rates.
        pairs_per_s=1 / _mean([1 / row["pairs_per_s"] for row in recent]),
        data_wait=_mean([row["data_wait"] for row in recent]),
    )


def progress_line(now: Standing, validations: Sequence[dict[str, float]], score: str) -> str:
    """All that is worth a look, in one line; `score` names the figure that decides which is the best."""
    length = now.length
    return f"step {now.step:,}/{length.num_steps:,}  {rest_of_line(now, validations, score)}"


def rest_of_line(now: Standing, validations: Sequence[dict[str, float]], score: str) -> str:
    """The same without the step, for beside a bar."""
    length = now.length
    epochs = [number * length.batch_size / length.num_items for number in (now.step, length.num_steps)]
    parts = [
        f"epoch {epochs[0]:.1f}/{epochs[1]:.3g}",
        f"loss {now.loss:.3f}",
        f"{now.pairs_per_s:,.0f} pairs/s",
    ]
    if now.data_wait > _WORTH_SAYING:
        parts.append(f"data wait {now.data_wait:.0%}")
    if scored := _scored(validations):
        parts.append(f"val {score} {_score_words(scored)}")
    ends = f"ends in {duration(now.seconds_left)}" if now.step < length.num_steps else "all steps are done"
    return "  ".join([*parts, ends])


def duration(seconds: float) -> str:
    """A time as a person says it: 45 s, 24 min, 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _scored(validations: Sequence[dict[str, float]]) -> list[tuple[float, int]]:
    return [(row[f"val_{SCORE}"], int(row["step"])) for row in validations if f"val_{SCORE}" in row]


def _score_words(scored: Sequence[tuple[float, int]]) -> str:
    (latest, step), (best, best_step) = scored[-1], max(scored)
    where = "the best" if step == best_step else f"best {best:.3f} at {best_step:,}"
    return f"{latest:.3f} ({where})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@contextlib.contextmanager
def show_progress(run_uri: str, length: RunLength, score: str) -> Iterator[None]:
    """A bar on a terminal, a log line a measurement, and elsewhere one a minute, while the block runs."""
    finished = threading.Event()
    every_s = _LOOK_EVERY_S if storage.is_local(run_uri) else _LOOK_AT_STORE_EVERY_S
    with logs.status_bar("train", length.num_steps) as show:
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
        length: RunLength,
        score: str,
        show: logs.Show | None,
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
            logs.log.info("    train  %s", progress_line(now, self._validations, self._score))
