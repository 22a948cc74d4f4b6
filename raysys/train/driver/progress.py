"""A run at a glance: where it stands, how fast it goes, when it ends, as one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raysys.train.run.registry import SCORE

_RECENT_ROWS = 10
_WORTH_SAYING = 0.03  # of the time spent waiting for data


@dataclass(frozen=True)
class Length:
    """How long a run is."""

    num_steps: int
    batch_size: int
    num_items: int
    """Pairs in an epoch."""


@dataclass(frozen=True)
class Standing:
    """What the newest figures of a run come to; rates and loss are those of the last ten."""

    length: Length
    step: int
    loss: float
    pairs_per_s: float
    data_wait: float

    @property
    def seconds_left(self) -> float:
        """Until the last step, if it goes on like this."""
        return (self.length.num_steps - self.step) * self.length.batch_size / self.pairs_per_s


def standing(length: Length, rows: Sequence[dict[str, float]]) -> Standing | None:
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
