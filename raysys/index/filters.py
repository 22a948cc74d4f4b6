"""Filters on attributes: `{"category": {"in": ["shoes"]}, "price": {"gte": 5, "lte": 20}}`.

Values are compared as Python compares them: 5 equals 5.0, no text equals a number, True equals 1.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool
from numpy import ndarray

from raysys.errors import InputError, did_you_mean
from raysys.types import AttributeValue

Filter: TypeAlias = Mapping[str, Mapping[str, Any]]

_OPERATORS = ("in", "not", "gte", "lte")
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1


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


def require_known(where: Filter, known: Collection[str]) -> None:
    """Check that an index has every attribute of a filter. Raises: InputError for one that it lacks."""
    for name in where:
        require_attribute("filter", name, known)


def require_attribute(field: str, name: str, known: Collection[str]) -> None:
    """Check that an index has the attribute that `field` names. Raises: InputError if it lacks it."""
    if name not in known:
        raise InputError(
            f"{field}: no attribute '{name}' "
            f"(attributes: {', '.join(sorted(known))}){did_you_mean(name, known)}"
        )


def meets(column: pa.Array, operator: str, operand: Any) -> Bool[ndarray, " n"]:
    """Which rows of an attribute's column meet one valid condition.

    Raises: InputError for the order of a text and a number.
    """
    if operator in ("in", "not"):
        return np.asarray(_is_in(column, operand) == (operator == "in"))
    return _is_ordered(column, operator, operand)


def values_meet(values: Sequence[AttributeValue], operator: str, operand: Any) -> Bool[ndarray, " n"]:
    """As `meets`, of values whose types may differ; a text among numbers meets no bound.

    Raises: InputError for the order of texts if there are no numbers.
    """
    if operator in ("in", "not"):
        wanted = {one for one in operand if one is None or isinstance(one, str) or _is_number(one)}
        return np.array([(value in wanted) == (operator == "in") for value in values], bool)
    has_text = any(isinstance(value, str) for value in values)
    numbers = [None if isinstance(value, str) else value for value in values]
    if has_text and all(number is None for number in numbers):
        raise _no_order(operator, operand)
    if operator == "gte":
        return np.array([number is not None and number >= operand for number in numbers], bool)
    return np.array([number is not None and number <= operand for number in numbers], bool)


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


def _is_in(column: pa.Array, values: Sequence[Any]) -> ndarray:
    has_null = any(value is None for value in values)
    if pa.types.is_dictionary(column.type):
        is_code_in = np.append(_is_in(column.dictionary, values), has_null)
        return np.asarray(is_code_in[column.indices.fill_null(-1).to_numpy()])
    if pa.types.is_null(column.type):
        return np.full(len(column), has_null)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int64())
    convert: Callable[[Any], Any] = _text if pa.types.is_large_string(column.type) else _integer
    if pa.types.is_floating(column.type):
        convert = _number
    equal = [found for found in map(convert, values) if found is not None]
    is_in = pc.is_in(column, value_set=pa.array(equal, column.type))
    return _as_numpy(pc.or_(is_in, column.is_null()) if has_null else is_in)


def _is_ordered(column: pa.Array, operator: str, operand: float) -> ndarray:
    compare = pc.greater_equal if operator == "gte" else pc.less_equal
    if pa.types.is_dictionary(column.type) or pa.types.is_large_string(column.type):
        raise _no_order(operator, operand)
    if pa.types.is_null(column.type):
        return np.zeros(len(column), bool)
    if pa.types.is_floating(column.type):
        bound = _nearest_float(operand)
    elif not _MIN_INTEGER <= operand <= _MAX_INTEGER:
        is_met = (operand < 0) == (operator == "gte")
        return _as_numpy(column.is_valid()) & is_met
    else:
        bound = math.ceil(operand) if operator == "gte" else math.floor(operand)
        column = column.cast(pa.int64())  # of booleans
    return _as_numpy(compare(column, pa.scalar(bound, column.type)).fill_null(False))


def _no_order(operator: str, operand: float) -> InputError:
    sign = ">=" if operator == "gte" else "<="
    return InputError(
        f"filter: the value and the attribute have different types ('{sign}' not supported between "
        f"instances of 'str' and '{type(operand).__name__}'); give a value of its type"
    )


def _text(value: Any) -> str | None:
    """The value if a column of texts can contain it, else None."""
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        return None
    return value


def _integer(value: Any) -> int | None:
    """The integer of 64 bits that equals the value, else None."""
    if not _is_number(value) or not _MIN_INTEGER <= value <= _MAX_INTEGER:
        return None
    return int(value) if value == int(value) else None


def _number(value: Any) -> float | None:
    """The float that equals the value, else None."""
    number = _nearest_float(value) if _is_number(value) else None
    return number if number == value else None


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real)  # of numpy, too


def _nearest_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _as_numpy(mask: pa.BooleanArray) -> ndarray:
    return np.asarray(mask.to_numpy(zero_copy_only=False))
