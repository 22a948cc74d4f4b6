"""Filters on attributes: `{"category": {"in": ["shoes"]}, "price": {"gte": 5, "lte": 20}}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from raysys.columns import Attributes
from raysys.errors import InputError, did_you_mean

Filter: TypeAlias = Mapping[str, Mapping[str, Any]]

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "in": lambda value, operand: value in operand,
    "not": lambda value, operand: value not in operand,
    "gte": lambda value, operand: value is not None and value >= operand,
    "lte": lambda value, operand: value is not None and value <= operand,
}


def check_filter(where: Any) -> Filter:
    """`where` unchanged, if its structure is valid.

    Raises: InputError naming the invalid attribute or operator.
    """
    if not isinstance(where, dict):
        raise InputError(
            f'filter: an object like {{"category": {{"in": ["shoes"]}}}} is required, got {where!r}'
        )
    for attribute, conditions in where.items():
        if not isinstance(conditions, dict) or not conditions:
            raise InputError(
                f"filter: '{attribute}' needs an object with {', '.join(_OPERATORS)}, got {conditions!r}"
            )
        for operator, operand in conditions.items():
            _check_condition(attribute, operator, operand)
    return where


def matching_rows(attributes: Sequence[Attributes], where: Filter) -> Int64[ndarray, " n"]:
    """Rows whose attributes meet every condition, ascending.

    Raises: InputError for an attribute that no row has, or an operand whose type cannot be compared.
    """
    known = {name for row in attributes for name in row}
    for name in where:
        if name not in known:
            raise InputError(
                f"filter: no attribute '{name}' "
                f"(attributes: {', '.join(sorted(known))}){did_you_mean(name, known)}"
            )
    try:
        rows = [row for row, values in enumerate(attributes) if _matches(values, where)]
    except TypeError as error:
        raise InputError(
            f"filter: the value and the attribute have different types ({error}); give a value of its type"
        ) from error
    return np.array(rows, dtype=np.int64)


def _check_condition(attribute: str, operator: str, operand: Any) -> None:
    if operator not in _OPERATORS:
        hint = did_you_mean(operator, _OPERATORS)
        raise InputError(
            f"filter: '{attribute}': unknown operator '{operator}' (use {', '.join(_OPERATORS)}){hint}"
        )
    if operator in ("in", "not") and not isinstance(operand, list):
        raise InputError(f"filter: '{attribute}': '{operator}' needs a list, got {operand!r}")
    is_number = isinstance(operand, int | float) and not isinstance(operand, bool) and operand == operand
    if operator in ("gte", "lte") and not is_number:  # NaN is not equal to itself
        raise InputError(f"filter: '{attribute}': '{operator}' needs a number, got {operand!r}")


def _matches(values: Attributes, where: Filter) -> bool:
    return all(
        _OPERATORS[operator](values.get(name), operand)
        for name, conditions in where.items()
        for operator, operand in conditions.items()
    )
