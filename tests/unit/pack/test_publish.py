"""The ledger lists every refused row with its reason, and the counts add up to the catalogue."""

from __future__ import annotations

import collections
import io
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysys import storage
from raysys.config import Config
from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import DamagedData, InputError
from raysys.tracking import logs
from tests.unit.pack.small_catalogue import (
    BY_COLUMN,
    files_folder,
    jpeg,
    numbered_rows,
    pack,
    read_ledger,
    run,
    write_catalogue,
)

BAD_ROWS: dict[str, dict[str, str]] = {
    "no_id": {"item_id": " "},
    "repeated_id": {"item_id": "good", "part": "val"},
    "no_title": {"item_id": "untitled", "title": " \t"},
    "no_image": {"item_id": "unnamed", "image": ""},
    "missing_image": {"item_id": "gone", "image": "gone.jpg"},
    "not_an_image": {"item_id": "text", "image": "text.jpg"},
    "too_many_pixels": {"item_id": "large", "image": "large.jpg"},
    "damaged": {"item_id": "cut", "image": "cut.jpg"},
}


def write_catalogue_with_bad_rows(folder: Path, max_bad_fraction: float) -> Config:
    section = PackConfig(split=BY_COLUMN, max_bad_fraction=max_bad_fraction, max_megapixels=0.01)
    config = write_catalogue(folder, [{"item_id": "good"}, {"item_id": "fine"}, *BAD_ROWS.values()], section)
    (folder / "text.jpg").write_text("no photo")
    (folder / "large.jpg").write_bytes(jpeg(size=(101, 100)))  # 10,100 pixels; 0.01 megapixels are 10,000
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(noise, "JPEG")
    (folder / "cut.jpg").write_bytes(noise.getvalue()[:-1000])
    return config


def test_ledger_lists_refused_rows_with_reason_and_line(tmp_path: Path) -> None:
    config = write_catalogue_with_bad_rows(tmp_path, max_bad_fraction=0.8)
    manifests = pack(config)
    ledgers = {split: read_ledger(config, split) for split in SPLITS}
    assert [row["reason"] for row in ledgers["val"]] == ["repeated_id"]
    refused = {row["reason"]: row for rows in ledgers.values() for row in rows}
    lines = {reason: f"{tmp_path}/items.csv:{line}" for line, reason in enumerate(BAD_ROWS, start=4)}
    assert {reason: row["source"] for reason, row in refused.items()} == lines
    assert f"{tmp_path}/gone.jpg: no such file" in refused["missing_image"]["detail"]
    assert "8 bytes" in refused["not_an_image"]["detail"]
    assert "101 x 100 pixels" in refused["too_many_pixels"]["detail"]
    assert "10000" in refused["too_many_pixels"]["detail"]
    assert manifests["train"].refused_by_reason == {
        reason: 1 for reason in BAD_ROWS if reason != "repeated_id"
    }


def test_items_and_refused_rows_add_up_to_the_catalogue(tmp_path: Path) -> None:
    manifests = pack(write_catalogue_with_bad_rows(tmp_path, max_bad_fraction=0.8))
    assert sum(manifest.num_items for manifest in manifests.values()) == 2
    assert sum(manifest.num_refused for manifest in manifests.values()) == 8
    assert manifests["train"].num_refused == sum(manifests["train"].refused_by_reason.values()) == 7


def test_too_many_refused_rows_stop_before_any_manifest(tmp_path: Path) -> None:
    config = write_catalogue_with_bad_rows(tmp_path, max_bad_fraction=0.79)  # 8 of 10 rows are bad
    with pytest.raises(DamagedData) as caught:
        pack(config)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/items.csv: 8 of 10 rows cannot be used (1 ")
    ledger = f"{config.root}/shards/ledger.parquet"
    assert message.endswith(f"; ledger: {ledger}); correct them, or raise pack.max_bad_fraction")
    assert [row["reason"] for row in pq.read_table(ledger).to_pylist()] == list(BAD_ROWS)
    assert all(f"1 {reason}" in message for reason in BAD_ROWS)
    assert not [name for name in storage.list_files(config.root) if name.endswith("manifest.json")]


def test_refusal_of_all_rows_shows_reasons_and_a_ledger_that_the_next_pack_deletes(tmp_path: Path) -> None:
    section = PackConfig(split=BY_COLUMN, max_bad_fraction=1.0)
    config = write_catalogue(tmp_path, [{"item_id": "a", "image": "gone.jpg"}, {"item_id": ""}], section)
    with pytest.raises(InputError) as caught:
        pack(config)
    ledger = Path(config.root, "shards/ledger.parquet")
    assert str(caught.value) == (
        f"{tmp_path}/items.csv: no usable row is in the train split (2 of 2 rows refused: 1 missing_image, "
        f"1 no_id; first {tmp_path}/items.csv:2: {tmp_path}/gone.jpg: no such file; check the path; "
        f"{tmp_path}/items.csv:3: the row has no item id; ledger: {ledger}); check pack.split and the catalogue"
    )
    assert [row["reason"] for row in pq.read_table(ledger).to_pylist()] == ["missing_image", "no_id"]
    (tmp_path / "gone.jpg").write_bytes(jpeg())
    pack(config)
    assert not ledger.exists()


def test_outcome_counts_refused_rows_of_all_splits_and_names_their_ledgers(tmp_path: Path) -> None:
    config = write_catalogue_with_bad_rows(tmp_path, max_bad_fraction=0.8)
    for is_skipped in (False, True):
        outcome = run(config)
        assert (outcome.is_skipped, outcome.num_refused) == (is_skipped, 8)
        assert outcome.refused_by_reason == dict.fromkeys(BAD_ROWS, 1)
        assert outcome.ledgers == [
            f"{files_folder(config, split)}/ledger.parquet" for split in ("train", "val")
        ]
    line = logs.refused_line("pack", 40, {"no_photo": 12, "damaged": 6}, ["s3://a/ledger.parquet"])
    assert line == "     pack  18 of 58 rows refused: 12 no_photo, 6 damaged; ledger: s3://a/ledger.parquet"


def test_items_table_lists_shard_group_and_hash(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(10), PackConfig(split=BY_COLUMN, items_per_shard=4))
    pack(config)
    items = pq.read_table(files_folder(config) / "items.parquet").to_pylist()
    assert sorted(item["item_id"] for item in items) == [f"i{n:03d}" for n in range(10)]
    assert collections.Counter(item["shard"] for item in items) == {
        "00000.tar": 4,
        "00001.tar": 4,
        "00002.tar": 2,
    }
    assert {item["group"] for item in items} == {"i000"}
    assert {len(item["item_hash"]) for item in items} == {32}
