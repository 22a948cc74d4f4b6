"""Interpolation between a start and its fine-tuned weights, computed by hand, and the choice of a point."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from raysys.encoder.interpolation import (
    Interpolation,
    Point,
    alphas,
    choose_alpha,
    interpolate,
    read_interpolation,
)
from raysys.errors import DamagedData
from tests.factories import tiny_bundle

START = {
    "weight": torch.tensor([0.0, 4.0]),
    "logit_scale": torch.tensor(math.log(10.0)),
    "ids": torch.tensor([1]),
}
FINE_TUNED = {
    "weight": torch.tensor([1.0, 2.0]),
    "logit_scale": torch.tensor(math.log(40.0)),
    "ids": torch.tensor([2]),
}


def points(*measured: tuple[float, float]) -> list[Point]:
    """Evenly spaced points with these scores and retentions."""
    return [
        Point(alpha=alpha, metrics={"score": score}, retention=retention)
        for alpha, (score, retention) in zip(alphas(len(measured)), measured, strict=True)
    ]


def chosen_alpha(measured: list[Point], max_retention_drop: float) -> float:
    return choose_alpha(measured, score="r@5", max_retention_drop=max_retention_drop).alpha


def test_alphas_are_evenly_spaced_from_0_to_1() -> None:
    assert alphas(11) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert alphas(2) == [0.0, 1.0]


def test_weights_at_alpha_one_quarter_by_hand() -> None:
    weights = interpolate(START, FINE_TUNED, 0.25)
    assert weights["weight"].tolist() == [0.25, 3.5]
    # In log space: 10 ** 0.75 * 40 ** 0.25 = 14.142
    assert float(weights["logit_scale"].exp()) == pytest.approx(14.142, abs=1e-3)
    assert weights["ids"].tolist() == [2]


def test_weights_at_both_ends_are_exact() -> None:
    start = {"weight": torch.tensor([0.1, -0.0, 3e38])}
    fine_tuned = {"weight": torch.tensor([0.3, 7e-42, -3e38])}
    assert interpolate(start, fine_tuned, 0.0)["weight"] is start["weight"]
    assert interpolate(start, fine_tuned, 1.0)["weight"] is fine_tuned["weight"]


def test_best_score_with_enough_retention_is_chosen() -> None:
    # A drop of 5 % from 0.50 is allowed: the minimum is 0.475. The best score of all has 0.40.
    measured = points((0.30, 0.50), (0.40, 0.48), (0.35, 0.475), (0.60, 0.40))
    interpolation = choose_alpha(measured, score="r@5", max_retention_drop=0.05)
    assert interpolation.alpha == pytest.approx(1 / 3)
    assert interpolation.min_retention == pytest.approx(0.475)
    assert chosen_alpha(measured, 0.2) == 1.0


def test_equal_scores_choose_the_point_closest_to_fine_tuned() -> None:
    measured = points((0.1, 0.5), (0.4, 0.5), (0.4, 0.5), (0.2, 0.5))
    assert chosen_alpha(measured, 0.0) == pytest.approx(2 / 3)


def test_start_is_chosen_if_every_other_point_loses_retention() -> None:
    assert chosen_alpha(points((0.1, 0.5), (0.9, 0.49), (0.9, 0.3)), 0.0) == 0.0


def test_without_scores_only_retention_decides() -> None:
    measured = [
        Point(alpha=alpha, metrics={}, retention=retention)
        for alpha, retention in ((0.0, 0.5), (0.5, 0.5), (1.0, 0.1))
    ]
    interpolation = choose_alpha(measured, score="r@5", max_retention_drop=0.1)
    assert interpolation.alpha == 0.5
    assert interpolation.summary() == (
        "interpolated: alpha=0.5, no validation pairs, retention 0.500 (start 0.500)"
    )


def test_summary_compares_the_chosen_point_with_both_ends() -> None:
    measured = points((0.36, 0.52), (0.44, 0.50), (0.43, 0.40))
    assert choose_alpha(measured, score="ndcg@5", max_retention_drop=0.05).summary() == (
        "interpolated: alpha=0.5, ndcg@5 0.440 (start 0.360, fine-tuned 0.430), retention 0.500 (start 0.520)"
    )


def test_json_has_the_keys_of_the_report() -> None:
    interpolation = choose_alpha(points((0.1, 0.5), (0.2, 0.5)), score="r@5", max_retention_drop=0.5)
    stored = interpolation.model_dump(mode="json")
    assert stored == {
        "points": [
            {"a": 0.0, "figures": {"score": 0.1}, "guard": 0.5},
            {"a": 1.0, "figures": {"score": 0.2}, "guard": 0.5},
        ],
        "score": "r@5",
        "floor": 0.25,
        "chosen": 1.0,
    }
    assert Interpolation.model_validate(stored) == interpolation


def test_bundle_without_an_interpolation_is_refused(tmp_path: Path) -> None:
    tiny_bundle(tmp_path, ["red cup", "blue hat"])
    with pytest.raises(DamagedData, match=f"{tmp_path}: its manifest has no interpolation .*; train again"):
        read_interpolation(str(tmp_path))
