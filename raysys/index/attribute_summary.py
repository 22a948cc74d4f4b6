"""What the items of an index have in each attribute: the values and bounds that a filter can choose."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from raysys.index.delta import Delta
from raysys.index.parts import BasePart
from raysys.index.state import State
from raysys.types import Attributes

MAX_VALUES = 50
_MAX_COUNTED_ROWS = 65_536  # of a file whose texts mostly differ: to count them takes time and memory

Kind: TypeAlias = Literal["text", "number", "boolean"]


@dataclass(frozen=True)
class ValueCount:
    """A value of an attribute, and how many items have it."""

    value: str | bool
    count: int


@dataclass(frozen=True)
class AttributeSummary:
    """One attribute of the items that can be found."""

    kind: Kind
    values: list[ValueCount] | None = None
    """At most 50, most frequent first; None for numbers, and if more than half of the texts differ."""
    num_values: int | None = None
    """The number of different values, if `values` is set."""
    min: float | int | None = None
    max: float | int | None = None


def attribute_summaries(state: State) -> dict[str, AttributeSummary]:
    """Each attribute that an item has, by name.

    An attribute has the kind of its values in the index; items that were put later may have values of
    another kind, which are not counted.
    """
    columns = {name: [*_base_columns(state.base, name)] for name in state.attributes}
    later = _later_attributes(state.delta)
    summaries = {name: _summary(columns[name], [each.get(name) for each in later]) for name in columns}
    return {name: summary for name, summary in summaries.items() if summary is not None}


def _base_columns(parts: Sequence[BasePart], name: str) -> Iterable[pa.Array]:
    """The attribute in each FAISS file, without hidden rows."""
    for part in parts:
        column = part.items.attributes.get(name)
        if column is not None and not pa.types.is_null(column.type):
            is_whole = part.num_items == len(part.items)
            yield column if is_whole else column.take(pa.array(part.rows()))


def _later_attributes(delta: Delta) -> list[Attributes]:
    return [delta.item(int(row)).attributes for row in delta.rows()]


def _summary(columns: list[pa.Array], later: list[Any]) -> AttributeSummary | None:
    """The summary of one attribute; None if no item has it."""
    known = [value for value in later if value is not None]
    if not columns and not known:
        return None
    kind = _kind_of_type(columns[0].type) if columns else _kind_of(known[0])
    same = [value for value in known if _kind_of(value) == kind]
    if kind == "number":
        low, high = _bounds(columns, [value for value in same if math.isfinite(value)])
        return AttributeSummary(kind, min=low, max=high) if low is not None else None
    counts: Counter[Any] = Counter(same)
    for column in columns:
        if pa.types.is_large_string(column.type) and len(column) > _MAX_COUNTED_ROWS:
            return AttributeSummary(kind)
        counted = column.value_counts()
        counts.update(dict(zip(*(counted.field(part).to_pylist() for part in (0, 1)), strict=True)))
    del counts[None]
    if not counts:
        return None
    if kind == "text" and 2 * len(counts) > counts.total():
        return AttributeSummary(kind)
    frequent = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_VALUES]
    return AttributeSummary(kind, [ValueCount(*pair) for pair in frequent], len(counts))


def _bounds(columns: list[pa.Array], later: list[float]) -> tuple[float | int | None, float | int | None]:
    bounds = [pc.min_max(column).as_py() for column in columns if column.null_count < len(column)]
    low = min([each["min"] for each in bounds] + later, default=None)
    return low, max([each["max"] for each in bounds] + later, default=None)


def _kind_of_type(data_type: pa.DataType) -> Kind:
    if pa.types.is_boolean(data_type):
        return "boolean"
    is_text = pa.types.is_dictionary(data_type) or pa.types.is_large_string(data_type)
    return "text" if is_text else "number"


def _kind_of(value: str | float | bool) -> Kind:
    if isinstance(value, bool):
        return "boolean"
    return "text" if isinstance(value, str) else "number"
