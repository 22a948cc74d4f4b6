"""From a catalogue to tars that anyone can read, and a ledger of what was left out."""

from __future__ import annotations

import collections
import io
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysys import artifacts, storage
from raysys.config import Config
from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import Busy, DamagedData, InputError, StorageError
from raysys.pack import shard_sets as packing
from raysys.pack.serial_executor import SerialExecutor
from tests.unit.pack.small_catalogue import (
    BY_COLUMN,
    BY_SELLER,
    SELLERS,
    catalogue,
    iterated,
    jpeg,
    many,
    packed,
    samples,
    wanted,
)


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    section = PackConfig(split=BY_SELLER, items_per_shard=7)
    first, second = (catalogue(tmp_path / name, many(40), section) for name in ("first", "second"))
    made, again = packed(first), packed(second)
    for split in SPLITS:
        assert made[split].fingerprint == again[split].fingerprint
        names = [
            name for name in storage.list_files(f"{first.root}/shards/{split}") if name != "manifest.json"
        ]
        assert "ledger.parquet" in names
        for name in names:
            ours, theirs = (Path(config.root, "shards", split, name) for config in (first, second))
            assert ours.read_bytes() == theirs.read_bytes()


def test_plain_webdataset_finds_every_item_once(tmp_path: Path) -> None:
    config = catalogue(tmp_path, many(40), PackConfig(split=BY_SELLER, items_per_shard=7))
    packed(config)
    by_split = {split: samples(config, split) for split in SPLITS}
    found = [key for of_split in by_split.values() for key in of_split]
    assert sorted(found) == sorted(row["item_id"] for row in many(40))
    sample = next(iter(by_split["train"].values()))
    number = int(sample["__key__"][1:])
    said = {
        "item_id": f"i{number:03d}",
        "title": f"dress {number}",
        "attributes": {"seller": SELLERS[number % 8]},
        "group": "i000",  # the photos are all the same
    }
    assert json.loads(sample["json"]) == said
    assert sample["jpg"] == jpeg()


def test_members_of_a_shard_are_sorted_and_shards_are_cut_to_size(tmp_path: Path) -> None:
    config = catalogue(tmp_path, many(20), PackConfig(split=BY_COLUMN, items_per_shard=8))
    shards = packed(config)["train"].shards
    assert [(shard.name, shard.num_items) for shard in shards] == [
        ("00000.tar", 8),
        ("00001.tar", 8),
        ("00002.tar", 4),
    ]
    for shard in shards:
        keys = [sample["__key__"] for sample in iterated([Path(config.root, "shards/train", shard.name)])]
        assert keys == sorted(keys)
    assert shards[0].bytes == Path(config.root, "shards/train/00000.tar").stat().st_size


def test_column_decides_the_split(tmp_path: Path) -> None:
    parts = {"a": "train", "b": "val", "c": "test", "d": "train"}
    config = catalogue(tmp_path, [{"item_id": item_id, "part": part} for item_id, part in parts.items()])
    manifests = packed(config)
    assert {split: manifests[split].num_items for split in SPLITS} == {"train": 2, "val": 1, "test": 1}
    assert {split: sorted(samples(config, split)) for split in SPLITS} == {"train": ["a", "d"], "val": ["b"], "test": ["c"]}  # fmt: skip


def test_unknown_split_in_the_column_names_the_row(tmp_path: Path) -> None:
    config = catalogue(tmp_path, [{"item_id": "a"}, {"item_id": "b", "part": "dev"}])
    with pytest.raises(InputError) as caught:
        packed(config)
    where = f"{tmp_path}/items.csv:3"
    assert str(caught.value) == f"{where}: column 'part' should be one of train, val, test, got 'dev'"


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


def catalogue_with_bad_rows(folder: Path, max_bad_fraction: float) -> Config:
    section = PackConfig(split=BY_COLUMN, max_bad_fraction=max_bad_fraction, max_megapixels=0.01)
    config = catalogue(folder, [{"item_id": "good"}, {"item_id": "fine"}, *BAD_ROWS.values()], section)
    (folder / "text.jpg").write_text("no photo")
    (folder / "large.jpg").write_bytes(jpeg(size=(101, 100)))  # 10,100 pixels; 0.01 megapixels are 10,000
    noise = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(noise, "JPEG")
    (folder / "cut.jpg").write_bytes(noise.getvalue()[:-1000])
    return config


def test_refused_rows_stand_in_the_ledger_with_their_reasons(tmp_path: Path) -> None:
    config = catalogue_with_bad_rows(tmp_path, max_bad_fraction=0.8)
    manifests = packed(config)
    ledgers = {split: pq.read_table(f"{config.root}/shards/{split}/ledger.parquet").to_pylist() for split in SPLITS}  # fmt: skip
    assert [row["reason"] for row in ledgers["val"]] == ["repeated_id"]
    refused = {row["reason"]: row for rows in ledgers.values() for row in rows}
    lines = {reason: f"{tmp_path}/items.csv:{line}" for line, reason in enumerate(BAD_ROWS, start=4)}
    assert {reason: row["source"] for reason, row in refused.items()} == lines
    assert refused["missing_image"]["detail"] == f"{tmp_path}/gone.jpg: no such file; check the path"
    assert refused["not_an_image"]["detail"] == "not a photo (8 bytes); give JPEG, PNG or WebP"
    assert refused["too_many_pixels"]["detail"] == (
        "photo has 101 x 100 pixels, at most 10000 are accepted; make it smaller"
    )
    assert manifests["train"].refused_by_reason == {
        reason: 1 for reason in BAD_ROWS if reason != "repeated_id"
    }


def test_items_and_refused_rows_add_up_to_the_catalogue(tmp_path: Path) -> None:
    manifests = packed(catalogue_with_bad_rows(tmp_path, max_bad_fraction=0.8))
    assert sum(manifest.num_items for manifest in manifests.values()) == 2
    assert sum(manifest.num_refused for manifest in manifests.values()) == 8
    assert manifests["train"].num_refused == sum(manifests["train"].refused_by_reason.values()) == 7


def test_too_many_bad_rows_stop_before_any_manifest(tmp_path: Path) -> None:
    config = catalogue_with_bad_rows(tmp_path, max_bad_fraction=0.79)  # 8 of 10 rows are bad
    with pytest.raises(DamagedData) as caught:
        packed(config)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/items.csv: 8 of 10 rows cannot be used (1 ")
    assert message.endswith("; mend them, or raise pack.max_bad_fraction")
    assert all(f"1 {reason}" in message for reason in BAD_ROWS)
    assert not [name for name in storage.list_files(config.root) if name.endswith("manifest.json")]


def test_catalogue_with_nothing_to_train_on_is_refused(tmp_path: Path) -> None:
    config = catalogue(tmp_path, [{"item_id": "a", "part": "test"}])
    with pytest.raises(InputError) as caught:
        packed(config)
    assert str(caught.value) == (
        f"{tmp_path}/items.csv: no usable row is in the train split; check pack.split and the catalogue"
    )


def test_unsafe_id_gets_a_hashed_key_and_keeps_itself(tmp_path: Path) -> None:
    ids = ["shop/7", "a.b", "手袋", "plain-1_Z"]
    config = catalogue(tmp_path, [{"item_id": item_id} for item_id in ids])
    packed(config)
    found = samples(config, "train")
    assert {json.loads(sample["json"])["item_id"] for sample in found.values()} == set(ids)
    assert "plain-1_Z" in found
    hashed = [key for key in found if key != "plain-1_Z"]
    assert [len(key) for key in hashed] == [25, 25, 25]
    assert all(key.startswith("x") for key in hashed)


def test_title_is_stored_with_single_blanks(tmp_path: Path) -> None:
    config = catalogue(tmp_path, [{"item_id": "a", "title": "  red \n\t dress "}])
    packed(config)
    assert json.loads(samples(config, "train")["a"]["json"])["title"] == "red dress"


def test_plain_jpeg_keeps_its_bytes_and_others_become_upright_jpegs(tmp_path: Path) -> None:
    rows = [{"item_id": name, "image": name} for name in ("plain", "png", "turned", "grey")]
    config = catalogue(tmp_path, rows)
    (tmp_path / "plain").write_bytes(jpeg("blue", quality=30))
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "png", "PNG")
    Image.new("L", (8, 8), 128).save(tmp_path / "grey", "JPEG")
    wide = Image.new("RGB", (40, 20), "blue")
    wide.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # as a camera held upright writes it: turn a quarter clockwise to see it
    wide.save(tmp_path / "turned", "JPEG", exif=exif)
    packed(config)
    found = {key: sample["jpg"] for key, sample in samples(config, "train").items()}
    assert found["plain"] == jpeg("blue", quality=30)
    photos = {key: Image.open(io.BytesIO(data)) for key, data in found.items()}
    assert {photo.format for photo in photos.values()} == {"JPEG"}
    assert photos["png"].getpixel((4, 4)) == (255, 255, 255)  # transparent pixels are white
    assert photos["turned"].size == (20, 40)
    assert not photos["turned"].getexif()
    top, bottom = photos["turned"].getpixel((10, 5)), photos["turned"].getpixel((10, 35))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[0] > 240 > 15 > top[2]  # the left half was red: a clockwise turn brings it up
    assert bottom[2] > 240 > 15 > bottom[0]


def test_photo_that_loses_its_metadata_is_packed_though_its_file_has_other_bytes(tmp_path: Path) -> None:
    config = catalogue(tmp_path, [{"item_id": "a", "image": "a.jpg"}])
    (tmp_path / "a.jpg").write_bytes(jpeg("blue", comment="where it was taken"))
    assert packed(config)["train"].num_items == 1
    assert samples(config, "train")["a"]["jpg"] == jpeg("blue")


def test_second_run_is_up_to_date_and_a_changed_catalogue_is_not(tmp_path: Path) -> None:
    config = catalogue(tmp_path, many(10), PackConfig(split=BY_COLUMN))
    made = packed(config)
    found = {split: artifacts.find_up_to_date(target) for split, target in wanted(config)[1].items()}
    assert found == made
    catalogue(tmp_path, many(11), config.pack)
    changed = [artifacts.find_up_to_date(target) for target in wanted(config)[1].values()]
    assert changed == [None, None, None]


def test_raised_limit_alone_makes_no_other_shards(tmp_path: Path) -> None:
    config = catalogue(tmp_path, many(10), PackConfig(split=BY_COLUMN))
    made = packed(config)
    raised = config.model_copy(update={"pack": config.pack.model_copy(update={"max_bad_fraction": 0.5})})
    assert artifacts.find_up_to_date(wanted(raised)[1]["train"]) == made["train"]


class Stopping(SerialExecutor):
    """Ends as a killed process would: after so many pieces of the survey, or before the writing ends."""

    def __init__(self, pieces: int | None = None, rows: int | None = None) -> None:
        self.pieces, self.rows, self.surveyed = pieces, rows, 0

    def survey(self, reads: Any, work: Any) -> Iterator[int]:
        for number, done in enumerate(super().survey(reads, work), start=1):
            self.surveyed += done
            yield done
            if number == self.pieces:
                raise KeyboardInterrupt

    def write(self, reads: Any, num_shards: int, work: Any) -> Iterator[int]:
        table = reads[0]()
        if self.rows is not None:
            yield work(table.filter(pc.less(table.column("shard_number"), self.rows)))
            raise KeyboardInterrupt
        yield work(table)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but for what tells the time."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.name not in ("manifest.json", ".packing.lock")
    }


@pytest.mark.parametrize("stop", [Stopping(pieces=2), Stopping(rows=1)], ids=["survey", "write"])
def test_a_pack_that_ended_early_continues_and_gives_the_same_bytes(
    tmp_path: Path, stop: Stopping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "ROWS_PER_PART", 10)
    section = PackConfig(split=BY_SELLER, items_per_shard=7)
    whole, halting = (catalogue(tmp_path / name, many(40), section) for name in ("whole", "halting"))
    packed(whole)
    with pytest.raises(KeyboardInterrupt):
        packed(halting, stop)
    assert not list(Path(halting.root).rglob("manifest.json"))
    again = Stopping()
    packed(halting, again)
    assert again.surveyed == (20 if stop.pieces else 0)
    assert tree(Path(halting.root)) == tree(Path(whole.root))


def test_second_pack_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    config = catalogue(tmp_path, many(3))

    class Meanwhile(SerialExecutor):
        def survey(self, reads: Any, work: Any) -> Iterator[int]:
            packed(config)
            raise AssertionError("both are at work")

    with pytest.raises(Busy) as caught:
        packed(config, Meanwhile())
    assert str(caught.value).startswith(f"{config.root}/shards: another `raysys pack` is running here; wait")
    assert packed(config)["train"].num_items == 3


def test_full_disk_is_one_line_and_the_pack_continues_when_there_is_room(tmp_path: Path) -> None:
    section = PackConfig(split=BY_COLUMN, items_per_shard=100)
    config = catalogue(tmp_path, many(100), section)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # a hundred samples take 200,000 bytes
    try:
        with pytest.raises(StorageError) as caught:
            packed(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value) == (
        f"{config.root}/shards/train/00000.tar: could not be written (File too large); "
        "free space there, or use another place"
    )
    assert not list(Path(config.root).rglob("manifest.json"))
    assert packed(config)["train"].num_items == 100


def test_photo_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    rows = [{"item_id": name, "image": f"{name}.jpg"} for name in ("a", "b", "c", "d")]
    config = catalogue(tmp_path, rows)
    for colour, name in zip(("red", "green", "blue", "white"), "abcd", strict=True):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(colour))

    class Changing(SerialExecutor):
        def write(self, reads: Any, num_shards: int, work: Any) -> Iterator[int]:
            (tmp_path / "b.jpg").write_bytes(jpeg("black"))
            (tmp_path / "c.jpg").unlink()
            return super().write(reads, num_shards, work)

    made = packed(config, Changing())["train"]
    assert sorted(samples(config, "train")) == ["a", "d"]
    assert (made.num_rows, made.num_items, made.refused_by_reason) == (4, 2, {"changed_while_packing": 2})
    ledger = pq.read_table(f"{config.root}/shards/train/ledger.parquet").to_pylist()
    assert [(row["item_id"], row["source"]) for row in ledger] == [
        ("b", f"{tmp_path}/items.csv:3"),
        ("c", f"{tmp_path}/items.csv:4"),
    ]
    assert ledger[0]["detail"] == f"{tmp_path}/b.jpg: other bytes than when it was surveyed; pack again"


def test_shards_are_cut_where_they_would_grow_too_large(tmp_path: Path) -> None:
    noise = Image.effect_noise((800, 800), 90).convert("RGB")
    config = catalogue(tmp_path, many(5), PackConfig(split=BY_COLUMN, shard_megabytes=1))
    noise.save(tmp_path / "red.jpg", "JPEG", quality=85)
    size = (tmp_path / "red.jpg").stat().st_size
    assert 2**20 / 3 < size < 2**20 / 2  # two of them are less than a mebibyte, three are more
    assert [shard.num_items for shard in packed(config)["train"].shards] == [2, 2, 1]


def test_items_are_listed_with_their_shards_and_groups(tmp_path: Path) -> None:
    config = catalogue(tmp_path, many(10), PackConfig(split=BY_COLUMN, items_per_shard=4))
    packed(config)
    items = pq.read_table(f"{config.root}/shards/train/items.parquet").to_pylist()
    assert sorted(item["item_id"] for item in items) == [f"i{n:03d}" for n in range(10)]
    assert collections.Counter(item["shard"] for item in items) == {
        "00000.tar": 4,
        "00001.tar": 4,
        "00002.tar": 2,
    }
    assert {item["group"] for item in items} == {"i000"}
    assert {len(item["item_hash"]) for item in items} == {32}


def test_a_group_goes_to_one_split_and_one_that_cannot_is_counted(tmp_path: Path) -> None:
    colours = [f"#{n:02x}{255 - n:02x}80" for n in range(0, 250, 10)]
    rows = [
        {
            "item_id": f"i{n:02d}",
            "title": f"cup {n}",
            "image": f"{n % 25}.jpg",
            "part": "val" if n > 40 else "train",
        }
        for n in range(50)
    ]  # i00 shows the same as i25, and so on
    by_group = PackConfig.model_validate(
        {"split": {"kind": "group", "val_fraction": 0.3, "test_fraction": 0.3}}
    )
    config = catalogue(tmp_path, rows, by_group)
    for n, colour in enumerate(colours):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(colour))
    made = packed(config)
    split_of = {key: split for split in SPLITS for key in samples(config, split)}
    assert len(split_of) == 50
    assert set(split_of.values()) == set(SPLITS)
    assert all(split_of[f"i{n:02d}"] == split_of[f"i{n + 25:02d}"] for n in range(25))
    assert made["train"].num_split_groups == 0
    by_column = config.model_copy(update={"pack": PackConfig(split=BY_COLUMN)})
    assert packed(by_column)["val"].num_split_groups == 9  # i41 to i49 have their twins in train
