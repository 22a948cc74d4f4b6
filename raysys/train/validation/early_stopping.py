"""Early stopping: when the checkpoints that were measured beside the training get no better any more."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from raysys.tracking.metrics_log import read_validations

_LOOK_EVERY_S = 10.0  # measurements are minutes apart, and a look into a store takes a while


class EarlyStopping:
    """Rank 0's eye on the measurements of its run; it looks from time to time."""

    def __init__(
        self, run_uri: str, patience: int | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run_uri, self._patience, self._clock = run_uri, patience, clock
        self._next_look_s = clock()

    def is_over(self) -> bool:
        """Whether training should end here; False until the next look."""
        if self._patience is None or self._clock() < self._next_look_s:
            return False
        self._next_look_s = self._clock() + _LOOK_EVERY_S
        return has_stopped_early(self._run_uri, self._patience)


def has_stopped_early(run_uri: str, patience: int | None) -> bool:
    """Whether a run's measurements say that it is finished, whatever steps are left."""
    return patience is not None and is_enough(read_validations(run_uri), patience)


def is_enough(validations: Sequence[Mapping[str, float]], patience: int) -> bool:
    """Whether the last `patience` checkpoints of these, in the order of their steps, all scored no better
    than one before them. The start, step 0, is no checkpoint: training may get worse before it gets better.
    """
    scores = [row["val_score"] for row in validations if row["step"] > 0]
    return len(scores) > patience and max(scores[-patience:]) <= max(scores[:-patience])
