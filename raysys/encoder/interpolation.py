"""WiSE-FT: interpolation between the weights of a start and of the model fine-tuned from it.

Fine-tuning improves a model in its domain and makes it worse outside (Wortsman et al. 2021). Models on the
straight line between both sets of weights can keep most of the improvement and lose little elsewhere. This
module defines the line and the rule that chooses a point of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pydantic
import torch
from pydantic import BaseModel, ConfigDict, Field

from raysys import artifacts
from raysys.artifacts import EncoderBundleManifest
from raysys.errors import DamagedData

SCORE = "score"  # the metric that selects checkpoints and points, beside its own name


class Point(BaseModel):
    """Metrics of the model at one point of the line.

    The aliases are its keys in manifests and in `report.json`, a contract with programs that read them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    alpha: float = Field(alias="a")
    """0 is the start, 1 the fine-tuned model."""
    metrics: dict[str, float] = Field(alias="figures")
    """On the validation split, including `score`; empty if there are no validation pairs."""
    retention: float = Field(alias="guard")
    """R@5 of the retention check, outside the domain."""


class Interpolation(BaseModel):
    """All points of a line, in order of `alpha`, and the chosen one; the aliases are its keys in JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    points: list[Point]
    score: str
    """The metric behind `score`: `ndcg@5`, `r@5`, .."""
    min_retention: float = Field(alias="floor")
    """Points with less retention are not eligible."""
    alpha: float = Field(alias="chosen")
    """Of the chosen point."""

    def at(self, alpha: float) -> Point:
        """The point of an `alpha` that was measured."""
        return next(point for point in self.points if point.alpha == alpha)

    def summary(self) -> str:
        """The choice in one line, for a terminal."""
        start, chosen, fine_tuned = self.points[0], self.at(self.alpha), self.points[-1]
        scores = (
            f"{self.score} {chosen.metrics[SCORE]:.3f} "
            f"(start {start.metrics[SCORE]:.3f}, fine-tuned {fine_tuned.metrics[SCORE]:.3f}), "
            if chosen.metrics
            else "no validation pairs, "
        )
        retention = f"retention {chosen.retention:.3f} (start {start.retention:.3f})"
        return f"interpolated: alpha={self.alpha:g}, {scores}{retention}"


def alphas(num_points: int) -> list[float]:
    """`num_points` evenly spaced values from 0 to 1, both included."""
    return [number / (num_points - 1) for number in range(num_points)]


def interpolate(
    start: Mapping[str, torch.Tensor], fine_tuned: Mapping[str, torch.Tensor], alpha: float
) -> dict[str, torch.Tensor]:
    """The weights (1 - alpha) * start + alpha * fine_tuned.

    At 0 and 1 these are exactly the weights of that end. Tensors of integers are those of `fine_tuned`. The
    scale of the loss is interpolated as it is stored, as a logarithm.
    """
    if alpha in (0.0, 1.0):
        return dict(fine_tuned if alpha else start)
    return {
        name: torch.lerp(start[name], value, alpha) if value.is_floating_point() else value
        for name, value in fine_tuned.items()
    }


def choose_alpha(points: Sequence[Point], *, score: str, max_retention_drop: float) -> Interpolation:
    """The eligible point with the best score; of equal scores, the one closest to the fine-tuned weights.

    A point is eligible if its retention is at most the fraction `max_retention_drop` below the start's. The
    start always is. Without scores all points count as equal.
    """
    min_retention = points[0].retention * (1.0 - max_retention_drop)
    eligible = [point for point in points if point.retention >= min_retention]
    best = max(eligible, key=lambda point: (point.metrics.get(SCORE, 0.0), point.alpha))
    return Interpolation(points=list(points), score=score, min_retention=min_retention, alpha=best.alpha)


def read_interpolation(uri: str) -> Interpolation:
    """The interpolation in the manifest of the bundle at `uri`.

    Raises: DamagedData if its manifest has none.
    """
    manifest = artifacts.open_artifact(uri, EncoderBundleManifest)
    try:
        return Interpolation.model_validate(manifest.interpolation)
    except pydantic.ValidationError as error:
        reason = " ".join(str(error).split())[:120]
        raise DamagedData(f"{uri}: its manifest has no interpolation ({reason}); train again") from error
