"""The vectors of `evaluate.baselines`, and the items that all of them have.

All systems are compared on the same items: those that a baseline lacks are left out for every system, up to
`evaluate.max_missing_fraction`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.artifacts.vectors import read_vectors
from raysys.config.schema import EvaluateConfig
from raysys.errors import InputError
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.items import EvaluationItems


@dataclass(frozen=True)
class Baselines:
    """The items that every baseline has, their vectors by each baseline, and the items that one lacks."""

    items: EvaluationItems
    vectors: Mapping[str, Float32[ndarray, "items dim"]]
    """Name of the baseline -> L2-normalised vectors in the order of `items`."""
    missing_ids: frozenset[str]
    """Items of the evaluation that a baseline lacks."""
    warnings: list[str]

    def restrict(self, log: InteractionLog) -> tuple[InteractionLog, list[str]]:
        """The log without the items that a baseline lacks, and a warning if that changes it."""
        if not self.missing_ids:
            return log, []
        restricted = log.without_items(self.missing_ids)
        left_out = len(log.query_ids) - len(restricted.query_ids)
        num_shown = int(log.shown.sum() - restricted.shown.sum())
        if not num_shown:
            return log, []
        return restricted, [
            f"of {len(log.query_ids)} impressions with a tap, {left_out} are left out for all systems, "
            f"and of {int(log.shown.sum())} shown items {num_shown}: a baseline lacks their vectors."
        ]


def read_baselines(section: EvaluateConfig, items: EvaluationItems) -> Baselines:
    """Read the vectors of every baseline for the items of the evaluation.

    Raises: InputError if a baseline lacks more than `max_missing_fraction` of the items, or has vectors that
    are not usable (`read_vectors`).
    """
    baselines: dict[str, tuple[dict[str, int], Float32[ndarray, "n dim"]]] = {}
    missing_ids: set[str] = set()
    warnings = []
    wanted = set(items.item_ids)
    for baseline in section.baselines:
        found_ids, found = read_vectors(baseline.embeddings, wanted)
        item_id_to_row = {item_id: row for row, item_id in enumerate(found_ids)}
        missing = [item_id for item_id in items.item_ids if item_id not in item_id_to_row]
        if missing:
            counts = f"{len(missing)} of {len(items.item_ids)} items of the evaluation (first '{missing[0]}')"
            if len(missing) == len(items.item_ids) or (
                len(missing) > section.max_missing_fraction * len(items.item_ids)
            ):
                raise InputError(
                    f"evaluate.baselines: {baseline.name}: {baseline.embeddings} has no vectors of {counts}, "
                    f"above evaluate.max_missing_fraction {section.max_missing_fraction:g}; add them"
                )
            warnings.append(
                f"{baseline.name} has no vectors of {counts}; all systems are compared without them."
            )
        baselines[baseline.name] = item_id_to_row, found
        missing_ids.update(missing)
    rows = [row for row, item_id in enumerate(items.item_ids) if item_id not in missing_ids]
    if not rows:
        raise InputError("evaluate.baselines: no item has vectors of all baselines; add them")
    common = items.select_rows(rows) if missing_ids else items
    vectors = {
        name: np.ascontiguousarray(found[[item_id_to_row[item_id] for item_id in common.item_ids]])
        for name, (item_id_to_row, found) in baselines.items()
    }
    return Baselines(common, vectors, frozenset(missing_ids), warnings)
