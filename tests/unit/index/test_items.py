"""The file of items: rows and ids are found, and nothing of it is copied into memory."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from raysys.columns import embedding_schema
from raysys.index import items as items_module
from raysys.index.items import IndexedItem, Items, PhotoPlace, item_columns, write_items

IDS = ["m1", "", "写真", "a/b", "m10", "m2", "\n"]


def open_items(folder: Path, ids: list[str]) -> Items:
    rows = [
        {"item_id": item_id, "title": f"title {row}", "attributes": f'{{"price": {row}}}', "group": f"g{row}", "split": "test",
         "shard": "x.tar", "image_offset": row, "image_bytes": 7, "content_hash": f"h{row}", "embedding": [1.0]}
        for row, item_id in enumerate(ids)
    ]  # fmt: skip
    table = pa.Table.from_pylist(rows, schema=embedding_schema(1))
    write_items(str(folder / "items.arrow"), item_columns("set", pa.concat_tables([table[:3], table[3:]])))
    return Items(folder / "items.arrow")


def test_items_are_found_by_id_and_by_row(tmp_path: Path) -> None:
    items = open_items(tmp_path, IDS)
    assert [items.row_of(item_id) for item_id in IDS] == [0, 1, 2, 3, 4, 5, 6]
    assert [items.row_of(item_id) for item_id in ("m3", "M1", "\ud800", "x" * 1000)] == [None] * 4
    assert items.item(2) == IndexedItem("写真", "title 2", {"price": 2}, "g2")
    assert items.photo_place(2) == PhotoPlace("x.tar", 2, 7, "h2")


def test_ids_that_share_a_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items_module, "_hash_of", len)
    items = open_items(tmp_path, ["ab", "c", "de", "fg"])
    assert [items.row_of(item_id) for item_id in ("ab", "c", "de", "fg")] == [0, 1, 2, 3]
    assert [items.row_of(item_id) for item_id in ("xy", "z", "xyz", "")] == [None] * 4


def test_opening_allocates_nothing_and_outlives_the_file(tmp_path: Path) -> None:
    ids = [f"m{row}" for row in range(5_000)]
    open_items(tmp_path, ids)
    before = pa.total_allocated_bytes()
    items = Items(tmp_path / "items.arrow")
    assert pa.total_allocated_bytes() - before < 10_000  # of a file of 500 kB
    (tmp_path / "items.arrow").unlink()
    assert items.item(4_999).title == "title 4999"
