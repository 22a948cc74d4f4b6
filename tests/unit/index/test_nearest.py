"""Every kind of index is held to exact search in numpy, over random catalogues, filters and sizes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import faiss
import numpy as np
import pytest
from numpy import ndarray

from raysys.config.schema import IndexConfig
from raysys.index import copies
from raysys.index.exact import exact_search
from raysys.index.filtered import search_passing
from raysys.index.kinds import Recipe, recipe_of, trained_index
from raysys.index.nearest import exact_nearest, nearest
from raysys.index.neighbours import Neighbours, depth, recall_per_query
from raysys.index.passing import Passing
from raysys.index.stored import StoredVectors

KINDS = ("exact", "ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw", "hnsw_sq8")
SECTION = IndexConfig(num_lists=16, nprobe=4, hnsw_m=16, ef_search=16, k_factor=32)
SIZES = (1, 2, 5, 60, 1000)  # kinds that are trained are built as exact below 1,000
SHARES = (0.0, 0.02, 0.1, 0.3, 0.5, 0.9, 1.0)
COPIES = "ivf_sq8 in copies"  # every filter is searched in one
MIN_RECALL = 0.9  # over all queries of a kind: some 10,000
DIMENSIONS = 16


def draw(num: int, rng: np.random.Generator) -> ndarray:
    """Unit vectors in clusters; every fifth is a copy of another."""
    centres = rng.normal(size=(8, DIMENSIONS))
    vectors = centres[rng.integers(8, size=num)] + 0.7 * rng.normal(size=(num, DIMENSIONS))
    vectors[::5] = vectors[rng.integers(num, size=len(vectors[::5]))]
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def built(kind: str, vectors: ndarray) -> tuple[Any, Recipe]:
    recipe = recipe_of(SECTION, kind, *vectors.shape)
    index = trained_index(recipe, vectors)
    index.add(vectors)
    if isinstance(index, faiss.IndexIVF):
        index.make_direct_map()
    return index, recipe


def recall(found: Neighbours, queries: ndarray, stored: ndarray, mask: ndarray, k: int) -> float:
    scores, places = exact_search(queries, stored[mask], depth(k))
    exact = Neighbours.none(len(queries), depth(k))
    exact.scores[:, : scores.shape[1]], exact.rows[:, : scores.shape[1]] = (
        scores,
        np.flatnonzero(mask)[places],
    )
    return float(recall_per_query(exact, found, k).mean())


@pytest.fixture
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kind of an index."""
    if request.param == COPIES:
        monkeypatch.setattr(copies, "NUM_SEARCHES", 0)
        monkeypatch.setattr(copies, "MAX_SHARE", 10)  # of small indexes, most is for the lists
        return "ivf_sq8"
    return str(request.param)


@pytest.mark.parametrize("kind", [*KINDS, COPIES], indirect=True)
def test_every_kind_is_held_to_exact_search(kind: str) -> None:
    rng = np.random.default_rng(0)
    recalls = []
    for num, max_exact_rows in itertools.product(SIZES, (0, 50)):
        index, recipe = built(kind, draw(num, rng))
        stored = index.reconstruct_batch(np.arange(num))  # what the codes leave of the vectors
        for share, k in itertools.product((None, *SHARES), (1, 10, num + 3)):
            queries = np.concatenate([draw(8, rng), stored[:2]])
            mask = np.ones(num, bool) if share is None else rng.random(num) < share
            passing = None if share is None else Passing.of_mask(mask)
            found = nearest(
                index,
                StoredVectors.of(index),
                recipe.search,
                queries,
                k,
                passing,
                max_exact_rows=max_exact_rows,
            )
            scores, rows = found.scores, found.rows
            num_found = min(k, int(mask.sum()))
            assert scores.shape == rows.shape == (len(queries), num_found)
            assert mask[rows].all()
            assert all(len(set(result)) == num_found for result in rows.tolist())
            assert (np.diff(scores, axis=1) <= 0).all()
            true_scores = np.einsum("qkd,qd->qk", stored[rows], queries)
            np.testing.assert_allclose(scores, true_scores, atol=1e-5)
            exact_scores, _ = exact_search(queries, stored[mask], k)
            if recipe.kind == "exact" or num_found == mask.sum() or num_found == 0:
                np.testing.assert_allclose(scores, exact_scores, atol=1e-5)
            else:
                recalls.append(recall(found, queries, stored, mask, k))
    assert not recalls or np.mean(recalls) >= MIN_RECALL


@pytest.mark.parametrize("num", [1, 5, 20_000])
def test_exact_search_of_rows_equals_numpy(num: int) -> None:  # 20,000 rows are two blocks
    rng = np.random.default_rng(1)
    vectors, queries = draw(num, rng), draw(30, rng)
    index, _ = built("exact", vectors)
    some = np.flatnonzero(rng.random(num) < 0.9)
    for rows in (np.arange(num), some):
        found = exact_nearest(StoredVectors.of(index), queries, 7, rows)
        expected, _ = exact_search(queries, vectors[rows], 7)
        np.testing.assert_allclose(found.scores, expected, atol=1e-6)
        np.testing.assert_allclose(np.einsum("qkd,qd->qk", vectors[found.rows], queries), expected, atol=1e-6)
        assert np.isin(found.rows, rows).all()


def test_row_that_faiss_returns_although_it_does_not_pass_is_replaced() -> None:
    flat: Any = faiss.IndexFlatIP

    class Careless(flat):  # type: ignore[misc]
        """An index that pays no attention to selectors."""

        def search(self, queries: ndarray, k: int, params: object = None) -> Any:
            return super().search(queries, k)

    vectors = draw(100, np.random.default_rng(2))
    mask = np.arange(100) % 3 == 0
    index = Careless(DIMENSIONS)
    index.add(vectors)
    found = nearest(index, StoredVectors.of(index), {}, vectors[:9], 5, Passing.of_mask(mask))
    expected, _ = exact_search(vectors[:9], vectors[mask], 5)
    np.testing.assert_allclose(found.scores, expected, atol=1e-6)
    assert mask[found.rows].all()


def test_passing_rows_of_a_bitmap() -> None:
    rng = np.random.default_rng(3)
    for num in (1, 7, 8, 9, 1000):
        mask = rng.random(num) < 0.1
        passing = Passing.of_mask(mask)
        assert passing.rows().tolist() == np.flatnonzero(mask).tolist()
        assert passing.count == mask.sum()
        rows = np.array([[-1, 0, num - 1]])
        assert passing.contains(rows).tolist() == [[False, bool(mask[0]), bool(mask[-1])]]


@pytest.mark.parametrize(
    "kind", ["ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw", "hnsw_sq8", COPIES], indirect=True
)
@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_filter_that_keeps_another_region_than_the_querys_has_the_same_recall(
    kind: str, share: float
) -> None:
    rng = np.random.default_rng(4)
    vectors = draw(4000, rng)
    section = SECTION.model_copy(update={"num_lists": 64, "nprobe": 2})
    recipe = recipe_of(section, kind, *vectors.shape)
    index = trained_index(recipe, vectors)
    index.add(vectors)
    by_region = np.argsort(vectors[:, 0])
    mask = np.isin(np.arange(4000), by_region[: int(share * 4000)])
    queries = vectors[by_region[-200:]]
    found = nearest(index, StoredVectors.of(index), recipe.search, queries, 10, Passing.of_mask(mask))
    assert recall(found, queries, index.reconstruct_batch(np.arange(4000)), mask, 10) >= 0.95


@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_random_rows_are_even_and_a_region_is_not(share: float) -> None:
    rng = np.random.default_rng(3)
    vectors = draw(4000, rng)
    index, _ = built("ivf_sq8", vectors)
    first = vectors[:, 0]
    assert Passing.of_mask(rng.random(4000) < share).is_even(index)
    assert not Passing.of_mask(first < np.quantile(first, share / 2)).is_even(index)


def test_random_rows_are_searched_once_and_a_region_until_the_result_stays_the_same() -> None:
    rng = np.random.default_rng(4)
    vectors = draw(4000, rng)
    index, recipe = built("ivf_sq8", vectors)
    first = vectors[:, 0]
    query = vectors[[int(first.argmax())]]
    is_every_tenth, is_low = np.arange(4000) % 10 == 0, first < np.quantile(first, 0.1)
    lists = index.quantizer.search(vectors, 1)[1][:, 0]
    ranked = index.quantizer.search(query, 16)[1][0].tolist()
    last = []
    for mask in (is_every_tenth, is_low):
        examined = RowsSeen(index)
        search_passing(index, examined, recipe.search, query, 10, Passing.of_mask(mask))
        places = [ranked.index(lists[row]) for row in examined.rows]
        last.append(max(places) + 1)
        nearest_lists = ranked[: last[-1]]
        assert sorted(examined.rows) == [row for row in np.flatnonzero(mask) if lists[row] in nearest_lists]
    assert last[0] == math.ceil(4 * 0.1**-0.5)
    assert last[1] > last[0]


class RowsSeen(StoredVectors):
    """Notes which rows are read."""

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        self.rows: list[int] = []

    def vectors(self, rows: ndarray) -> ndarray:
        self.rows.extend(rows.tolist())
        return super().vectors(rows)
