"""Progress of a run in one line: step, loss, speed, validation score, time left."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from raysys import storage
from raysys.tracking import logs
from raysys.tracking.metrics_log import read_recent_steps, read_validations, validation_scores

_LOG_INTERVAL_S = 60.0  # without a terminal
_POLL_INTERVAL_S, _STORE_POLL_INTERVAL_S = 1.0, 10.0
_NUM_RECENT_ROWS = 10
_MIN_SHOWN_DATA_WAIT = 0.03  # share of the time that is spent waiting for data


@dataclass(frozen=True)
class RunLength:
    """How long a run is."""

    num_steps: int
    batch_size: int
    num_items: int
    """Pairs in an epoch."""


@contextlib.contextmanager
def show_progress(run_uri: str, length: RunLength, score: str) -> Iterator[None]:
    """Report a run's progress while the block runs: a bar on a terminal, log lines elsewhere.

    Every validation is a log line; without a terminal so is the state once a minute.
    """
    finished = threading.Event()
    interval_s = _POLL_INTERVAL_S if storage.is_local(run_uri) else _STORE_POLL_INTERVAL_S
    with logs.status_bar("train", length.num_steps) as show:
        reporter = ProgressReporter(run_uri, length, score, show)

        def poll() -> None:
            while not finished.wait(interval_s):
                reporter.update()

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()
            reporter.update()


class ProgressReporter:
    """Reads a run's metrics from its folder and reports new ones; `show` updates the bar, if there is one."""

    def __init__(
        self,
        run_uri: str,
        length: RunLength,
        score: str,
        show: logs.ShowStatus | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run_uri, self._length, self._score = run_uri, length, score
        self._show, self._clock = show, clock
        self._validations = read_validations(run_uri)
        self._logged_at = clock()

    def update(self) -> None:
        """Read new metrics and report them."""
        known = frozenset(int(row["step"]) for row in self._validations)
        new = read_validations(self._run_uri, without=known)
        self._validations = sorted([*self._validations, *new], key=lambda row: row["step"])
        progress = run_progress(self._length, read_recent_steps(self._run_uri))
        if progress is None:
            return
        if self._show is not None:
            self._show(progress.step, status_text(progress, self._validations, self._score))
        elapsed = self._clock() - self._logged_at
        if new or (self._show is None and elapsed >= _LOG_INTERVAL_S):
            self._logged_at = self._clock()
            logs.log.info("    train  %s", progress_line(progress, self._validations, self._score))


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run; loss and rates are means over its last ten rows of metrics."""

    length: RunLength
    step: int
    loss: float
    pairs_per_s: float
    data_wait: float

    @property
    def seconds_left(self) -> float:
        """Until the last step, at the current speed."""
        return (self.length.num_steps - self.step) * self.length.batch_size / self.pairs_per_s


def run_progress(length: RunLength, rows: Sequence[dict[str, float]]) -> RunProgress | None:
    """Progress by the rows of `metrics.jsonl`, also those before a restart; None without rows."""
    recent = [row for row in rows[-_NUM_RECENT_ROWS:] if row["pairs_per_s"] > 0]
    if not recent:
        return None
    return RunProgress(
        length,
        step=int(recent[-1]["step"]),
        loss=statistics.fmean(row["loss"] for row in recent),
        # Every row covers the same number of steps: average the times, not the rates.
        pairs_per_s=statistics.harmonic_mean([row["pairs_per_s"] for row in recent]),
        data_wait=statistics.fmean(row["data_wait"] for row in recent),
    )


def progress_line(progress: RunProgress, validations: Sequence[dict[str, float]], score: str) -> str:
    """The line for the log; `score` names the metric that decides which checkpoint is the best."""
    step = f"step {progress.step:,}/{progress.length.num_steps:,}"
    return f"{step}  {status_text(progress, validations, score)}"


def status_text(progress: RunProgress, validations: Sequence[dict[str, float]], score: str) -> str:
    """The progress without the step, which the bar shows itself."""
    length = progress.length
    epoch, num_epochs = (
        steps * length.batch_size / length.num_items for steps in (progress.step, length.num_steps)
    )
    parts = [
        f"epoch {epoch:.1f}/{num_epochs:.3g}",
        f"loss {progress.loss:.3f}",
        f"{progress.pairs_per_s:,.0f} pairs/s",
    ]
    if progress.data_wait > _MIN_SHOWN_DATA_WAIT:
        parts.append(f"data wait {progress.data_wait:.0%}")
    if scores := validation_scores(validations):
        parts.append(f"val {score} {_score_text(scores)}")
    is_done = progress.step >= length.num_steps
    parts.append("all steps done" if is_done else f"{format_duration(progress.seconds_left)} left")
    return "  ".join(parts)


def format_duration(seconds: float) -> str:
    """A duration as 45 s, 24 min or 3 h 05 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def _score_text(scores: Mapping[int, float]) -> str:
    step, latest = list(scores.items())[-1]
    best, best_step = max((score, step) for step, score in scores.items())
    comparison = "best so far" if step == best_step else f"best {best:.3f} at step {best_step:,}"
    return f"{latest:.3f} ({comparison})"
