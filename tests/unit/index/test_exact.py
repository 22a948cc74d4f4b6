"""Exact search and recall by hand."""

import numpy as np
import pytest

from raysys.index import exact
from raysys.index.exact import exact_search, recall


def test_nearest_come_first_with_their_cosines() -> None:
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    scores, rows = exact_search(np.array([[1, 0], [0, 1]], np.float32), vectors, k=2)
    assert rows.tolist() == [[0, 2], [1, 2]]
    np.testing.assert_allclose(scores, [[1.0, 0.6], [1.0, 0.8]], atol=1e-7)


def test_equal_scores_come_in_order_of_row() -> None:
    vectors = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    _, rows = exact_search(vectors[:1], vectors, k=4)
    assert rows.tolist() == [[0, 1, 2, 3]]
    _, rows = exact_search(vectors[1:2], vectors, k=2)
    assert rows.tolist() == [[1, 2]]


def test_k_beyond_the_rows_gives_all_rows() -> None:
    scores, rows = exact_search(np.eye(1, 3, dtype=np.float32), np.eye(3, dtype=np.float32), k=10)
    assert rows.tolist() == [[0, 1, 2]]
    assert scores.shape == (1, 3)


def test_nothing_to_search_gives_nothing() -> None:
    scores, rows = exact_search(np.eye(2, 3, dtype=np.float32), np.empty((0, 3), np.float32), k=5)
    assert scores.shape == rows.shape == (2, 0)


@pytest.mark.parametrize("block_rows", [1, 3, 100])
def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch, block_rows: int) -> None:
    rng = np.random.default_rng(0)
    queries, vectors = rng.normal(size=(7, 4)).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    monkeypatch.setattr(exact, "_BLOCK_ROWS", block_rows)
    scores, rows = exact_search(queries, vectors, k=3)
    expected = [sorted(range(9), key=lambda row: -float(query @ vectors[row]))[:3] for query in queries]
    assert rows.tolist() == expected
    np.testing.assert_allclose(scores[6], [queries[6] @ vectors[row] for row in expected[6]], atol=1e-6)


def scores(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_recall_is_the_share_of_true_neighbours_found() -> None:
    # The second query's last find is further than its true second neighbour: 3 of 4.
    found, truth = scores([0.9, 0.8], [0.7, 0.1]), scores([0.9, 0.8], [0.7, 0.6])
    assert recall(found, truth) == 0.75


def test_an_equally_near_copy_is_a_hit() -> None:
    assert recall(scores([1.0]), scores([1.0])) == 1.0


def test_padding_of_an_index_is_no_hit() -> None:
    # FAISS pads with the lowest float.
    assert recall(scores([0.5, -3.4e38]), scores([0.5, 0.4])) == 0.5


def test_recall_of_no_query_is_zero() -> None:
    assert recall(np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)) == 0.0
