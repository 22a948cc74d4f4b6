"""Exact search and recall against values worked out by hand."""

import numpy as np
import pytest

from raysys.index import exact
from raysys.index.exact import exact_search, hits


def test_nearest_vectors_come_first_with_their_cosines() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    scores, rows = exact_search(np.array([[1, 0], [0, 1]], np.float32), vectors, k=2)
    assert rows.tolist() == [[0, 2], [1, 2]]
    np.testing.assert_allclose(scores, [[1.0, 0.6], [1.0, 0.8]], atol=1e-7)


def test_equal_scores_are_in_order_of_row() -> None:
    vectors = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    _, rows = exact_search(vectors[:1], vectors, k=4)
    assert rows.tolist() == [[0, 1, 2, 3]]
    _, rows = exact_search(vectors[1:2], vectors, k=2)
    assert rows.tolist() == [[1, 2]]


def test_k_above_the_number_of_rows_returns_all_rows() -> None:
    scores, rows = exact_search(np.eye(1, 3, dtype=np.float32), np.eye(3, dtype=np.float32), k=10)
    assert rows.tolist() == [[0, 1, 2]]
    assert scores.shape == (1, 3)


def test_search_without_vectors_returns_empty_results() -> None:
    scores, rows = exact_search(np.eye(2, 3, dtype=np.float32), np.empty((0, 3), np.float32), k=5)
    assert scores.shape == rows.shape == (2, 0)


@pytest.mark.parametrize("block_rows", [1, 3, 100])
def test_block_size_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    rng = np.random.default_rng(0)
    queries, vectors = rng.normal(size=(7, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    monkeypatch.setattr(exact, "_BLOCK_ROWS", block_rows)
    scores, rows = exact_search(queries, vectors, k=3)
    expected = [sorted(range(9), key=lambda row: -float(query @ vectors[row]))[:3] for query in queries]
    assert rows.tolist() == expected
    np.testing.assert_allclose(scores[6], [queries[6] @ vectors[row] for row in expected[6]], atol=1e-6)


def scores(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_hit_is_a_result_as_near_as_the_exact_kth_neighbour() -> None:
    # The last result of the second query (0.1) is below its exact second neighbour (0.6).
    results, exact_results = scores([0.9, 0.8], [0.7, 0.1]), scores([0.9, 0.8], [0.7, 0.6])
    assert hits(results, exact_results).tolist() == [[True, True], [True, False]]


def test_padding_of_a_short_result_is_not_a_hit() -> None:
    # FAISS pads short results with the lowest float.
    assert hits(scores([0.5, -3.4e38]), scores([0.5, 0.4])).tolist() == [[True, False]]
