"""A cell of a Parquet table that cannot be read or kept exactly refuses its row; all others are packed."""

from __future__ import annotations

import datetime
import decimal
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.config.schema import AttributeSplit, Columns, TableCatalog
from raysys.errors import InputError
from raysys.pack.catalog import CatalogRow, open_catalog
from tests.catalogs import read_catalog

GOOD = ["a", "b", "c"]
LATIN_1 = [b"red", "Mütze".encode("latin-1"), b"blue"]


def text_of(values: list[bytes], kind: Any = None) -> Any:
    """A text column with these bytes: Arrow does not check them, and neither do programs that write Parquet."""
    kind = kind or pa.string()
    return pa.array(values, pa.large_binary() if kind == pa.large_string() else pa.binary()).view(kind)


def read(folder: Path, *, attribute: Any = None, **columns: Any) -> list[CatalogRow]:
    values = {"item_id": GOOD, "title": GOOD, "image": GOOD} | columns
    values |= {} if attribute is None else {"more": attribute}
    pq.write_table(pa.table(values), folder / "items.parquet", row_group_size=2)
    attributes = Columns() if attribute is None else Columns(attributes={"more": "text"})
    section = TableCatalog(path=f"{folder}/items.parquet", columns=attributes)
    assert open_catalog(section, AttributeSplit()).num_rows == 3
    return read_catalog(section)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        pytest.param({"title": text_of(LATIN_1)}, "bad_title", id="title"),
        pytest.param({"title": text_of(LATIN_1, pa.large_string())}, "bad_title", id="large title"),
        pytest.param({"title": text_of(LATIN_1).dictionary_encode()}, "bad_title", id="category"),
        pytest.param({"item_id": text_of(LATIN_1)}, "bad_item_id", id="item id"),
        pytest.param({"image": text_of(LATIN_1)}, "bad_image", id="path"),
        pytest.param({"image": pa.StructArray.from_arrays([text_of(LATIN_1)], ["path"])}, "bad_image", id="photo struct"),
        pytest.param({"attribute": text_of(LATIN_1)}, "bad_attribute", id="attribute"),
        pytest.param({"attribute": pa.array([0, 2**62, 0], pa.timestamp("us"))}, "bad_attribute", id="timestamp"),
        pytest.param({"attribute": pa.array([0, -(2**62), 0], pa.timestamp("ms"))}, "bad_attribute", id="negative timestamp"),
        pytest.param({"attribute": pa.array([0, 2**30, 0], pa.date32())}, "bad_attribute", id="date"),
        pytest.param({"item_id": [1.0, 2.0**53, 3.0]}, "bad_item_id", id="float id"),
        pytest.param({"item_id": [1.0, float("inf"), 3.0]}, "bad_item_id", id="infinite id"),
        pytest.param({"item_id": pa.array([1, 1 << 24, 3], pa.float32())}, "bad_item_id", id="id of 32 bits"),
        pytest.param({"item_id": pa.array([1, 1 << 11, 3], pa.float16())}, "bad_item_id", id="id of 16 bits"),
    ],
)  # fmt: skip
def test_bad_cell_refuses_its_row_only(tmp_path: Path, columns: dict[str, Any], reason: str) -> None:
    rows = read(tmp_path, **columns)
    assert [row.refusal and row.refusal.reason for row in rows] == [None, reason, None]
    assert rows[1].source == f"{tmp_path}/items.parquet:row 1"


def test_detail_shows_the_bytes(tmp_path: Path) -> None:
    refusal = read(tmp_path, title=text_of(LATIN_1))[1].refusal
    assert refusal
    assert refusal.detail == r"title in column 'title' should be UTF-8 text, got b'M\xfctze'"


@pytest.mark.parametrize(
    "ids",
    [
        pa.array([12345, 0, -7]),
        pa.array([12345.0, 0.0, -7.0]),
        pa.array([12345.0, 0.0, -7.0], pa.float32()),
        pa.array([decimal.Decimal(number) for number in ("12345.00", "0.00", "-7.00")]),
        pa.array([decimal.Decimal(number) for number in ("12345", "0", "-7")]),
    ],
)
def test_equal_numbers_are_equal_ids(tmp_path: Path, ids: Any) -> None:
    assert [row.item_id for row in read(tmp_path, item_id=ids)] == ["12345", "0", "-7"]


def test_fractions_and_long_decimals_keep_their_value(tmp_path: Path) -> None:
    ids = pa.array([decimal.Decimal("7.50"), decimal.Decimal("1e20") + 1, None], pa.decimal128(30, 2))
    rows = read(tmp_path, item_id=ids)
    assert [row.item_id for row in rows] == ["7.5", "100000000000000000001", ""]


def test_timestamps_in_range_stay_text(tmp_path: Path) -> None:
    moments = pa.array([datetime.datetime(2026, 11, 22, 9, 30), None, None], pa.timestamp("us"))
    rows = read(tmp_path, attribute=moments)
    assert [row.attributes["more"] for row in rows] == ["2026-11-22T09:30:00", None, None]


def test_column_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": [1], "title": ["a"], "image": ["a"], "zzzz": [1]}), path)
    path.write_bytes(path.read_bytes().replace(b"zzzz", b"zz\xfcz"))
    with pytest.raises(InputError, match="not a readable Parquet file") as caught:
        read_catalog(TableCatalog(path=str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif("RAYSYS_CASES" not in os.environ, reason="RAYSYS_CASES names no folder of cases")
def test_case() -> None:
    rows = read_catalog(TableCatalog(path=f"{os.environ['RAYSYS_CASES']}/parquet_latin1_title/data"))
    assert len(rows) == 20
    assert sum(row.refusal is not None for row in rows) == 1
