"""Attributes in JSON become columns of one type, or an error that names the items."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from raysys.errors import InputError
from raysys.index import attributes
from raysys.index.attributes import attribute_columns

REMEDY = "give each attribute one type in catalog.columns.attributes, then pack, embed and index again"


def columns_of(rows: list[str]) -> pa.StructArray:
    ids = pa.chunked_array([[f"m{row}" for row in range(len(rows))]], pa.string())
    return attribute_columns("set", ids, pa.chunked_array([rows], pa.string()))


def test_values_and_types_are_kept() -> None:
    rows: list[dict[str, Any]] = [
        {"text": "a", "integer": 2**63 - 1, "double": 0.5, "boolean": True, "null": None},
        {"text": "写真", "integer": -5, "double": None, "boolean": False, "null": None},
        {"text": "2024-01-01", "integer": None, "double": 1e300, "boolean": None, "null": None},
    ]
    columns = columns_of([json.dumps(row) for row in rows])
    assert columns.to_pylist() == rows
    assert {field.name: str(field.type) for field in columns.type} == {
        "boolean": "bool", "double": "double", "integer": "int64", "null": "null", "text": "large_string",
    }  # fmt: skip


def test_item_without_an_attribute_has_a_null() -> None:
    assert columns_of(["{}", '{"size": "M"}']).to_pylist() == [{"size": None}, {"size": "M"}]
    assert columns_of(["{}", "{}"]).to_pylist() == [{}, {}]


@pytest.mark.parametrize(
    ("num_values", "codes"), [(1, "int8"), (128, "int8"), (129, "int16"), (40_000, "int32")]
)
def test_texts_that_repeat_are_encoded_with_the_smallest_codes(num_values: int, codes: str) -> None:
    rows = [json.dumps({"x": f"{row % num_values}"}) for row in range(2 * num_values)]
    column = columns_of(rows).field("x")
    assert str(column.type.index_type) == codes
    assert column[num_values - 1].as_py() == f"{num_values - 1}"


def test_types_are_united_over_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "_ROWS_AT_ONCE", 1)
    columns = columns_of(['{"x": 1}', '{"x": 2.5}', "{}", '{"y": "a"}', '{"y": null}'])
    assert columns.to_pylist() == [
        {"x": 1.0, "y": None}, {"x": 2.5, "y": None}, {"x": None, "y": None}, {"x": None, "y": "a"}, {"x": None, "y": None},
    ]  # fmt: skip
    with pytest.raises(InputError, match="'x' is a number in item 'm0' and a boolean in item 'm1'"):
        columns_of(['{"x": 1}', '{"x": true}'])


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (['{"x": "a"}', '{"x": 1}'], "attribute 'x' is a text in item 'm0' and a number in item 'm1'"),
        (['{"x": 0}', '{"x": false}'], "attribute 'x' is a number in item 'm0' and a boolean in item 'm1'"),
        (['{"x": 0.5}', '{"x": true}'], "attribute 'x' is a number in item 'm0' and a boolean in item 'm1'"),
        (['{"x": 0.5}', '{"x": 9007199254740993}'], "an attribute has both fractions and integers above 2**53"),
        (["{}", '{"x": [1]}'], "item 'm1': attribute 'x' is [1]; a text, a boolean or a finite number"),
        (['{"x": {"y": 1}}'], "item 'm0': attribute 'x' is {'y': 1}; a text"),
        (['{"x": NaN}'], "item 'm0': attribute 'x' is nan; a text"),
        (['{"x": 9223372036854775808}'], "item 'm0': attribute 'x' is 9223372036854775808; a text"),
        (["{", "{}"], "item 'm0': its attributes are no JSON object: '{'"),
        (["{}", "[]"], "item 'm1': its attributes are no JSON object: '[]'"),
        (["1", "2"], "item 'm0': its attributes are no JSON object: '1'"),
        (["null", "{}"], "item 'm0': its attributes are no JSON object: 'null'"),
    ],
)  # fmt: skip
def test_what_no_column_holds_is_refused(rows: list[str], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        columns_of(rows)
    message = str(caught.value)
    assert message.startswith(f"set: {expected}")
    assert message.endswith(f"; {REMEDY}")
    assert "\n" not in message
