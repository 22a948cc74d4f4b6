"""The types of attribute values, and which of them one column of an index holds together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysys.errors import InputError
from raysys.terminal import printable
from raysys.types import Attributes

HELD = "a text, a boolean or a finite number of 64 bits"
_QUOTED = 80  # characters
_MAX_EXACT = 2**53  # up to which a double holds every integer


class ValueType(Enum):
    """The type of a value. Integers fit a column of integers or doubles, but not all of them both."""

    TEXT = "a text"
    BOOLEAN = "a boolean"
    INTEGER = "a number"
    LARGE_INTEGER = "an integer above 2**53"
    FRACTION = "a fraction"

    @property
    def kind(self) -> str:
        """How a message names the type, unless it compares two types of numbers."""
        return self.value if self in (ValueType.TEXT, ValueType.BOOLEAN) else ValueType.INTEGER.value

    def fits(self, other: ValueType) -> bool:
        """Whether one column holds values of both types exactly."""
        return self.kind == other.kind and {self, other} != {ValueType.LARGE_INTEGER, ValueType.FRACTION}


def type_of(value: Any) -> ValueType | None:
    """The type of a value; None for null, and for a value that no column holds."""
    if isinstance(value, str):
        return ValueType.TEXT
    if isinstance(value, bool):
        return ValueType.BOOLEAN
    if isinstance(value, float):
        return ValueType.FRACTION if math.isfinite(value) else None
    if not isinstance(value, int) or not -(2**63) <= value < 2**63:
        return None
    return ValueType.INTEGER if -_MAX_EXACT <= value <= _MAX_EXACT else ValueType.LARGE_INTEGER


def types_of_column(column: pa.Array) -> list[ValueType]:
    """The types that the values of an attribute's column have; none for a column of nulls."""
    if pa.types.is_null(column.type):
        return []
    if pa.types.is_floating(column.type):
        return [ValueType.FRACTION]
    if pa.types.is_boolean(column.type):
        return [ValueType.BOOLEAN]
    if not pa.types.is_integer(column.type):
        return [ValueType.TEXT]
    bounds = pc.min_max(column).as_py().values()
    return [found for bound in bounds if (found := type_of(bound)) is not None]


def held_together(types: Iterable[ValueType]) -> list[ValueType]:
    """The first type, and each later one that fits the same column."""
    held: list[ValueType] = []
    for each in types:
        if each not in held and all(each.fits(other) for other in held):
            held.append(each)
    return held


def require_fitting(item_id: str, attributes: Attributes, known: Mapping[str, Iterable[ValueType]]) -> None:
    """Check that the columns of an index hold the attributes of an item beside the types that they have.

    Raises: InputError that names the first attribute that does not fit.
    """
    for name, value in attributes.items():
        if value is None:
            continue
        found = type_of(value)
        if found is None:
            raise InputError(f"{_where(item_id, name)} is {value!r:.80}; {HELD} is needed")
        for other in known.get(name, ()):
            if not found.fits(other):
                raise InputError(
                    f"{_where(item_id, name)} is {_words(other, found)} in the index, got "
                    f"{_words(found, other)} ({value!r:.80}); put a value of the index's type, or null"
                )


def require_one_type(items: Mapping[str, Attributes]) -> None:
    """Check that one column holds an attribute of all items, by id. Raises: InputError that names two."""
    first: dict[tuple[str, ValueType], str] = {}
    for item_id, attributes in items.items():
        for name, value in attributes.items():
            found = type_of(value)
            if found is None:
                continue
            for other in ValueType:
                if not found.fits(other) and (other_id := first.get((name, other))) is not None:
                    raise InputError(
                        f"{_where(item_id, name)} is {_words(found, other)}, and {_words(other, found)} in "
                        f"item '{printable(other_id, _QUOTED)}'; give the attribute one type"
                    )
            first.setdefault((name, found), item_id)


def _where(item_id: str, name: str) -> str:
    return f"item '{printable(item_id, _QUOTED)}': attribute '{printable(name, _QUOTED)}'"


def _words(one: ValueType, other: ValueType) -> str:
    """How a message names a type that does not fit another one."""
    return one.value if one.kind == other.kind else one.kind
