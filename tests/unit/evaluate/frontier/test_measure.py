"""The frontier on small arrays: what PCA and codes lose, what is left out, and which rows are Pareto-optimal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from raysys.config.schema import AttributePrecisionConfig
from raysys.encoder.projection import Moments
from raysys.errors import InputError
from raysys.evaluate.frontier.judgement import Judgement
from raysys.evaluate.frontier.measure import LeftOut, Row, measure, pareto_optimal, sizes_to_compare
from raysys.evaluate.frontier.vectors import StoredVectors
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.items import EvaluationItems

NUM, DIMENSIONS, USED = 64, 32, 8
IDS = [f"i{row}" for row in range(NUM)]


def vectors() -> np.ndarray:
    """Unit vectors in `USED` of the dimensions, each with its opposite: their mean is 0."""
    drawn = np.random.default_rng(0).normal(size=(NUM // 2, USED))
    basis, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(DIMENSIONS, USED)))
    half = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)) @ basis.T
    return np.asarray(np.concatenate([half, -half]), np.float32)


def stored(num_training: int = NUM) -> StoredVectors:
    moments = Moments.of(vectors()[:num_training])
    return StoredVectors(vectors(), np.arange(20), moments, IDS, vectors(), NUM)


def judgement(*, has_log: bool = True, has_attributes: bool = True) -> Judgement:
    """Each of the first 20 items was shown with five random ones, and the nearest of them was tapped; the
    attribute is the sign of the first coordinate."""
    rng, given = np.random.default_rng(2), vectors()
    rows = np.stack([rng.choice(np.arange(20, NUM), 5, replace=False) for _ in range(20)])
    scores = np.einsum("qd,qsd->qs", given[:20], given[rows])
    log = InteractionLog(
        query_ids=IDS[:20],
        shown_ids=[[IDS[row] for row in shown] for shown in rows],
        tapped=scores == scores.max(axis=1, keepdims=True),
        shown=np.ones((20, 5), dtype=bool),
        simulated=True,
    )
    sign = np.array(["+" if value > 0 else "-" for value in given[:, 0]], dtype=object)
    items = EvaluationItems(
        IDS, list(range(NUM)), [""] * NUM, [b""] * NUM, np.array(["test"] * NUM), {"sign": sign}, IDS
    )
    protocol = AttributePrecisionConfig(match=("sign",), exclude_same=(), gallery_splits=("test",), k=3)
    return Judgement(
        items=items,
        attributes=items.attributes,
        log=log if has_log else None,
        protocol=protocol if has_attributes else None,
        absent={},
        seed=0,
    )


def measured(
    sizes: Sequence[int], given: StoredVectors | None = None, judged: Judgement | None = None
) -> tuple[dict[tuple[int, str], Row], list[LeftOut]]:
    rows, left_out = measure(
        given or stored(), judged or judgement(), sizes, k=5, whiten=False, samples=50, seed=0
    )
    return {(row.dimensions, row.encoding.name): row for row in rows}, left_out


def test_first_row_is_the_full_space_and_loses_nothing() -> None:
    rows, _ = measured([DIMENSIONS])
    (size, name), full = next(iter(rows.items()))
    assert (size, name, full.bytes_per_vector) == (DIMENSIONS, "fp32", 4 * DIMENSIONS)
    assert full.metrics["recall@5"].low == full.metrics["recall@5"].value == 1.0
    assert full.metrics["ndcg@5"].value == 1.0  # the nearest item was tapped
    assert 0.5 < full.metrics["p@3"].value <= 1.0
    assert full.changes == {}
    assert 0 < full.latency.p50_ms <= full.latency.p99_ms


def test_pca_loses_nothing_if_its_dimensions_are_all_that_are_used() -> None:
    rows, _ = measured([DIMENSIONS, USED])
    assert rows[USED, "fp32"].metrics["recall@5"].value == 1.0
    assert rows[USED, "fp32"].changes["ndcg@5"].value == 0.0
    assert rows[USED, "fp32"].changes["p@3"].value == 0.0
    assert rows[USED, "fp32"].bytes_per_vector == 4 * USED


def test_fewer_dimensions_and_shorter_codes_lose() -> None:
    rows, _ = measured([DIMENSIONS, USED, 2])
    recall = {key: row.metrics["recall@5"].value for key, row in rows.items()}
    assert recall[2, "fp32"] < 0.7 < recall[USED, "fp32"]
    assert recall[USED, "rabitq"] < recall[USED, "sq8"] <= recall[USED, "fp32"]
    change = rows[2, "fp32"].changes["ndcg@5"]
    assert change.low <= change.value < 0
    # The same taps: 1 - the relative change is the value itself, because the full space has nDCG@5 1.
    assert rows[2, "fp32"].metrics["ndcg@5"].value == pytest.approx(1 + change.value)


def test_row_that_cannot_be_trained_is_left_out_with_the_reason() -> None:
    rows, left_out = measured([DIMENSIONS])
    assert (DIMENSIONS, "pq") not in rows
    assert left_out == [
        LeftOut(DIMENSIONS, "pq", f"its code is trained with at least 624 items, found {NUM}")
    ]


@pytest.mark.parametrize("num_training", [0, 5])
def test_dimensions_that_the_training_split_is_too_small_for_are_left_out(num_training: int) -> None:
    rows, left_out = measured([DIMENSIONS, USED], stored(num_training))
    assert {size for size, _ in rows} == {DIMENSIONS}
    assert LeftOut(USED, None, f"the PCA is fitted on the train split, which has {num_training} vectors") in (
        left_out
    )


def test_without_log_and_attributes_only_recall_is_measured() -> None:
    rows, _ = measured([DIMENSIONS, 2], judged=judgement(has_log=False, has_attributes=False))
    assert {(*row.metrics, *row.changes) for row in rows.values()} == {("recall@5",)}


def test_query_is_not_its_own_neighbour_and_copies_are_all_correct() -> None:
    given = np.repeat(vectors()[:1], NUM, axis=0)  # every result is as near as any other
    copies = StoredVectors(given, np.arange(20), Moments.of(given), IDS, given, NUM)
    rows, left_out = measured([DIMENSIONS, 2], copies)
    assert rows[DIMENSIONS, "fp32"].metrics["recall@5"].value == 1.0
    assert LeftOut(
        2, None, f"the PCA is fitted on the train split, which has {NUM} vectors, all of them equal"
    ) in (left_out)


def test_default_sizes_are_powers_of_two_from_32() -> None:
    assert sizes_to_compare(None, 768) == [768, 512, 256, 128, 64, 32]
    assert sizes_to_compare(None, 128) == [128, 64, 32]
    assert sizes_to_compare(None, 24) == [24]
    assert sizes_to_compare((21, 64, 21), 64) == [64, 21]


def test_more_dimensions_than_the_full_space_are_refused() -> None:
    with pytest.raises(InputError) as caught:
        sizes_to_compare((64, 200), 128)
    assert str(caught.value) == (
        "frontier.dimensions: 200 is above the 128 dimensions of the vectors; set it to 128 or less, or to null"
    )


def test_pareto_optimal_rows_are_beaten_by_no_other() -> None:
    costs = np.array([4.0, 2.0, 2.0, 1.0, 3.0, 4.0])
    values = np.array([0.9, 0.8, 0.7, 0.5, 0.8, 0.9])
    # The third has the cost of the second and less value, the fifth costs more for the same value.
    assert pareto_optimal(costs, values).tolist() == [True, True, False, True, False, True]
