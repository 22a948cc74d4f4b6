"""When a run stops early, and how often rank 0 checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.tracking.metrics_log import record_validation
from raysys.train.validation.early_stopping import EarlyStopping, has_stopped_early, is_patience_exhausted


def rows(*scores: float) -> list[dict[str, float]]:
    """Validations of the start, step 0, and of checkpoints after it."""
    return [{"step": 10 * number, "val_score": score} for number, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "patience", "is_exhausted"),
    [
        ((0.1, 0.2, 0.3, 0.4), 1, False),  # still improving
        ((0.1, 0.2, 0.3, 0.3), 1, True),  # an equal score is no improvement
        ((0.1, 0.2, 0.4, 0.3), 2, False),  # one more checkpoint is allowed
        ((0.1, 0.2, 0.4, 0.3, 0.35), 2, True),  # higher than the last one, but not than the best
        ((0.1, 0.2, 0.4, 0.3, 0.5), 2, False),
        ((0.9, 0.1, 0.2, 0.3), 1, False),  # below the start, but rising
        ((0.9, 0.1), 1, False),  # no earlier checkpoint
        ((0.9,), 1, False),
        ((), 1, False),
    ],
)
def test_patience_is_exhausted_without_improvement(
    scores: tuple[float, ...], patience: int, is_exhausted: bool
) -> None:
    assert is_patience_exhausted(rows(*scores), patience) is is_exhausted


def record(run_uri: Path, *scores: float) -> None:
    for row in rows(*scores):
        record_validation(str(run_uri), int(row["step"]), {"val_score": row["val_score"]})


def test_run_without_patience_never_stops_early(tmp_path: Path) -> None:
    record(tmp_path, 0.1, 0.5, 0.4, 0.3, 0.2)
    assert not EarlyStopping(str(tmp_path), None).should_stop()
    assert not has_stopped_early(str(tmp_path), None)
    assert has_stopped_early(str(tmp_path), 3)


def test_validations_are_read_every_ten_seconds(tmp_path: Path) -> None:
    now = 100.0
    early_stopping = EarlyStopping(str(tmp_path), 1, clock=lambda: now)
    record(tmp_path, 0.1, 0.5)
    assert not early_stopping.should_stop()
    record(tmp_path, 0.1, 0.5, 0.4)
    now += 9.0
    assert not early_stopping.should_stop()  # not read again yet
    now += 2.0
    assert early_stopping.should_stop()
