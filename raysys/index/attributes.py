"""The attributes of items as columns: JSON texts become one typed column per attribute."""

from __future__ import annotations

import json
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from raysys.errors import InputError
from raysys.index.value_types import HELD, ValueType, type_of

_ROWS_AT_ONCE = 65_536  # parsed rows take many times the memory of columns
_REMEDY = "give each attribute one type in catalog.columns.attributes, then pack, embed and index again"

AttributeKinds: TypeAlias = dict[str, tuple[str, str]]
"""Attribute to its kind and the id of an item that has it."""


def attribute_columns(uri: str, item_ids: pa.ChunkedArray, texts: pa.ChunkedArray) -> pa.StructArray:
    """The attributes of all rows of the EmbeddingSet at `uri`, as fields of text, int64, double or boolean.

    An item without an attribute has a null there; an attribute that no item has is a field of nulls. Integers
    and floats of one attribute become doubles. Texts that repeat are dictionary encoded.
    Raises: InputError, naming the item, for an attribute of mixed types and for a value that no column holds:
    a list, an object, a number that is not finite or has more than 64 bits.
    """
    try:
        parts = [
            _typed([json.loads(text) for text in texts[start : start + _ROWS_AT_ONCE].to_pylist()])
            for start in range(0, len(texts), _ROWS_AT_ONCE)
        ]
        names = sorted({field.name for part in parts for field in part.type})
        columns = [_column(parts, name) for name in names]
    except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
        raise _fault(uri, item_ids, texts) from error
    if not names:
        return pa.array([{}] * len(texts), pa.struct([]))
    return pa.StructArray.from_arrays(columns, names=names)


def attribute_kinds(item_ids: pa.ChunkedArray, columns: pa.StructArray) -> AttributeKinds:
    """The kind of every attribute that an item has; `columns` are those of `attribute_columns`."""
    kinds = {}
    for field in columns.type:
        if not pa.types.is_null(field.type):
            row = pc.index(columns.field(field.name).is_valid(), True).as_py()
            kinds[field.name] = _kind_of_column(field.type), item_ids[row].as_py()
    return kinds


def require_one_kind(uri: str, first: AttributeKinds, second: AttributeKinds) -> None:
    """Check the columns of two files of one EmbeddingSet. Raises: InputError that names two items."""
    for name in first.keys() & second.keys():
        if first[name][0] != second[name][0]:
            raise _mixed(uri, name, first[name], second[name])


def _typed(rows: list[Any]) -> pa.StructArray:
    """Rows as a struct array. Raises: errors of Arrow for mixed types, ValueError for other than objects."""
    part = pa.array(rows, from_pandas=False)
    if not pa.types.is_struct(part.type) or part.null_count:
        raise ValueError("not objects")
    for field in part.type:
        if pa.types.is_nested(field.type):
            raise ValueError(f"{field.name} is nested")
        if pa.types.is_floating(field.type):
            if not pc.all(pc.is_finite(part.field(field.name))).as_py():
                raise ValueError(f"{field.name} is not finite")
            if any(isinstance(row.get(field.name), bool) for row in rows):  # Arrow would make it 1.0
                raise TypeError(f"{field.name} has mixed types")
    return part


def _column(parts: list[pa.StructArray], name: str) -> pa.Array:
    """One attribute of all rows."""
    chunks = [
        part.field(name) if part.type.get_field_index(name) >= 0 else pa.nulls(len(part)) for part in parts
    ]
    types = {chunk.type for chunk in chunks} - {pa.null()}
    if types == {pa.int64(), pa.float64()}:
        types = {pa.float64()}
    if len(types) > 1:
        raise TypeError("mixed types")
    data_type = pa.large_string() if pa.string() in types else next(iter(types), pa.null())
    column = pa.concat_arrays([chunk.cast(data_type) for chunk in chunks])
    return _encoded(column) if data_type == pa.large_string() else column


def _encoded(texts: pa.LargeStringArray) -> pa.Array:
    """Texts as a dictionary with the smallest codes if values repeat, else unchanged."""
    encoded = texts.dictionary_encode()
    if 2 * len(encoded.dictionary) > len(texts):
        return texts
    for codes in (pa.int8(), pa.int16()):
        if len(encoded.dictionary) <= 1 << (codes.bit_width - 1):
            return pa.DictionaryArray.from_arrays(encoded.indices.cast(codes), encoded.dictionary)
    return encoded


def _fault(uri: str, item_ids: pa.ChunkedArray, texts: pa.ChunkedArray) -> InputError:
    """The error for the first item whose attributes fit no column."""
    first: dict[str, tuple[str, str]] = {}
    for item_id, text in zip(item_ids.to_pylist(), texts.to_pylist(), strict=True):
        try:
            attributes = dict(json.loads(text).items())
        except (ValueError, AttributeError):
            return InputError(
                f"{uri}: item '{item_id}': its attributes are no JSON object: {text!r:.80}; {_REMEDY}"
            )
        for name, value in attributes.items():
            if value is None:
                continue
            found = type_of(value)
            if found is None:
                return InputError(
                    f"{uri}: item '{item_id}': attribute '{name}' is {value!r:.80}; {HELD} is needed; "
                    f"{_REMEDY}"
                )
            first_kind, first_id = first.setdefault(name, (found.kind, item_id))
            if found.kind != first_kind:
                return _mixed(uri, name, (first_kind, first_id), (found.kind, item_id))
    return InputError(
        f"{uri}: an attribute has both fractions and integers above 2**53, which no column holds exactly; "
        f"{_REMEDY}"
    )


def _mixed(uri: str, name: str, first: tuple[str, str], second: tuple[str, str]) -> InputError:
    return InputError(
        f"{uri}: attribute '{name}' is {first[0]} in item '{first[1]}' and {second[0]} in item "
        f"'{second[1]}'; {_REMEDY}"
    )


def _kind_of_column(data_type: pa.DataType) -> str:
    is_text = pa.types.is_dictionary(data_type) or pa.types.is_large_string(data_type)
    is_boolean = pa.types.is_boolean(data_type)
    return (ValueType.TEXT if is_text else ValueType.BOOLEAN if is_boolean else ValueType.FRACTION).kind
