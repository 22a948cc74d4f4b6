"""Filter results worked out by hand, and errors for invalid filters."""

from typing import Any

import pytest

from raysys.columns import Attributes
from raysys.errors import InputError
from raysys.index.filters import check_filter, matching_rows

ROWS: list[Attributes] = [
    {"category": "shoes", "seller": "a", "price": 5},
    {"category": "shoes", "seller": "b", "price": 20},
    {"category": "bags", "seller": "a", "price": 7.5},
    {"category": "hats", "seller": None},
]


def error_of(where: Any) -> str:
    with pytest.raises(InputError) as caught:
        matching_rows(ROWS, check_filter(where))
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
def test_matching_rows_meet_every_condition(where: Any, expected: list[int]) -> None:
    rows = matching_rows(ROWS, check_filter(where))
    assert rows.tolist() == expected
    assert rows.dtype == "int64"


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
