"""Ranking metrics against values computed by hand, and nDCG against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from raysys.evaluate.metrics import hit_at, ndcg_at, precision_at, rank_by


def test_gain_at_rank_three_is_discounted_by_half() -> None:
    # 1 / log2(3 + 1) = 0.5, and the ideal order has 1 / log2(2) = 1.
    assert ndcg_at(5, np.array([[0.0, 0.0, 1.0, 0.0]])) == pytest.approx([0.5])


def test_ndcg_divides_by_the_ideal_order_of_the_same_gains() -> None:
    # dcg = 1 + 1/log2(4) = 1.5; ideal = 1 + 1/log2(3) = 1.630930
    assert ndcg_at(3, np.array([[1, 0, 1]])) == pytest.approx([1.5 / 1.6309297535714573])


def test_ideal_order_is_cut_at_k() -> None:
    assert ndcg_at(2, np.array([[True, True, True, True]])) == pytest.approx([1.0])


def test_gain_after_rank_k_scores_zero() -> None:
    assert ndcg_at(2, np.array([[0.0, 0.0, 1.0]])) == pytest.approx([0.0])


def test_query_without_gains_scores_zero() -> None:
    gains = np.zeros((1, 4))
    assert ndcg_at(5, gains) == hit_at(5, gains) == precision_at(5, gains) == pytest.approx([0.0])


@pytest.mark.parametrize("k", [1, 3, 5, 12, 40])
def test_graded_ndcg_agrees_with_scikit_learn(k: int) -> None:
    gains = np.random.default_rng(0).integers(0, 4, size=(50, 12)).astype(float)
    in_given_order = -np.arange(12.0)
    expected = [ndcg_score([row], [in_given_order], k=k) for row in gains]
    assert ndcg_at(k, gains) == pytest.approx(expected)


def test_hit_and_precision_use_the_first_k_ranks() -> None:
    gains = np.array([[0.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    assert hit_at(1, gains).tolist() == [0.0, 0.0]
    assert hit_at(3, gains).tolist() == [1.0, 0.0]
    assert precision_at(4, gains).tolist() == [0.75, 0.25]


def test_precision_of_a_row_shorter_than_k_is_divided_by_k() -> None:
    assert precision_at(5, np.array([[1.0, 1.0]])).tolist() == [0.4]


def test_k_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="k is 0; it counts ranks from 1"):
        hit_at(0, np.ones((1, 1)))


def test_ranking_is_by_descending_score_with_nan_and_padding_last() -> None:
    scores = np.array([[0.1, np.nan, 0.9, 5.0]])
    gains = np.array([[1.0, 2.0, 3.0, 9.0]])
    shown = np.array([[True, True, True, False]])
    assert rank_by(scores, gains, shown, seed=0).tolist() == [[3.0, 1.0, 2.0, 0.0]]


def test_constant_scores_do_not_inherit_the_logged_order() -> None:
    gains = np.zeros((4000, 4))
    gains[:, 0] = 1.0  # the first shown item was always tapped
    ranked = rank_by(np.ones_like(gains), gains, np.ones_like(gains, dtype=bool), seed=3)
    assert hit_at(1, ranked).mean() == pytest.approx(0.25, abs=0.03)  # 4 standard errors


def test_order_of_ties_is_independent_of_taps_from_the_same_seed() -> None:
    gains = (np.random.default_rng(5).random((4000, 4)) < 0.25).astype(float)
    ranked = rank_by(np.zeros_like(gains), gains, np.ones_like(gains, dtype=bool), seed=5)
    assert hit_at(1, ranked).mean() == pytest.approx(0.25, abs=0.03)


def test_same_seed_gives_the_same_order_of_ties() -> None:
    gains, scores, shown = np.arange(60.0).reshape(6, 10), np.zeros((6, 10)), np.ones((6, 10), dtype=bool)
    first, second, other = (rank_by(scores, gains, shown, seed=seed) for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()
