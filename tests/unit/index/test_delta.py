"""Rows and memory of the items that were put after the index was built."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from raysys.index.delta import Delta
from raysys.index.exact import exact_search
from raysys.index.value_types import ValueType, held_together, type_of
from raysys.store.changes import Change, Delete
from tests.unit.index.changes import SPACE, upsert
from tests.unit.index.embedding_sets import unit_vectors

VECTORS = unit_vectors(500, 4)
EMPTY = Delta.empty(SPACE, 4, 1000, frozenset())


def put(delta: Delta, *numbers: int) -> Delta:
    return delta.applied({f"n{number}": upsert(f"n{number}", VECTORS[number]) for number in numbers})


def test_equally_near_items_are_in_the_order_of_their_rows() -> None:
    delta = EMPTY.applied({f"n{number}": upsert(f"n{number}", VECTORS[0]) for number in range(9)})
    assert delta.search(VECTORS[:1], 4, None, False).rows.tolist() == [[1000, 1001, 1002, 1003]]
    delta = delta.applied({"n1": Delete("n1"), "n0": upsert("n0", VECTORS[0])})
    assert delta.search(VECTORS[:1], 4, None, False).rows.tolist() == [[1002, 1003, 1004, 1005]]
    assert delta.row_of("n0") == 9


def test_replaced_and_deleted_items_leave_memory_and_rows_stay() -> None:
    full = put(EMPTY, *range(500))
    assert (len(full.stored), full.vectors.array.shape[0]) == (500, 1000)
    half = full.applied({f"n{number}": Delete(f"n{number}") for number in range(250)})
    assert (len(half.stored), half.num_items) == (500, 250)
    less = half.applied({"n250": Delete("n250")})
    assert (len(less.stored), less.num_items, less.vectors.array.shape[0]) == (249, 249, 498)
    for number in (251, 499):
        assert less.row_of(f"n{number}") == number
        np.testing.assert_array_equal(less.vector(number), VECTORS[number])
        assert less.item(number).item_id == f"n{number}"
    assert [less.has(row) for row in (-1, 0, 250, 251, 499, 500)] == [False, False, False, True, True, False]
    assert put(less, 3).row_of("n3") == 500  # after the last row that was used
    nothing = less.applied({f"n{number}": Delete(f"n{number}") for number in range(500)})
    assert (len(nothing.stored), put(nothing, 3).row_of("n3")) == (0, 500)


def test_delta_stays_as_it_is_when_others_are_made_of_it() -> None:
    delta = put(EMPTY, 0, 1)
    for number in (2, 3):  # both have the place after n1
        other = put(delta, number)
        assert other.search(VECTORS[number : number + 1], 1, None, False).rows.tolist() == [[1002]]
        np.testing.assert_array_equal(other.vector(2), VECTORS[number])
    first, second = put(delta, 2), put(delta, 3)
    np.testing.assert_array_equal(first.vector(2), VECTORS[2])
    np.testing.assert_array_equal(second.vector(2), VECTORS[3])
    assert (delta.num_items, delta.row_of("n2")) == (2, None)


def test_many_queries_find_what_exact_search_does() -> None:
    queries = unit_vectors(10_000, 4, seed=1)  # 5 million cosines are two blocks
    found = put(EMPTY, *range(500)).search(queries, 3, None, False)
    scores, rows = exact_search(queries, VECTORS, 3)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert (found.rows == rows + 1000).mean() > 0.999  # rounding may change the order of two


def test_types_are_those_of_the_items_that_are_left() -> None:
    rng, delta = random.Random(0), EMPTY
    values: list[Any] = ["M", 42, 42.5, 2**60, True, None]
    left: dict[str, Any] = {}  # in the order of their last change
    for _ in range(300):
        item_id = f"n{rng.randrange(8)}"
        value = rng.choice(values)
        change: Change = (
            upsert(item_id, VECTORS[0], {"size": value}) if rng.random() < 0.5 else Delete(item_id)
        )
        delta = delta.applied({item_id: change})
        left.pop(item_id, None)
        if not isinstance(change, Delete):
            left[item_id] = value
        base = rng.choice([[], [ValueType.INTEGER], [ValueType.TEXT]])
        found = [type_of(each) for other, each in left.items() if other != "n3"]
        expected = held_together([*base, *(each for each in found if each is not None)])
        assert {*delta.held_types("size", base, besides="n3")} == {*expected}
