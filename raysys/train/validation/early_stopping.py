"""Early stopping: end a run when the validation scores of its checkpoints no longer improve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def has_stopped_early(validations: Iterable[Mapping[str, float]], step: int, patience: int | None) -> bool:
    """Whether a run whose last checkpoint is that of `step` is finished, however many steps are left.

    It is if none of the last `patience` checkpoints (`train.validation.patience`; None: never) scored higher
    than the best one before them. `validations` are in order. Ignored are the start, because scores may fall
    below it and then rise, and those after `step`, whose checkpoints were not saved before a kill.
    """
    scores = [row["val_score"] for row in validations if 0 < row["step"] <= step]
    if patience is None or len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience])
