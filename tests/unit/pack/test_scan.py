"""The scan writes the values of a part to a file, and photos that cannot be read again to a second file."""

from __future__ import annotations

import hashlib
import io
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysys import storage
from raysys.config.schema import ColumnSplit, GroupSplit, PackConfig
from raysys.pack import scan as scan_module
from raysys.pack.catalog import CatalogRow, Refusal
from raysys.pack.scan import Part, cut_parts, scan

SECTION = PackConfig(split=ColumnSplit())


def encoded(colour: str = "red", kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, kind)
    return data.getvalue()


def row(item_id: str = "a", photo: str | bytes = b"", **changes: Any) -> CatalogRow:
    values = {
        "title": " red\tcup ",
        "attributes": {"seller": "anna"},
        "split": "val",
        "source": "items.csv:2",
    }
    return CatalogRow(**{"item_id": item_id, "photo": photo or encoded(), **values, **changes})


def scanned(folder: Path, *rows: CatalogRow, section: PackConfig = SECTION) -> list[dict[str, Any]]:
    part = Part(0, 3, rows)
    assert scan(part, section=section, folder=str(folder)) == len(rows)
    result: list[dict[str, Any]] = pq.read_table(folder / "part-0000-000003.parquet").to_pylist()
    return result


def test_parts_are_cut_by_number_of_rows() -> None:
    rows = [row(f"i{number}", "p.jpg") for number in range(7)]
    parts = list(cut_parts(2, rows, rows_per_part=3))
    assert [part.stem for part in parts] == ["part-0002-000000", "part-0002-000001", "part-0002-000002"]
    assert [len(part.rows) for part in parts] == [3, 3, 1]
    assert [one for part in parts for one in part.rows] == rows


def test_done_parts_are_left_out_and_the_boundaries_stay() -> None:
    rows = [row(f"i{number}", "p.jpg") for number in range(7)]
    parts = list(cut_parts(0, rows, rows_per_part=3))
    done = {"part-0000-000000", "part-0000-000002"}
    assert list(cut_parts(0, rows, done=done, rows_per_part=3)) == [parts[1]]


def test_parts_with_photos_in_the_table_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_PHOTO_BYTES_PER_PART", 100)
    parts = cut_parts(0, [row(photo=bytes(60)) for _ in range(5)])
    assert [len(part.rows) for part in parts] == [2, 2, 1]


def test_unchanged_photo_is_referenced_at_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encoded())
    (result,) = scanned(tmp_path, row(photo=str(tmp_path / "a.jpg")))
    assert (result["photo_uri"], result["photo_offset"]) == (str(tmp_path / "a.jpg"), 0)
    assert result["photo_sha256"] == hashlib.sha256(encoded()).digest()
    assert (result["title"], result["attributes"], result["split"]) == (
        "red cup",
        '{"seller": "anna"}',
        "val",
    )
    assert not (tmp_path / "part-0000-000003.photos").exists()


def test_photos_from_the_table_and_reencoded_photos_go_to_the_photo_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded("blue", "PNG"))
    first, second = scanned(tmp_path, row("a", encoded()), row("b", str(tmp_path / "a.png")))
    photo_file = str(tmp_path / "part-0000-000003.photos")
    assert first["photo_uri"] == second["photo_uri"] == photo_file
    assert storage.read_range(photo_file, first["photo_offset"], first["photo_bytes"]) == encoded()
    reencoded = storage.read_range(photo_file, second["photo_offset"], second["photo_bytes"])
    assert Image.open(io.BytesIO(reencoded)).format == "JPEG"
    assert hashlib.sha256(reencoded).digest() == second["photo_sha256"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"item_id": ""}, "no_id"),
        ({"title": " \t"}, "no_title"),
        ({"photo": "gone.jpg"}, "missing_image"),
        ({"photo": b"no photo"}, "not_an_image"),
        ({"refusal": Refusal("bad_price", "price is 'x'"), "split": None}, "bad_price"),
    ],
)
def test_refused_row_has_a_reason_and_no_photo(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    (result,) = scanned(tmp_path, row(**changes))
    assert result["reason"] == reason
    assert result["detail"]
    assert result["photo_uri"] is None


def test_row_without_a_photo_is_refused(tmp_path: Path) -> None:
    (result,) = scanned(tmp_path, CatalogRow("a", "cup", "", {}, "train", "items.csv:2"))
    assert (result["reason"], result["detail"]) == ("no_image", "the row names no photo")


def test_item_hash_covers_photo_title_and_attributes(tmp_path: Path) -> None:
    rows = [row(), row("b"), row(photo=encoded("blue")), row(title="cup"), row(attributes={"seller": "ben"})]
    hashes = [result["item_hash"] for result in scanned(tmp_path, *rows)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_seller_title_hash_is_equal_for_equal_seller_and_clean_title(tmp_path: Path) -> None:
    rows = [
        row(),
        row("b", encoded("blue"), title="red cup"),
        row(attributes={"seller": "ben"}),
        row(attributes={}),
    ]
    hashes = [result["seller_title_hash"] for result in scanned(tmp_path, *rows)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert hashes[3] is None


def test_split_is_null_where_the_group_decides(tmp_path: Path) -> None:
    (result,) = scanned(tmp_path, row(), section=PackConfig(split=GroupSplit()))
    assert result["split"] is None


def test_photos_do_not_accumulate_in_memory(tmp_path: Path) -> None:
    Image.effect_noise((400, 400), 90).convert("RGB").save(tmp_path / "a.png", "PNG")
    size = (tmp_path / "a.png").stat().st_size
    rows = [row(f"i{number}", str(tmp_path / "a.png")) for number in range(30)]
    (tmp_path / "warm_up").mkdir()
    scanned(tmp_path / "warm_up", rows[0])  # imports SciPy, whose modules would count
    tracemalloc.start()
    try:
        scanned(tmp_path, *rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "part-0000-000003.photos").stat().st_size > size  # 30 photos, smaller as JPEG
    assert peak < 8 * size
