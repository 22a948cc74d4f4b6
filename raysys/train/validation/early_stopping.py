"""Early stopping: end a run when the validation scores of its checkpoints no longer improve."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from raysys.tracking.metrics_log import read_validations

_CHECK_INTERVAL_S = 10.0  # validations are minutes apart, and reading them from an object store is slow


class EarlyStopping:
    """Rank 0's check of the validation scores; it reads them every ten seconds at most.

    `patience` is `train.validation.patience`; None disables it.
    """

    def __init__(
        self, run_uri: str, patience: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run_uri, self._patience, self._clock = run_uri, patience, clock
        self._next_check_s = clock()

    def should_stop(self) -> bool:
        """Whether training should end here; False between two checks."""
        if self._patience is None or self._clock() < self._next_check_s:
            return False
        self._next_check_s = self._clock() + _CHECK_INTERVAL_S
        return has_stopped_early(self._run_uri, self._patience)


def has_stopped_early(run_uri: str, patience: int | None) -> bool:
    """Whether a run is finished by its validation scores, however many steps are left."""
    return patience is not None and is_patience_exhausted(read_validations(run_uri), patience)


def is_patience_exhausted(validations: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether none of the last `patience` checkpoints scored higher than the best one before them.

    `validations` are in the order of their steps. The start, step 0, is ignored: scores may fall below it
    early in training and then rise.
    """
    scores = [row["val_score"] for row in validations if row["step"] > 0]
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])
