"""Changes as rows: what a database cannot hold is refused in one line."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from raysys.errors import InputError
from raysys.store.changes import Delete, PhotoFile
from raysys.store.rows import checked_change, vector_bytes
from tests.store_writer import upsert

NUL = "has a NUL character, which databases cannot store; remove it"
SURROGATE = "has a lone surrogate, which is no text; remove it"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"title": "a\0b"}, f"item 'm1': its title {NUL}"),
        ({"title": "\ud800"}, f"item 'm1': its title {SURROGATE}"),
        ({"item_id": "m\0"}, rf"item 'm\x00': its id {NUL}"),
        ({"item_id": "m\udfff"}, rf"item 'm\udfff': its id {SURROGATE}"),
        ({"group": "\0"}, f"item 'm1': its group {NUL}"),
        ({"content_hash": "\0"}, f"item 'm1': its content hash {NUL}"),
        ({"photo": PhotoFile("\ud800", 1)}, f"item 'm1': the URI of its photo {SURROGATE}"),
        ({"attributes": {"\0": 1}}, f"item 'm1': the name of an attribute {NUL}"),
        ({"attributes": {"color": "\0"}}, f"item 'm1': its attribute 'color' {NUL}"),
        ({"attributes": {"color": "\ud800"}}, f"item 'm1': its attribute 'color' {SURROGATE}"),
        ({"attributes": {"price": math.nan}}, "item 'm1': its attribute 'price' is nan; give a finite number or null"),
        ({"attributes": {"price": -math.inf}}, "item 'm1': its attribute 'price' is -inf; give a finite number or null"),
        ({"attributes": {"sizes": ["S"]}}, "item 'm1': its attribute 'sizes' is a list; give text, a number, true, false or null"),
    ],
)  # fmt: skip
def test_what_a_database_cannot_hold_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        checked_change(upsert(**{"item_id": "m1", **fields}))
    assert str(caught.value) == message


def test_delete_of_an_id_with_nul_is_refused() -> None:
    with pytest.raises(InputError, match="its id has a NUL"):
        checked_change(Delete("\0"))


def test_order_of_attributes_does_not_matter() -> None:
    first, second = ({"a": 1, "b": "é"}, {"b": "é", "a": 1})
    assert checked_change(upsert("m1", attributes=first)) == checked_change(upsert("m1", attributes=second))
    assert checked_change(upsert("m1", attributes=first)).row["attributes"] == '{"a":1,"b":"é"}'


def test_vector_is_stored_as_little_endian_float32() -> None:
    assert vector_bytes(np.array([0.0, -1.0], np.float32), "s", "item 'm1'") == b"\0\0\0\0\0\0\x80\xbf"


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.array([1.0, 1.0], np.float32), "has length 1.41421 instead of 1; normalise it"),
        (np.array([math.nan], np.float32), "has length nan instead of 1; normalise it"),
        (np.array([1.0]), "has shape (1,) and dtype float64; give one dimension of float32"),
        (np.array([[1.0]], np.float32), "has shape (1, 1) and dtype float32; give one dimension of float32"),
    ],
)
def test_vector_that_is_not_of_length_1_is_refused(vector: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        vector_bytes(vector, "s", "item 'm1'")
    assert str(caught.value) == f"item 'm1': its vector in space s {message}"
