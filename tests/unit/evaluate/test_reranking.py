"""Re-ranking against values computed by hand."""

import numpy as np
import pytest

from raysys.errors import InputError
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.reranking import (
    SystemScores,
    cosine_scores,
    evaluate_systems,
    evaluate_vectors,
    per_query_metrics,
)
from raysys.evaluate.significance import Interval

# Query p was shown a, b, c, d (c and d tapped); query q was shown a, b (a tapped).
LOG = InteractionLog(
    query_ids=["p", "q"],
    shown_ids=[["a", "b", "c", "d"], ["a", "b"]],
    tapped=np.array([[False, False, True, True], [True, False, False, False]]),
    shown=np.array([[True, True, True, True], [True, True, False, False]]),
    simulated=False,
)
ITEM_IDS = ["p", "q", "a", "b", "c", "d"]
ANGLES = np.radians([0, 90, 60, 45, 30, 90])
VECTORS = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1).astype(np.float32)
NDCG_OF_C_B_A_D = (1 + 1 / np.log2(5)) / (1 + 1 / np.log2(3))  # taps at ranks 1 and 4, ideal 1 and 2


def test_cosine_of_query_and_shown_items() -> None:
    root_2, root_3 = np.sqrt([2, 3])
    expected = [[1 / 2, root_2 / 2, root_3 / 2, 0], [root_3 / 2, root_2 / 2, np.nan, np.nan]]
    np.testing.assert_allclose(cosine_scores(ITEM_IDS, VECTORS, LOG), expected, atol=1e-6)


def test_cosine_is_nan_without_a_vector() -> None:
    # Without vectors of q and b: no score in the row of q, and none of b in that of p.
    rows = [0, 2, 4, 5]
    scores = cosine_scores([ITEM_IDS[row] for row in rows], VECTORS[rows], LOG)
    assert np.isnan(scores).tolist() == [[False, True, False, False], [True, True, True, True]]


def test_vectors_are_evaluated_by_the_order_of_their_cosines() -> None:
    # p ranks c, b, a, d: its first item is tapped. q ranks a, b: nDCG 1. Both queries have a hit at rank 1.
    result = evaluate_vectors(ITEM_IDS, VECTORS, LOG, bootstrap_samples=200, seed=0)
    assert list(result) == ["ndcg@5", "hit@1", "hit@3"]
    assert result["ndcg@5"].value == pytest.approx((NDCG_OF_C_B_A_D + 1) / 2)
    # Every resample of two queries has a mean between the two values.
    assert (result["ndcg@5"].low, result["ndcg@5"].high) == pytest.approx((NDCG_OF_C_B_A_D, 1))
    assert result["hit@1"] == result["hit@3"] == Interval(1.0, 1.0, 1.0)


def test_shown_item_without_a_vector_is_ranked_last() -> None:
    # Without c, p ranks b, a, d, c: taps at ranks 3 and 4, with gains 1 / log2(4) and 1 / log2(5).
    rows = [0, 1, 2, 3, 5]
    item_ids = [ITEM_IDS[row] for row in rows]
    result = evaluate_vectors(item_ids, VECTORS[rows], LOG, bootstrap_samples=20, seed=0)
    ndcg_of_p = (0.5 + 1 / np.log2(5)) / (1 + 1 / np.log2(3))
    assert result["ndcg@5"].value == pytest.approx((ndcg_of_p + 1) / 2)
    assert result["hit@1"].value == 0.5  # only q
    assert result["hit@3"].value == 1.0  # d is at rank 3


def test_impression_without_a_query_vector_has_a_random_order() -> None:
    num_queries = 2000
    log = InteractionLog(
        query_ids=["q"] + ["unknown"] * num_queries,
        shown_ids=[["a", "b", "c", "d"]] * (num_queries + 1),
        tapped=np.array([[True, False, False, False]] * (num_queries + 1)),
        shown=np.ones((num_queries + 1, 4), dtype=bool),
        simulated=False,
    )
    result = evaluate_vectors(ITEM_IDS, VECTORS, log, bootstrap_samples=20, seed=0)
    assert result["hit@1"].value == pytest.approx(1 / 4, abs=0.04)  # 4 standard errors


def test_unequal_numbers_of_ids_and_vectors_are_an_error() -> None:
    with pytest.raises(ValueError, match="6 item ids, but 5 vectors"):
        evaluate_vectors(ITEM_IDS, VECTORS[:5], LOG, bootstrap_samples=10, seed=0)


def test_vectors_of_other_items_are_an_error() -> None:
    with pytest.raises(InputError) as caught:
        evaluate_vectors(["x", "y"], VECTORS[:2], LOG, bootstrap_samples=10, seed=0)
    assert str(caught.value) == (
        "the interaction log: none of 2 impressions has vectors for its query and a shown item; "
        "embed the items that the log names"
    )


def test_systems_and_vectors_have_the_same_metrics() -> None:
    scores = cosine_scores(ITEM_IDS, VECTORS, LOG)
    (system,) = evaluate_systems(
        [SystemScores("zero_shot", scores, VECTORS)], LOG, bootstrap_samples=50, seed=3
    )
    assert system.metrics == evaluate_vectors(ITEM_IDS, VECTORS, LOG, bootstrap_samples=50, seed=3)


def test_lift_is_relative_to_zero_shot_by_default() -> None:
    # Taps of p are at ranks 3 and 4 by `worst`, at 1 and 2 by `best`; q has its tap at rank 2 and 1.
    worst = np.array([[4.0, 3.0, 2.0, 1.0], [1.0, 2.0, np.nan, np.nan]])
    best = -worst
    systems = [
        SystemScores("random", best, None),
        SystemScores("zero_shot", worst, None),
        SystemScores("wise_ft", None, None, "train.method is full"),
        SystemScores("fine_tuned", best, None),
    ]
    results = evaluate_systems(systems, LOG, bootstrap_samples=20, seed=0)
    assert [result.name for result in results] == ["random", "zero_shot", "wise_ft", "fine_tuned"]
    zero_shot = ((0.5 + 1 / np.log2(5)) / (1 + 1 / np.log2(3)) + 1 / np.log2(3)) / 2
    assert results[1].metrics["ndcg@5"].value == pytest.approx(zero_shot)
    assert [result.lift is None for result in results] == [False, True, True, False]
    assert results[3].lift is not None
    assert results[3].lift.value == pytest.approx(1 / zero_shot - 1)


def test_unavailable_system_has_a_reason_and_no_metrics() -> None:
    (result,) = evaluate_systems(
        [SystemScores("mobilenet_v2", None, None, "no network")], LOG, bootstrap_samples=20, seed=0
    )
    assert (result.available, result.reason, result.metrics, result.lift) == (False, "no network", {}, None)


def test_per_query_metrics_have_one_value_for_each_impression() -> None:
    metrics = per_query_metrics(cosine_scores(ITEM_IDS, VECTORS, LOG), LOG, seed=0)
    assert metrics["ndcg@5"].tolist() == pytest.approx([NDCG_OF_C_B_A_D, 1.0])
    assert (metrics["hit@1"].tolist(), metrics["hit@3"].tolist()) == ([1.0, 1.0], [1.0, 1.0])
