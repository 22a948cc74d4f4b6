"""A part of the catalogue becomes facts in a file, and photos that cannot be read again are kept beside it."""

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
from raysys.pack import scan as surveying
from raysys.pack.catalog import CatalogRow
from raysys.pack.scan import Part, cut, survey

SECTION = PackConfig(split=ColumnSplit())


def photo(colour: str = "red", kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(data, kind)
    return data.getvalue()


def row(item_id: str = "a", image: str | bytes = b"", **changes: Any) -> CatalogRow:
    said = {"title": " red\tcup ", "attributes": {"seller": "anna"}, "split": "val", "source": "items.csv:2"}
    return CatalogRow(**{"item_id": item_id, "image": image or photo(), **said, **changes})


def surveyed(folder: Path, *rows: CatalogRow, section: PackConfig = SECTION) -> list[dict[str, Any]]:
    part = Part(0, 3, rows)
    assert survey(part, section=section, folder=str(folder)) == len(rows)
    found: list[dict[str, Any]] = pq.read_table(folder / "part-0000-000003.parquet").to_pylist()
    return found


def test_parts_are_cut_by_number_of_rows() -> None:
    rows = [row(f"i{number}", "p.jpg") for number in range(7)]
    parts = list(cut(2, rows, rows_per_part=3))
    assert [part.stem for part in parts] == ["part-0002-000000", "part-0002-000001", "part-0002-000002"]
    assert [len(part.rows) for part in parts] == [3, 3, 1]
    assert [one for part in parts for one in part.rows] == rows


def test_parts_that_are_done_are_left_out_and_the_others_stay_as_they_were() -> None:
    rows = [row(f"i{number}", "p.jpg") for number in range(7)]
    whole = list(cut(0, rows, rows_per_part=3))
    assert list(cut(0, rows, done={"part-0000-000000", "part-0000-000002"}, rows_per_part=3)) == [whole[1]]


def test_parts_of_photos_in_the_table_are_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveying, "_BYTES_PER_PART", 100)
    parts = cut(0, [row(image=bytes(60)) for _ in range(5)])
    assert [len(part.rows) for part in parts] == [2, 2, 1]


def test_a_photo_that_is_as_it_should_be_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    (fact,) = surveyed(tmp_path, row(image=str(tmp_path / "a.jpg")))
    assert (fact["photo_uri"], fact["photo_offset"]) == (str(tmp_path / "a.jpg"), 0)
    assert fact["photo_sha256"] == hashlib.sha256(photo()).digest()
    assert (fact["title"], fact["attributes"], fact["split"]) == ("red cup", '{"seller": "anna"}', "val")
    assert not (tmp_path / "part-0000-000003.photos").exists()


def test_other_photos_are_kept_beside_the_facts(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo("blue", "PNG"))
    first, second = surveyed(tmp_path, row("a", photo()), row("b", str(tmp_path / "a.png")))
    kept = str(tmp_path / "part-0000-000003.photos")
    assert first["photo_uri"] == second["photo_uri"] == kept
    assert storage.read_range(kept, first["photo_offset"], first["photo_bytes"]) == photo()
    encoded = storage.read_range(kept, second["photo_offset"], second["photo_bytes"])
    assert Image.open(io.BytesIO(encoded)).format == "JPEG"
    assert hashlib.sha256(encoded).digest() == second["photo_sha256"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"item_id": ""}, "no_id"),
        ({"title": " \t"}, "no_title"),
        ({"image": "gone.jpg"}, "missing_image"),
        ({"image": b"no photo"}, "not_an_image"),
        ({"problem": ("bad_price", "price is 'x'"), "split": None}, "bad_price"),
    ],
)
def test_a_row_that_cannot_be_used_has_a_reason_and_no_photo(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    (fact,) = surveyed(tmp_path, row(**changes))
    assert fact["reason"] == reason
    assert fact["detail"]
    assert fact["photo_uri"] is None


def test_a_row_without_a_photo_is_refused(tmp_path: Path) -> None:
    (fact,) = surveyed(tmp_path, CatalogRow("a", "cup", "", {}, "train", "items.csv:2"))
    assert (fact["reason"], fact["detail"]) == ("no_image", "the row names no photo")


def test_content_is_photo_title_and_attributes(tmp_path: Path) -> None:
    changed = [row(), row("b"), row(image=photo("blue")), row(title="cup"), row(attributes={"seller": "ben"})]
    hashes = [fact["item_hash"] for fact in surveyed(tmp_path, *changed)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4


def test_twins_have_seller_and_title_in_common(tmp_path: Path) -> None:
    rows = [
        row(),
        row("b", photo("blue"), title="red cup"),
        row(attributes={"seller": "ben"}),
        row(attributes={}),
    ]
    twins = [fact["twin"] for fact in surveyed(tmp_path, *rows)]
    assert twins[0] == twins[1] != twins[2]
    assert twins[3] is None


def test_a_group_decides_the_split_later(tmp_path: Path) -> None:
    (fact,) = surveyed(tmp_path, row(), section=PackConfig(split=GroupSplit()))
    assert fact["split"] is None


def test_photos_are_not_gathered_in_memory(tmp_path: Path) -> None:
    Image.effect_noise((400, 400), 90).convert("RGB").save(tmp_path / "a.png", "PNG")
    size = (tmp_path / "a.png").stat().st_size
    rows = [row(f"i{number}", str(tmp_path / "a.png")) for number in range(30)]
    tracemalloc.start()
    try:
        surveyed(tmp_path, *rows)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "part-0000-000003.photos").stat().st_size > size  # thirty of them, smaller as JPEG
    assert peak < 8 * size
