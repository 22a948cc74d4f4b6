"""WiSE-FT: weights on the way from a start to what was fine-tuned from it (Wortsman et al. 2021).

Fine-tuning gains in its domain and forgets outside it. On the straight line between both sets of weights
lie models that keep most of the one and lose little of the other; here is the line, and the rule by which
a point of it is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pydantic
import torch
from pydantic import BaseModel, ConfigDict

from raysys import artifacts
from raysys.artifacts import EncoderBundleManifest
from raysys.errors import DamagedData

SCORE = "score"


class Point(BaseModel):
    """A model on the line and what was measured of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    a: float
    """0 is the start, 1 what was fine-tuned."""
    figures: dict[str, float]
    """On the validation split, `score` among them; empty if nothing could be measured there."""
    guard: float
    """Out of the domain."""


class Interpolation(BaseModel):
    """All points of a line, by rising `a`, and which of them was chosen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    points: list[Point]
    score: str
    """What `score` is: `ndcg@5`, `r@5`, .."""
    floor: float
    """Points whose guard is below this were not to be chosen."""
    chosen: float

    def at(self, a: float) -> Point:
        """The point of an `a` that was measured."""
        return next(point for point in self.points if point.a == a)

    def line(self) -> str:
        """The choice in words, for a terminal."""
        start, chosen, tuned = self.points[0], self.at(self.chosen), self.points[-1]
        scores = (
            f"{self.score} {chosen.figures[SCORE]:.3f} "
            f"(start {start.figures[SCORE]:.3f}, tuned {tuned.figures[SCORE]:.3f}), "
            if chosen.figures
            else "no validation pairs, "
        )
        return f"interpolated: a={self.chosen:g}, {scores}guard {chosen.guard:.3f} of {start.guard:.3f}"


def shares(num_points: int) -> list[float]:
    """So many values of `a` from 0 to 1, both included, evenly apart."""
    return [place / (num_points - 1) for place in range(num_points)]


def blend(
    start: Mapping[str, torch.Tensor], tuned: Mapping[str, torch.Tensor], a: float
) -> dict[str, torch.Tensor]:
    """The weights (1 - a) * start + a * tuned; those of either end exactly, and `tuned`'s where no numbers.

    Scale and bias of the loss are weights like others: the scale is stored as its logarithm.
    """
    if a in (0.0, 1.0):
        return dict(tuned if a else start)
    return {
        name: torch.lerp(start[name], value, a) if value.is_floating_point() else value
        for name, value in tuned.items()
    }


def choose(points: Sequence[Point], *, score: str, max_guard_drop: float) -> Interpolation:
    """The best score among the points that keep the guard; of equal ones the nearest to fine-tuned.

    A point keeps it if it loses at most the share `max_guard_drop` of the start's figure; the start always
    does. Without scores all are equal.
    """
    floor = points[0].guard * (1.0 - max_guard_drop)
    allowed = [point for point in points if point.guard >= floor]
    best = max(allowed, key=lambda point: (point.figures.get(SCORE, 0.0), point.a))
    return Interpolation(points=list(points), score=score, floor=floor, chosen=best.a)


def read_interpolation(uri: str) -> Interpolation:
    """How the weights of the bundle at `uri` were chosen.

    Raises: DamagedData if its manifest does not say so.
    """
    manifest = artifacts.open_artifact(uri, EncoderBundleManifest)
    try:
        return Interpolation.model_validate(manifest.interpolation)
    except pydantic.ValidationError as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedData(f"{uri}: its manifest has no interpolation ({reason}); train again") from error
