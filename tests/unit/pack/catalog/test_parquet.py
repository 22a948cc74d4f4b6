"""A Parquet file becomes rows, with photos stored in the table, in small batches."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.config.schema import Columns, TableCatalog
from raysys.errors import InputError
from raysys.pack.catalog import CatalogRow, Refusal, catalog_files
from tests.catalogs import read_catalog


def write_table(folder: Path, columns: dict[str, Any], **options: Any) -> TableCatalog:
    path = folder / "items.parquet"
    pq.write_table(pa.table(columns), path, **options)
    attributes = [name for name in columns if name not in ("item_id", "title", "image")]
    return TableCatalog(path=str(path), columns=Columns(attributes=dict.fromkeys(attributes, "integer")))


def test_rows_are_converted_and_numbered_across_row_groups(tmp_path: Path) -> None:
    columns = {
        "item_id": [7, 8, 9],
        "title": ["a", None, "c"],
        "image": ["a.jpg"] * 3,
        "price": [1.0, None, 2.5],
    }
    path = f"{tmp_path}/items.parquet"
    photo = f"{tmp_path}/a.jpg"
    assert read_catalog(write_table(tmp_path, columns, row_group_size=2)) == [
        CatalogRow("7", "a", photo, {"price": 1}, None, f"{path}:row 0"),
        CatalogRow("8", "", photo, {"price": None}, None, f"{path}:row 1"),
        CatalogRow("9", "c", photo, {"price": None}, None, f"{path}:row 2",
                   Refusal("bad_attribute", "attribute 'price' should be of type integer, got 2.5")),
    ]  # fmt: skip


def test_nan_of_pandas_is_none(tmp_path: Path) -> None:
    columns = {"item_id": ["a"], "title": ["a"], "image": ["a.jpg"], "price": [float("nan")]}
    (row,) = read_catalog(write_table(tmp_path, columns))
    assert (row.attributes, row.refusal) == ({"price": None}, None)


def test_dates_and_categories_are_text(tmp_path: Path) -> None:
    listed = pa.array([datetime.date(2026, 11, 22)])
    columns = {
        "item_id": ["a"],
        "title": pa.array(["t"]).dictionary_encode(),
        "image": ["a.jpg"],
        "listed": listed,
    }
    section = write_table(tmp_path, columns)
    (row,) = read_catalog(section.model_copy(update={"columns": Columns(attributes={"listed": "text"})}))
    assert (row.title, row.attributes) == ("t", {"listed": "2026-11-22"})


def test_photos_may_be_stored_in_the_table(tmp_path: Path) -> None:
    columns = {"item_id": ["a", "b"], "title": ["a", "b"], "image": [b"photo", None]}
    assert [row.photo for row in read_catalog(write_table(tmp_path, columns))] == [b"photo", ""]


def test_photo_struct_of_hugging_face_datasets_is_read(tmp_path: Path) -> None:
    photos = [
        {"bytes": b"photo", "path": "a.jpg"},
        {"bytes": None, "path": "b.jpg"},
        {"bytes": None, "path": None},
        None,
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"item_id": list("abcd"), "title": list("abcd"), "image": pa.array(photos, kind)}
    rows = read_catalog(write_table(tmp_path, columns))
    assert [row.photo for row in rows] == [b"photo", f"{tmp_path}/b.jpg", "", ""]


def test_photos_are_read_a_few_megabytes_at_a_time(tmp_path: Path) -> None:
    photos = [bytes([number]) * (1 << 20) for number in range(64)]
    columns = {"item_id": [str(number) for number in range(64)], "title": ["t"] * 64, "image": photos}
    section = write_table(tmp_path, columns, row_group_size=8)
    del columns
    before = pa.total_allocated_bytes()
    peak = max(
        pa.total_allocated_bytes() - before
        for file in catalog_files(section)
        for row in file.rows(section, None)
        if row.photo == photos[int(row.item_id)]
    )
    assert peak < 40 << 20  # of 64 MB: one decompressed row group of 8, and its batch


def test_missing_column_is_an_error(tmp_path: Path) -> None:
    section = write_table(tmp_path, {"item_id": [1], "titles": ["a"], "image": ["a.jpg"]})
    with pytest.raises(InputError) as caught:
        read_catalog(section.model_copy(update={"columns": Columns()}))
    assert str(caught.value) == (
        f"{section.path}: no column 'title' (found: item_id, titles, image); "
        "set catalog.columns.title; did you mean 'titles'?"
    )


def test_file_that_is_not_parquet_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "items.parquet").write_text("item_id,title,image\n1,a,a.jpg\n")
    with pytest.raises(InputError) as caught:
        read_catalog(TableCatalog(path=f"{tmp_path}/items.parquet"))
    assert str(caught.value).startswith(f"{tmp_path}/items.parquet: not a readable Parquet file (")


def test_damaged_page_is_an_error(tmp_path: Path) -> None:
    section = write_table(tmp_path, {"item_id": ["a" * 100] * 50, "title": ["a"] * 50, "image": ["a"] * 50})
    data = bytearray(Path(section.path).read_bytes())
    data[4:60] = b"\xff" * 56
    Path(section.path).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_catalog(section)
    assert str(caught.value).startswith(f"{section.path}: not a readable Parquet file (")
