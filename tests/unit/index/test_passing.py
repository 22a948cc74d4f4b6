"""Hidden rows among the rows that pass a filter."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from raysys.index.passing import FilterBitmaps

NUM = 1003  # the last byte of a bitmap has three rows


def test_hidden_rows_pass_no_filter_and_earlier_bitmaps_stay() -> None:
    bitmaps = FilterBitmaps({"x": pa.array(np.arange(NUM))}, NUM)
    some = bitmaps.hide(np.array([0, 7, 8, 8, 1002]))
    more = some.hide(np.array([9]))
    for where, lowest in ((None, 0), ({}, 0), ({"x": {"gte": 5}}, 5), ({"x": {"gte": 5, "lte": 2000}}, 5)):
        for each, hidden in ((some, {0, 7, 8, 1002}), (more, {0, 7, 8, 9, 1002})):
            for _ in range(2):  # the second time from the cache
                passing = each.passing(where)
                assert passing is not None
                assert passing.rows().tolist() == [row for row in range(lowest, NUM) if row not in hidden]
                assert passing.count == len(passing.rows())
        if where is not None:
            assert bitmaps.passing(where).count == NUM - lowest
    assert bitmaps.passing(None) is None
    assert (bitmaps.num_visible, some.num_visible, more.num_visible) == (NUM, NUM - 4, NUM - 5)
    assert [more.is_visible(row) for row in (-1, 0, 1, 9, 1001, 1002, 1003)] == [
        False, False, True, False, True, False, False,
    ]  # fmt: skip
    assert bitmaps.hide(np.array([], np.int64)) is bitmaps


def test_rows_of_each_list_are_those_that_are_not_hidden() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(NUM, 8)).astype(np.float32)
    index: Any = faiss.index_factory(8, "IVF10,Flat")
    index.train(vectors)
    index.add(vectors)
    lists = index.quantizer.search(vectors, 1)[1][:, 0]
    bitmaps = FilterBitmaps({"x": pa.array(np.arange(NUM))}, NUM)
    for where, lowest in ((None, 0), ({"x": {"gte": 300}}, 300)):
        for hidden in ([2, 3, 400], [2, 3, 400, 1000]):
            passing = bitmaps.hide(np.array(hidden)).passing(where)
            assert passing is not None
            by_list = passing.by_list(index)
            kept = [[row for row in range(lowest, NUM) if lists[row] == one] for one in range(10)]
            kept = [[row for row in rows if row not in hidden] for rows in kept]
            assert by_list.counts.tolist() == [len(rows) for rows in kept]
            assert [by_list.of_lists(np.array([one])).rows.tolist() for one in range(10)] == kept
            some = by_list.of_lists(np.array([7, 2]))
            assert some.rows.tolist() == kept[7] + kept[2]
            assert some.lists.tolist() == lists[some.rows].tolist()
            ids = [
                faiss.rev_swig_ptr(index.invlists.get_ids(one), index.get_list_size(one)) for one in range(10)
            ]
            assert [ids[one][place] for one, place in zip(some.lists, some.places, strict=True)] == [
                *some.rows
            ]
            assert len(by_list.of_lists(np.array([], np.int64))) == 0
