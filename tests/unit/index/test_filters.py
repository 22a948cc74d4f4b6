"""Filter results worked out by hand, and errors for invalid filters."""

import json
import math
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raysys.errors import InputError
from raysys.index.attributes import attribute_columns
from raysys.index.filters import check_filter, meets, require_known, values_meet
from raysys.index.passing import FilterBitmaps
from raysys.types import Attributes

ROWS: list[Attributes] = [
    {"category": "shoes", "seller": "a", "price": 5},
    {"category": "shoes", "seller": "b", "price": 20},
    {"category": "bags", "seller": "a", "price": 7.5},
    {"category": "hats", "seller": None},
]


def columns_of(rows: list[Attributes]) -> dict[str, pa.Array]:
    ids = pa.chunked_array([[str(row) for row in range(len(rows))]])
    struct = attribute_columns("e", ids, pa.chunked_array([[json.dumps(row) for row in rows]]))
    return {field.name: struct.field(field.name) for field in struct.type}


COLUMNS = columns_of(ROWS)


def passing_rows(where: Any) -> list[int]:
    require_known(check_filter(where), COLUMNS)
    passing = FilterBitmaps(COLUMNS, len(ROWS)).passing(where)
    rows = passing.rows()
    assert rows.dtype == "int64"
    assert passing.count == len(rows)
    return [int(row) for row in rows]


def error_of(where: Any) -> str:
    with pytest.raises(InputError) as caught:
        passing_rows(where)
    return str(caught.value)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, [0, 1, 2, 3]),
        ({"category": {"in": ["shoes", "hats"]}}, [0, 1, 3]),
        ({"category": {"in": []}}, []),
        ({"seller": {"not": ["a"]}}, [1, 3]),  # an item without a seller passes
        ({"price": {"gte": 7.5}}, [1, 2]),  # an item without a price does not pass
        ({"price": {"lte": 7.5}}, [0, 2]),
        ({"price": {"gte": 6, "lte": 10}}, [2]),
        ({"category": {"in": ["shoes"]}, "seller": {"not": ["b"]}}, [0]),
    ],
)
def test_rows_that_pass_meet_every_condition(where: Any, expected: list[int]) -> None:
    assert passing_rows(where) == expected


def test_unknown_attribute_is_named_with_a_suggestion() -> None:
    assert error_of({"categry": {"in": ["shoes"]}}) == (
        "filter: no attribute 'categry' (attributes: category, price, seller); did you mean 'category'?"
    )


def test_unknown_operator_is_named_with_a_suggestion() -> None:
    assert error_of({"price": {"get": 5}}) == (
        "filter: 'price': unknown operator 'get' (use in, not, gte, lte); did you mean 'gte'?"
    )


@pytest.mark.parametrize("where", [["shoes"], "shoes", 3, None])
def test_filter_must_be_an_object(where: Any) -> None:
    assert error_of(where) == (
        f'filter: an object like {{"category": {{"in": ["shoes"]}}}} is required, got {where!r}'
    )


@pytest.mark.parametrize("conditions", ["shoes", ["shoes"], {}, None])
def test_conditions_must_be_an_object(conditions: Any) -> None:
    assert error_of({"category": conditions}) == (
        f"filter: 'category' needs an object with in, not, gte, lte, got {conditions!r}"
    )


@pytest.mark.parametrize("operator", ["in", "not"])
def test_set_operators_require_a_list(operator: str) -> None:
    assert error_of({"category": {operator: "shoes"}}) == (
        f"filter: 'category': '{operator}' needs a list, got 'shoes'"
    )


@pytest.mark.parametrize("operator", ["gte", "lte"])
def test_order_operators_require_a_number(operator: str) -> None:
    assert error_of({"price": {operator: "5"}}) == f"filter: 'price': '{operator}' needs a number, got '5'"


@pytest.mark.parametrize("operand", [None, True, float("nan"), [5]])
def test_order_operators_refuse_what_has_no_order(operand: Any) -> None:
    assert error_of({"price": {"gte": operand}}) == f"filter: 'price': 'gte' needs a number, got {operand!r}"


def test_text_cannot_be_compared_with_a_number() -> None:
    assert error_of({"category": {"gte": 5}}).startswith(
        "filter: the value and the attribute have different types ('>=' not supported"
    )


VALUES: dict[str, list[Any]] = {
    "few texts": ["a", "b", None, "a", "b", "a", "", "写真", "a", "b", "写真", ""],
    "many texts": ["a", "b", None, "写真", ""],
    "integers": [0, 1, -3, None, 2**53 + 1, 2**63 - 1, -(2**63)],
    "doubles": [0.0, 1.0, None, 7.5, -1e300, 5e-324],
    "booleans": [True, False, None, True],
    "nulls": [None, None],
}
OPERANDS: list[Any] = [
    "a", "", "写真", "\ud800", None, 0, 1, True, False, 1.0, 7.5, -3, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 10**400,
    -(10**400), -1e300, math.inf, -math.inf, math.nan, [1], {},
]  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
def test_conditions_compare_as_python_does(kind: str) -> None:
    column, values = columns_of([{"x": value} for value in VALUES[kind]])["x"], VALUES[kind]
    for operand in [[], OPERANDS, *([one] for one in OPERANDS), *([one, None] for one in OPERANDS)]:
        assert meets(column, "in", operand).tolist() == [value in operand for value in values]
        assert meets(column, "not", operand).tolist() == [value not in operand for value in values]
    if "texts" in kind:
        return
    for bound in (one for one in OPERANDS if type(one) in (int, float) and one == one):
        is_at_least = [value is not None and value >= bound for value in values]
        is_at_most = [value is not None and value <= bound for value in values]
        assert meets(column, "gte", bound).tolist() == is_at_least, bound
        assert meets(column, "lte", bound).tolist() == is_at_most, bound


@pytest.mark.parametrize("kind", VALUES)
def test_values_of_items_meet_what_their_column_does(kind: str) -> None:
    column, values = columns_of([{"x": value} for value in VALUES[kind]])["x"], VALUES[kind]
    for operand in [[], OPERANDS, *([one] for one in OPERANDS), *([one, None] for one in OPERANDS)]:
        for operator in ("in", "not"):
            assert (
                values_meet(values, operator, operand).tolist() == meets(column, operator, operand).tolist()
            )
    for bound in (one for one in OPERANDS if type(one) in (int, float) and one == one):
        for operator in ("gte", "lte"):
            if "texts" in kind:
                with pytest.raises(InputError) as of_column:
                    meets(column, operator, bound)
                with pytest.raises(InputError, match=re.escape(str(of_column.value))):
                    values_meet(values, operator, bound)
            else:
                found = values_meet(values, operator, bound)
                assert found.tolist() == meets(column, operator, bound).tolist(), bound


def test_text_among_numbers_meets_no_bound() -> None:
    assert values_meet([5, "XL", None, 7.5], "gte", 5).tolist() == [True, False, False, True]
    assert values_meet([5, "XL", None, 7.5], "lte", 5).tolist() == [True, False, False, False]
    assert values_meet([5, "XL", None, 7.5], "in", ["XL", 7.5]).tolist() == [False, True, False, True]


def test_cache_of_conditions_is_bounded() -> None:
    columns = {"x": pa.array(np.arange(8_000))}
    bitmaps = FilterBitmaps(columns, 8_000, max_bytes=3_500)  # three bitmaps of 1,000 bytes
    for _ in range(2):
        for bound in range(5):
            assert bitmaps.passing({"x": {"gte": bound}}).count == 8_000 - bound
    assert len(bitmaps) == 3


def test_cached_filters_are_told_apart() -> None:
    bitmaps = FilterBitmaps({"x": pa.array(np.arange(100)), "y": pa.array(np.arange(100))}, 100)
    filters: list[Any] = [{"x": {"gte": 90}}, {"y": {"gte": 90}}, {"x": {"gte": 90}, "y": {"lte": 95}}, {}]
    for _ in range(2):
        assert [bitmaps.passing(where).count for where in filters] == [10, 10, 6, 100]
    assert bitmaps.passing(filters[2]).rows().tolist() == [*range(90, 96)]
    assert bitmaps.passing(filters[2]) is bitmaps.passing(filters[2])
