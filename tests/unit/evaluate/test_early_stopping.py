"""When a run stops early."""

from __future__ import annotations

import pytest

from raysys.evaluate.validation import has_stopped_early


def rows(*scores: float) -> list[dict[str, float]]:
    """Validations of the start, step 0, and of checkpoints after it."""
    return [{"step": 10 * number, "val_score": score} for number, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "patience", "has_stopped"),
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
def test_run_stops_once_patience_is_exhausted(
    scores: tuple[float, ...], patience: int, has_stopped: bool
) -> None:
    assert has_stopped_early(rows(*scores), 10 * len(scores), patience) is has_stopped


def test_run_without_patience_never_stops_early() -> None:
    assert not has_stopped_early(rows(0.1, 0.5, 0.4, 0.3, 0.2), 40, None)


def test_validation_of_a_checkpoint_that_was_not_saved_does_not_count() -> None:
    validations = rows(0.1, 0.5, 0.4)  # a kill after the last one left only the checkpoint of step 10
    assert not has_stopped_early(validations, 10, 1)
    assert has_stopped_early(validations, 20, 1)
