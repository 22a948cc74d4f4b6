"""The way from a start to its fine-tuned weights, by hand, and which point of it is chosen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from raysys.encoder.interpolation import (
    Point,
    blend,
    choose,
    read_interpolation,
    shares,
)
from raysys.errors import DamagedData
from tests.factories import tiny_bundle

START = {
    "weight": torch.tensor([0.0, 4.0]),
    "logit_scale": torch.tensor(math.log(10.0)),
    "ids": torch.tensor([1]),
}
TUNED = {
    "weight": torch.tensor([1.0, 2.0]),
    "logit_scale": torch.tensor(math.log(40.0)),
    "ids": torch.tensor([2]),
}


def points(*measured: tuple[float, float]) -> list[Point]:
    """Points evenly apart with these scores and guards."""
    places = zip(shares(len(measured)), measured, strict=True)
    return [Point(a=a, figures={"score": score}, guard=guard) for a, (score, guard) in places]


def chosen(found: list[Point], max_guard_drop: float) -> float:
    return choose(found, score="r@5", max_guard_drop=max_guard_drop).chosen


def test_eleven_points_lie_a_tenth_apart() -> None:
    assert shares(11) == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    assert shares(2) == [0.0, 1.0]


def test_a_quarter_of_the_way_by_hand() -> None:
    found = blend(START, TUNED, 0.25)
    assert found["weight"].tolist() == [0.25, 3.5]
    # In log space: 10 ** 0.75 * 40 ** 0.25 = 14.142
    assert float(found["logit_scale"].exp()) == pytest.approx(14.142, abs=1e-3)
    assert found["ids"].tolist() == [2]


def test_both_ends_are_the_very_weights() -> None:
    start = {"weight": torch.tensor([0.1, -0.0, 3e38])}
    tuned = {"weight": torch.tensor([0.3, 7e-42, -3e38])}
    assert blend(start, tuned, 0.0)["weight"] is start["weight"]
    assert blend(start, tuned, 1.0)["weight"] is tuned["weight"]


def test_the_best_score_is_chosen_among_those_that_keep_the_guard() -> None:
    # 5 % of 0.50 may be lost: 0.475 is the least. The best score of all has 0.40.
    measured = points((0.30, 0.50), (0.40, 0.48), (0.35, 0.475), (0.60, 0.40))
    found = choose(measured, score="r@5", max_guard_drop=0.05)
    assert found.chosen == pytest.approx(1 / 3)
    assert found.floor == pytest.approx(0.475)
    assert chosen(measured, 0.2) == 1.0


def test_of_equal_scores_the_nearest_to_fine_tuned_is_chosen() -> None:
    assert chosen(points((0.1, 0.5), (0.4, 0.5), (0.4, 0.5), (0.2, 0.5)), 0.0) == pytest.approx(2 / 3)


def test_a_start_that_knows_more_than_everything_after_it_is_kept() -> None:
    assert chosen(points((0.1, 0.5), (0.9, 0.49), (0.9, 0.3)), 0.0) == 0.0


def test_without_scores_the_guard_alone_decides() -> None:
    measured = [Point(a=a, figures={}, guard=guard) for a, guard in ((0.0, 0.5), (0.5, 0.5), (1.0, 0.1))]
    found = choose(measured, score="r@5", max_guard_drop=0.1)
    assert found.chosen == 0.5
    assert found.line() == "interpolated: a=0.5, no validation pairs, guard 0.500 of 0.500"


def test_the_choice_in_a_line() -> None:
    found = choose(points((0.36, 0.52), (0.44, 0.50), (0.43, 0.40)), score="ndcg@5", max_guard_drop=0.05)
    assert (
        found.line() == "interpolated: a=0.5, ndcg@5 0.440 (start 0.360, tuned 0.430), guard 0.500 of 0.520"
    )


def test_a_bundle_that_was_not_interpolated_is_named(tmp_path: Path) -> None:
    tiny_bundle(tmp_path, ["red cup", "blue hat"])
    with pytest.raises(DamagedData, match=f"{tmp_path}: its manifest has no interpolation .*; train again"):
        read_interpolation(str(tmp_path))
