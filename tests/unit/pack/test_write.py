"""Tars hold every item once, sorted by key, with the photo as it was scanned."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from raysys.config.schema import SPLITS, PackConfig
from raysys.pack.executor import SerialExecutor
from raysys.shards.reader import read_shard, shards_of
from raysys.shards.tar import key_of
from tests.unit.pack.small_catalogue import (
    BY_COLUMN,
    BY_SELLER,
    SELLERS,
    files_folder,
    jpeg,
    numbered_rows,
    pack,
    read_ledger,
    read_tars,
    samples_by_key,
    write_catalogue,
)


def test_plain_webdataset_reads_every_item_once(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(40), PackConfig(split=BY_SELLER, items_per_shard=7))
    pack(config)
    by_split = {split: samples_by_key(config, split) for split in SPLITS}
    keys = [key for samples in by_split.values() for key in samples]
    assert sorted(keys) == sorted(row["item_id"] for row in numbered_rows(40))
    sample = next(iter(by_split["train"].values()))
    number = int(sample["__key__"][1:])
    assert json.loads(sample["json"]) == {
        "item_id": f"i{number:03d}",
        "title": f"dress {number}",
        "attributes": {"seller": SELLERS[number % 8]},
        "group": "i000",  # all photos are equal
    }
    assert sample["jpg"] == jpeg()


def test_members_are_sorted_and_shards_have_the_configured_number_of_items(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(20), PackConfig(split=BY_COLUMN, items_per_shard=8))
    shards = pack(config)["train"].shards
    assert [(shard.name, shard.num_items) for shard in shards] == [
        ("00000.tar", 8),
        ("00001.tar", 8),
        ("00002.tar", 4),
    ]
    for shard in shards:
        keys = [sample["__key__"] for sample in read_tars([files_folder(config) / shard.name])]
        assert keys == sorted(keys)
    assert shards[0].bytes == (files_folder(config) / "00000.tar").stat().st_size


def test_id_with_unsafe_characters_gets_a_hashed_key(tmp_path: Path) -> None:
    ids = ["shop/7", "a.b", "手袋", "plain-1_Z"]
    config = write_catalogue(tmp_path, [{"item_id": item_id} for item_id in ids])
    pack(config)
    samples = samples_by_key(config, "train")
    assert {json.loads(sample["json"])["item_id"] for sample in samples.values()} == set(ids)
    assert "plain-1_Z" in samples
    hashed = [key for key in samples if key != "plain-1_Z"]
    assert [len(key) for key in hashed] == [25, 25, 25]
    assert all(key.startswith("x") for key in hashed)


def test_title_is_stored_with_single_spaces(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, [{"item_id": "a", "title": "  red \n\t dress "}])
    pack(config)
    assert json.loads(samples_by_key(config, "train")["a"]["json"])["title"] == "red dress"


def test_plain_jpeg_keeps_its_bytes_and_others_become_upright_jpegs(tmp_path: Path) -> None:
    rows = [{"item_id": name, "image": name} for name in ("plain", "png", "rotated", "grey")]
    config = write_catalogue(tmp_path, rows)
    (tmp_path / "plain").write_bytes(jpeg("blue", quality=30))
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "png", "PNG")
    Image.new("L", (8, 8), 128).save(tmp_path / "grey", "JPEG")
    wide = Image.new("RGB", (40, 20), "blue")
    wide.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # camera held upright: rotate by 90 degrees clockwise for display
    wide.save(tmp_path / "rotated", "JPEG", exif=exif)
    pack(config)
    stored = {key: sample["jpg"] for key, sample in samples_by_key(config, "train").items()}
    assert stored["plain"] == jpeg("blue", quality=30)
    photos = {key: Image.open(io.BytesIO(data)) for key, data in stored.items()}
    assert {photo.format for photo in photos.values()} == {"JPEG"}
    assert photos["png"].getpixel((4, 4)) == (255, 255, 255)  # transparent pixels are white
    assert photos["rotated"].size == (20, 40)
    assert not photos["rotated"].getexif()
    top, bottom = photos["rotated"].getpixel((10, 5)), photos["rotated"].getpixel((10, 35))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 240 > 15 > top[2]  # the left side was red: a clockwise rotation moves it to the top
    assert bottom[2] > 240 > 15 > bottom[0]


def test_jpeg_with_metadata_is_stored_without_it(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, [{"item_id": "a", "image": "a.jpg"}])
    (tmp_path / "a.jpg").write_bytes(jpeg("blue", comment="where it was taken"))
    assert pack(config)["train"].num_items == 1
    assert samples_by_key(config, "train")["a"]["jpg"] == jpeg("blue")


def test_photo_that_changes_after_the_scan_is_refused(tmp_path: Path) -> None:
    rows = [{"item_id": name, "image": f"{name}.jpg"} for name in ("a", "b", "c", "d")]
    config = write_catalogue(tmp_path, rows)
    for colour, name in zip(("red", "green", "blue", "white"), "abcd", strict=True):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(colour))

    class ChangingPhotos(SerialExecutor):
        def write(self, reads: Any, num_shards: int, work: Any) -> Iterator[int]:
            (tmp_path / "b.jpg").write_bytes(jpeg("black"))
            (tmp_path / "c.jpg").unlink()
            return super().write(reads, num_shards, work)

    manifest = pack(config, ChangingPhotos())["train"]
    assert sorted(samples_by_key(config, "train")) == ["a", "d"]
    assert (manifest.num_rows, manifest.num_items) == (4, 2)
    assert manifest.refused_by_reason == {"changed_while_packing": 2}
    ledger = read_ledger(config)
    assert [(row["item_id"], row["source"]) for row in ledger] == [
        ("b", f"{tmp_path}/items.csv:3"),
        ("c", f"{tmp_path}/items.csv:4"),
    ]
    assert ledger[0]["detail"] == f"{tmp_path}/b.jpg: changed since the scan; pack again"


def test_every_item_id_is_read_back_under_a_key_of_its_own(tmp_path: Path) -> None:
    hashed = key_of("a/b")  # as an id, the key of another one
    ids = [
        *("__promo_1", "__", "__x__", "_a", ".", "..", ".hidden", "a/b", "/a", "a.b", "a.jpg", "A", "a"),
        *("a b", "\u00e9", "e\u0301", "n" * 90, "n" * 91, "n" * 300, "-", "\x1b[31m", hashed, "x" + "0" * 24),
    ]
    config = write_catalogue(tmp_path, [{"item_id": item_id} for item_id in ids])
    assert pack(config)["train"].num_items == len(ids)
    (shard,) = shards_of(f"{config.root}/shards/train")
    assert sorted(item.item_id for item in read_shard(shard)) == sorted(ids)
    assert len(samples_by_key(config, "train")) == len(ids)  # as plain WebDataset reads them
