"""Filters on attributes, as `{"category": {"in": ["shoes"]}, "price": {"gte": 5, "lte": 20}}`."""

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
    "in": lambda value, wanted: value in wanted,
    "not": lambda value, wanted: value not in wanted,
    "gte": lambda value, wanted: value is not None and value >= wanted,
    "lte": lambda value, wanted: value is not None and value <= wanted,
}


def check_filter(where: Any) -> Filter:
    """The filter, if it is one.

    Raises: InputError naming the attribute or operator that is wrong.
    """
    if not isinstance(where, dict):
        raise InputError(
            f'filter: an object like {{"category": {{"in": ["shoes"]}}}} is needed, got {where!r}'
        )
    for attribute, conditions in where.items():
        if not isinstance(conditions, dict) or not conditions:
            raise InputError(
                f"filter: '{attribute}' needs an object of {', '.join(_OPERATORS)}, got {conditions!r}"
            )
        for operator, wanted in conditions.items():
            _check_condition(attribute, operator, wanted)
    return where


def matching_rows(attributes: Sequence[Attributes], where: Filter) -> Int64[ndarray, " n"]:
    """Rows whose attributes meet every condition.

    Raises: InputError for an attribute that no row has, or a value of another type.
    """
    known = {name for row in attributes for name in row}
    for name in where:
        if name not in known:
            raise InputError(
                f"filter: no attribute '{name}' "
                f"(attributes: {', '.join(sorted(known))}){did_you_mean(name, known)}"
            )
    try:
        kept = [row for row, values in enumerate(attributes) if _matches(values, where)]
    except TypeError as error:
        raise InputError(f"filter: a value of another type than the attribute's ({error})") from error
    return np.array(kept, dtype=np.int64)


def _check_condition(attribute: str, operator: str, wanted: Any) -> None:
    if operator not in _OPERATORS:
        hint = did_you_mean(operator, _OPERATORS)
        raise InputError(
            f"filter: '{attribute}': unknown operator '{operator}' (use {', '.join(_OPERATORS)}){hint}"
        )
    if operator in ("in", "not") and not isinstance(wanted, list):
        raise InputError(f"filter: '{attribute}': '{operator}' needs a list, got {wanted!r}")
    if operator in ("gte", "lte") and not isinstance(wanted, int | float):
        raise InputError(f"filter: '{attribute}': '{operator}' needs a number, got {wanted!r}")


def _matches(values: Attributes, where: Filter) -> bool:
    return all(
        _OPERATORS[operator](values.get(name), wanted)
        for name, conditions in where.items()
        for operator, wanted in conditions.items()
    )
