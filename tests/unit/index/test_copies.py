"""Searches in copies of the rows that pass a frequent filter, against searches without copies."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from numpy import ndarray

from raysys.config.schema import IndexConfig
from raysys.index import copies
from raysys.index.copies import FilterCopies
from raysys.index.filters import Filter
from raysys.index.kinds import Recipe, recipe_of, trained_index
from raysys.index.nearest import nearest
from raysys.index.neighbours import Neighbours
from raysys.index.passing import FilterBitmaps, Passing
from raysys.index.stored import StoredVectors
from tests.unit.index.embedding_sets import clustered_vectors, unit_vectors

NUM, DIMENSIONS, NUM_LISTS = 6000, 16, 32
ROW_BYTES, LIST_BYTES = 16 + 8, 192
VECTORS = unit_vectors(NUM, DIMENSIONS)
COLUMNS = {"even": pa.array(np.arange(NUM) % 100), "region": pa.array(VECTORS[:, 0])}
EVEN: Filter = {"even": {"lte": 9}}
REGION: Filter = {"region": {"lte": float(np.quantile(VECTORS[:, 0], 0.1))}}
QUERIES = clustered_vectors(20, DIMENSIONS, seed=1)


def built(encoding: str = "SQ8") -> Any:
    recipe = recipe_of(IndexConfig(num_lists=NUM_LISTS, nprobe=2), "ivf_sq8", NUM, DIMENSIONS)
    recipe = Recipe(recipe.kind, recipe.factory.replace("SQ8", encoding), recipe.search)
    index = trained_index(recipe, VECTORS)
    index.add(VECTORS)
    index.make_direct_map()
    return index


@pytest.fixture(scope="module")
def index() -> Any:
    return built()


def search(index: Any, stored: StoredVectors, passing: Passing, k: int = 10) -> Neighbours:
    return nearest(index, stored, {"nprobe": 2}, QUERIES, k, passing)


def every(number: int, count: int = 10) -> Passing:
    """Another `count` % of the rows for each number."""
    return Passing.of_mask((np.arange(NUM) + number) % 100 < count)


def copies_of(index: Any) -> FilterCopies:
    def no_codes(lists: ndarray, places: ndarray) -> ndarray:
        return np.zeros((len(lists), DIMENSIONS), np.uint8)

    return FilterCopies(index, no_codes)


def made(filter_copies: FilterCopies, passing: Passing) -> Any:
    """The copy of a filter that has one."""
    copy = filter_copies.of(passing)
    assert copy is not None
    return copy


@pytest.mark.parametrize("where", [EVEN, REGION], ids=["even", "region"])
@pytest.mark.parametrize("encoding", ["SQ8", "SQ4", "SQfp16"])
def test_results_are_those_without_a_copy(
    where: Filter, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 0)
    index = built(encoding)
    bitmaps, stored, without = FilterBitmaps(COLUMNS, NUM), StoredVectors.of(index), StoredVectors(index)
    num, passing_rows = bitmaps.passing(where).count, bitmaps.passing(where).rows()
    some = bitmaps.hide(search(index, without, bitmaps.passing(where)).rows[:, :3].ravel())  # the nearest
    for each in (bitmaps, some, some.hide(passing_rows[::2])):
        passing = each.passing(where)
        for k in (1, 10, 700):  # more than pass
            found, expected = (search(index, one, passing, k) for one in (stored, without))
            assert passing.contains(found.rows).all()
            assert found.rows.shape[1] == min(k, passing.count)
            np.testing.assert_allclose(found.scores, expected.scores, atol=2e-6)
            assert np.array_equal(np.sort(found.rows), np.sort(expected.rows))
        copy = stored.copy_of(passing)
        assert copy is not None
        assert copy.ntotal == num  # one, whatever is hidden


def test_copy_has_the_rows_that_pass_with_their_codes(monkeypatch: pytest.MonkeyPatch, index: Any) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 0)
    monkeypatch.setattr(copies, "_BLOCK_ROWS", 50)  # lists have about 20 of these rows
    passing = every(0)
    copy = StoredVectors.of(index).copy_of(passing)
    assert copy is not None
    rows = []
    for number in range(NUM_LISTS):
        size = copy.invlists.list_size(number)
        some = faiss.rev_swig_ptr(copy.invlists.get_ids(number), size).tolist()
        codes = faiss.rev_swig_ptr(copy.invlists.get_codes(number), size * DIMENSIONS)
        vectors = copy.sa_decode(
            np.concatenate([np.full((size, 1), number, np.uint8), codes.reshape(size, DIMENSIONS)], axis=1)
        )
        assert np.array_equal(vectors, index.reconstruct_batch(np.array(some, np.int64)))
        rows += some
    assert sorted(rows) == passing.rows().tolist()


def test_filter_gets_a_copy_when_it_was_searched_often(monkeypatch: pytest.MonkeyPatch, index: Any) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 4)
    bitmaps, stored = FilterBitmaps(COLUMNS, NUM), StoredVectors.of(index)
    some = bitmaps.hide(np.array([0, 1]))
    assert stored.copy_of(bitmaps.passing(REGION)) is None
    found = [stored.copy_of(each.passing(EVEN)) for each in (bitmaps, some, bitmaps, some, some, bitmaps)]
    assert [one is None for one in found] == [True] * 4 + [False] * 2
    assert found[4] is found[5]
    assert stored.copy_of(bitmaps.passing(REGION)) is None


def test_kinds_without_scalar_codes_in_lists_have_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 0)
    for kind in ("exact", "hnsw_sq8", "ivf_pq"):
        index = trained_index(recipe_of(IndexConfig(num_lists=16), kind, NUM, DIMENSIONS), VECTORS)
        index.add(VECTORS)
        assert StoredVectors.of(index).copy_of(every(0)) is None


def test_copies_take_a_quarter_of_the_index_and_the_least_recently_used_leave(
    monkeypatch: pytest.MonkeyPatch, index: Any
) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 2)
    filter_copies = copies_of(index)

    def searched(passing: Passing) -> Iterator[Any | None]:
        while True:
            yield filter_copies.of(passing)

    # A quarter of 6,000 rows of 24 bytes is 36,000. 10 % of the rows and 32 lists are 20,544, 3 % are 10,464.
    sizes = {0: 10, 20: 3, 40: 3, 60: 24, 70: 10}
    filters = {number: every(number, share) for number, share in sizes.items()}
    assert [*islice(searched(filters[60]), 9)] == [None] * 9  # alone it does not fit
    for number in (0, 20):
        found = [*islice(searched(filters[number]), 3)]
        assert [one is None for one in found] == [True, True, False]
    assert filter_copies.nbytes == 20_544 + 10_464
    large, small = (filter_copies.of(filters[number]) for number in (0, 20))
    assert filter_copies.of(filters[0]) is large
    [*islice(searched(filters[40]), 3)]
    assert filter_copies.nbytes == 20_544 + 10_464
    assert filter_copies.of(filters[0]) is large  # the small one left
    again = [*islice(searched(filters[20]), 3)]  # which takes the place of the other small one
    assert [one is None for one in again] == [True, True, False]
    assert again[2] is not small
    assert filter_copies.of(filters[40]) is None
    [*islice(searched(filters[70]), 3)]  # which fits beside the last one used
    assert filter_copies.nbytes == 20_544 + 10_464
    assert filter_copies.of(filters[20]) is again[2]
    assert filter_copies.of(filters[0]) is None


def test_copy_leaves_with_its_filter(monkeypatch: pytest.MonkeyPatch, index: Any) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 0)
    filter_copies = copies_of(index)
    bitmaps = FilterBitmaps(COLUMNS, NUM, max_bytes=1)  # the cache of one filter
    changed = bitmaps.hide(np.array([3]))
    copy = weakref.ref(made(filter_copies, bitmaps.passing(EVEN)))
    assert copy() is not None
    hidden = changed.passing(EVEN)
    bitmaps.passing(REGION)
    assert filter_copies.of(hidden) is copy()  # which still has the filter
    del changed, hidden
    gc.collect()
    assert copy() is None
    assert filter_copies.nbytes == 0


def test_others_search_without_the_copy_that_a_thread_makes(
    monkeypatch: pytest.MonkeyPatch, index: Any
) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 0)
    is_making, may_go_on = threading.Event(), threading.Event()

    def codes(lists: ndarray, places: ndarray) -> ndarray:
        is_making.set()
        assert may_go_on.wait(60)
        return np.zeros((len(lists), DIMENSIONS), np.uint8)

    filter_copies, passing = FilterCopies(index, codes), every(0)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(filter_copies.of, passing)
        assert is_making.wait(60)
        assert filter_copies.of(passing) is None
        assert filter_copies.of(every(1)) is None
        may_go_on.set()
        assert future.result() is filter_copies.of(passing)
    assert made(filter_copies, passing).ntotal == passing.count


def test_failure_to_make_a_copy_leaves_others_possible(monkeypatch: pytest.MonkeyPatch, index: Any) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 0)
    is_full = True

    def codes(lists: ndarray, places: ndarray) -> ndarray:
        if is_full:
            raise MemoryError
        return np.zeros((len(lists), DIMENSIONS), np.uint8)

    filter_copies, passing = FilterCopies(index, codes), every(0)
    with pytest.raises(MemoryError):
        filter_copies.of(passing)
    assert filter_copies.nbytes == 0
    is_full = False
    assert made(filter_copies, passing).ntotal == passing.count


def test_threads_find_the_same_while_copies_come_and_go_and_rows_are_hidden(
    monkeypatch: pytest.MonkeyPatch, index: Any
) -> None:
    monkeypatch.setattr(copies, "NUM_SEARCHES", 25)  # 20 queries a search; one of ten copies fits
    stored, without = StoredVectors.of(index), StoredVectors(index)
    filters: list[Filter] = [{"even": {"in": [*range(first, first + 10)]}} for first in range(0, 90, 10)]
    filters.append(REGION)
    states = [FilterBitmaps(COLUMNS, NUM)]
    is_done = threading.Event()

    def hide() -> None:
        rng = np.random.default_rng(9)
        while not is_done.is_set() and len(states) < 1000:
            states.append(states[-1].hide(rng.integers(NUM, size=3)))

    def differing(seed: int) -> int:
        rng, num = np.random.default_rng(seed), 0
        for _ in range(40):
            passing = states[-1].passing(filters[rng.integers(3 if seed % 2 else len(filters))])
            found, expected = (search(index, one, passing).rows for one in (stored, without))
            num += not (np.array_equal(np.sort(found), np.sort(expected)) and passing.contains(found).all())
        return num

    with ThreadPoolExecutor(5) as pool:
        hiding = pool.submit(hide)
        try:
            assert [*pool.map(differing, range(4))] == [0] * 4
        finally:
            is_done.set()
        hiding.result()
    assert len(states) > 1
