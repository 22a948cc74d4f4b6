"""Exact neighbours in blocks against the numpy oracle, and recall worked out by hand."""

import numpy as np
import pytest

from raysys.index.exact import exact_search
from raysys.index.neighbours import Neighbours, depth, exact_neighbours, merged, recall_per_query
from tests.unit.index.embedding_sets import unit_vectors


@pytest.mark.parametrize("block_rows", [1, 7, 1000])
@pytest.mark.parametrize(("num", "k"), [(50, 10), (3, 10), (1, 1)])
def test_blocks_give_what_the_oracle_gives(block_rows: int, num: int, k: int) -> None:
    vectors, queries = unit_vectors(num), unit_vectors(6, seed=1)
    starts = range(0, num, block_rows)
    blocks = [(np.arange(num)[at : at + block_rows] + 100, vectors[at : at + block_rows]) for at in starts]
    found = exact_neighbours(queries, blocks, k)
    scores, rows = exact_search(queries, vectors, k)
    assert (found.rows[:, : min(k, num)] == rows + 100).all()
    np.testing.assert_allclose(found.scores[:, : min(k, num)], scores, atol=1e-6)
    assert (found.rows[:, num:] == -1).all()


def test_results_over_different_rows_are_merged_by_score() -> None:
    first = Neighbours(np.array([[0.9, 0.2]], np.float32), np.array([[3, 1]]))
    second = Neighbours(np.array([[0.5, -np.inf]], np.float32), np.array([[7, -1]]))
    assert merged([first, second], 3).rows.tolist() == [[3, 7, 1]]


def exact_of(scores: list[float]) -> Neighbours:
    """Exact neighbours 0, 1, 2, .. with these scores, of one query."""
    padding = depth(2) - len(scores)
    values = np.array([scores + [-np.inf] * padding], np.float32)
    return Neighbours(values, np.array([[*range(len(scores)), *[-1] * padding]]))


def found_rows(*rows: int) -> Neighbours:
    return Neighbours(np.full((1, len(rows)), 0.1, np.float32), np.array([rows]))


def test_recall_counts_rows_as_near_as_the_exact_kth() -> None:
    exact = exact_of([0.9, 0.8, 0.8, 0.7])
    assert recall_per_query(exact, found_rows(0, 3), 2).tolist() == [0.5]
    assert recall_per_query(exact, found_rows(0, 2), 2).tolist() == [1.0]  # row 2 is as near as row 1
    assert recall_per_query(exact, found_rows(0, -1), 2).tolist() == [0.5]
    assert recall_per_query(exact, found_rows(5, 0), 2).tolist() == [0.5]


def test_codes_do_not_count_as_scores() -> None:
    # The index reports 0.1 for each row, whatever the cosine.
    assert recall_per_query(exact_of([0.9, 0.8]), found_rows(1, 0), 2).tolist() == [1.0]


def test_recall_of_fewer_rows_than_k_is_over_these_rows() -> None:
    assert recall_per_query(exact_of([0.9]), found_rows(0, -1), 2).tolist() == [1.0]


def test_result_with_the_score_of_more_copies_than_are_listed_is_correct() -> None:
    exact = exact_of([1.0] * depth(2))
    beyond = Neighbours(np.array([[0.999, 0.9]], np.float32), np.array([[500, 501]]))
    assert recall_per_query(exact, beyond, 2).tolist() == [0.5]
