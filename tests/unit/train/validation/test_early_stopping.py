"""Early stopping: when enough is enough, by hand, and how often rank 0 looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.tracking.metrics_log import record_validation
from raysys.train.validation.early_stopping import EarlyStopping, has_stopped_early, is_enough


def rows(*scores: float) -> list[dict[str, float]]:
    """Measurements of the start, step 0, and of checkpoints after it."""
    return [{"step": 10 * number, "val_score": score} for number, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "patience", "wanted"),
    [
        ((0.1, 0.2, 0.3, 0.4), 1, False),  # it still gets better
        ((0.1, 0.2, 0.3, 0.3), 1, True),  # equal is no better
        ((0.1, 0.2, 0.4, 0.3), 2, False),  # one more is allowed
        ((0.1, 0.2, 0.4, 0.3, 0.35), 2, True),  # better than the last, but not than the best
        ((0.1, 0.2, 0.4, 0.3, 0.5), 2, False),
        ((0.9, 0.1, 0.2, 0.3), 1, False),  # below the start, and rising
        ((0.9, 0.1), 1, False),  # nothing to compare with
        ((0.9,), 1, False),
        ((), 1, False),
    ],
)
def test_enough_by_hand(scores: tuple[float, ...], patience: int, wanted: bool) -> None:
    assert is_enough(rows(*scores), patience) is wanted


def record(run_uri: Path, *scores: float) -> None:
    for row in rows(*scores):
        record_validation(str(run_uri), int(row["step"]), {"val_score": row["val_score"]})


def test_a_run_without_patience_never_ends_early(tmp_path: Path) -> None:
    record(tmp_path, 0.1, 0.5, 0.4, 0.3, 0.2)
    assert not EarlyStopping(str(tmp_path), None).is_over()
    assert not has_stopped_early(str(tmp_path), None)
    assert has_stopped_early(str(tmp_path), 3)


def test_rank_0_looks_from_time_to_time(tmp_path: Path) -> None:
    now = 100.0
    patience = EarlyStopping(str(tmp_path), 1, clock=lambda: now)
    record(tmp_path, 0.1, 0.5)
    assert not patience.is_over()
    record(tmp_path, 0.1, 0.5, 0.4)
    now += 9.0
    assert not patience.is_over()  # it has not looked again
    now += 2.0
    assert patience.is_over()
