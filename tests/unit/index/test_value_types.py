"""Which types of values one column holds together, compared with the columns of a build."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pyarrow as pa
import pytest

from raysys.errors import InputError
from raysys.index.attributes import attribute_columns
from raysys.index.value_types import (
    ValueType,
    held_together,
    require_fitting,
    require_one_type,
    type_of,
    types_of_column,
)

TEXT, BOOLEAN, INTEGER, LARGE_INTEGER, FRACTION = ValueType
VALUES: list[Any] = [
    "a", "", "1", True, False, 0, -5, 2**53, -(2**53), 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 0.5, 1.0, -0.0, 1e300,
]  # fmt: skip
UNUSABLE: list[Any] = [2**63, -(2**63) - 1, float("nan"), float("inf"), [1], {"a": 1}]


def column_of(*values: Any) -> pa.Array:
    texts = [json.dumps({"x": value}) for value in values]
    ids = [f"m{row}" for row in range(len(values))]
    columns = attribute_columns("set", pa.chunked_array([ids]), pa.chunked_array([texts], pa.string()))
    return columns.field("x")


@pytest.mark.parametrize(("first", "second"), [*itertools.combinations_with_replacement(VALUES, 2)])
def test_values_fit_where_a_build_has_a_column_for_both(first: Any, second: Any) -> None:
    one, other = type_of(first), type_of(second)
    assert one is not None
    assert other is not None
    try:
        column_of(first, second)
    except InputError:
        assert not one.fits(other)
        assert not other.fits(one)
    else:
        assert one.fits(other)
        assert other.fits(one)


@pytest.mark.parametrize("value", UNUSABLE)
def test_value_that_no_column_holds_has_no_type(value: Any) -> None:
    assert type_of(value) is None
    with pytest.raises(InputError):
        column_of(value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", None], [TEXT]),
        (["a", "a", "b", "b", "a"], [TEXT]),  # dictionary encoded
        ([True], [BOOLEAN]),
        ([1, 5], [INTEGER, INTEGER]),
        ([1, 2**60], [INTEGER, LARGE_INTEGER]),
        ([1, 0.5], [FRACTION]),
        ([None], []),
    ],
)
def test_types_of_a_column(values: list[Any], expected: list[ValueType]) -> None:
    assert types_of_column(column_of(*values)) == expected


def test_types_that_do_not_fit_the_first_are_not_held() -> None:
    assert held_together([INTEGER, TEXT, FRACTION, LARGE_INTEGER, INTEGER]) == [INTEGER, FRACTION]
    assert held_together([]) == []


def test_attribute_of_another_type_is_refused() -> None:
    known = {"price": [FRACTION], "code": [INTEGER, LARGE_INTEGER]}
    require_fitting("m1", {"price": 5, "code": None, "new": True}, known)
    with pytest.raises(InputError) as caught:
        require_fitting("m1", {"code": 1, "price": "cheap"}, known)
    assert str(caught.value) == (
        "item 'm1': attribute 'price' is a number in the index, got a text ('cheap'); "
        "put a value of the index's type, or null"
    )
    with pytest.raises(InputError, match=r"'code' is an integer above 2\*\*53 in the index, got a fraction"):
        require_fitting("m1", {"code": 0.5}, known)
    with pytest.raises(InputError, match=r"'new' is 9223372036854775808; a text, a boolean or a finite"):
        require_fitting("m1", {"new": 2**63}, known)


def test_items_of_one_request_have_one_type() -> None:
    require_one_type({"a": {"size": 42}, "b": {"size": 42.5}, "c": {"size": None}, "d": {"colour": "M"}})
    with pytest.raises(InputError) as caught:
        require_one_type({"a": {"size": 42}, "b": {"size": "M"}})
    assert str(caught.value) == (
        "item 'b': attribute 'size' is a text, and a number in item 'a'; give the attribute one type"
    )
