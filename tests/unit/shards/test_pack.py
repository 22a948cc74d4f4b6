"""From a catalogue to tars that anyone can read, and a ledger of what was left out."""

from __future__ import annotations

import collections
import csv
import io
import json
import os
import resource
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from raysys import artifacts, storage, targets
from raysys.artifacts import ShardSetManifest, Target
from raysys.config import Config
from raysys.config.schema import AttributeSplit, Columns, ColumnSplit, PackConfig, TableCatalog
from raysys.errors import Busy, DamagedData, InputError, StorageError
from raysys.shards import pack as packing
from raysys.shards.catalog import sources
from raysys.shards.fingerprint import fingerprint
from raysys.shards.pack import Catalog, Flow, pack
from raysys.shards.serial import Serial
from raysys.shards.splits import SPLITS
from raysys.stream.shard import read_shard, shards_of

SELLERS = ("anna", "ben", "cleo", "dora", "emil", "fay", "gus", "hana")
BY_SELLER = AttributeSplit(attribute="seller", val_fraction=0.25, test_fraction=0.25)
BY_COLUMN = ColumnSplit(column="part")


def jpeg(colour: str = "red", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "JPEG", **options)
    return data.getvalue()


def catalogue(folder: Path, rows: Sequence[dict[str, str]], section: PackConfig | None = None) -> Config:
    """A CSV of rows (a red photo, all in train, where a row says nothing else) and how to pack it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "red.jpg").write_bytes(jpeg())
    defaults = {"title": "red dress", "image": "red.jpg", "seller": "anna", "part": "train"}
    with (folder / "items.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["item_id", *defaults])
        writer.writeheader()
        writer.writerows({**defaults, **row} for row in rows)
    table = TableCatalog(path=str(folder / "items.csv"), columns=Columns(attributes={"seller": "text"}))
    return Config(
        root=str(folder / "root"),
        catalog=table,
        pack=section or PackConfig(split=BY_COLUMN, max_bad_fraction=1.0),
    )


def wanted(config: Config) -> tuple[Catalog, dict[str, Target]]:
    table, how = config.catalog, config.pack.split
    assert isinstance(table, TableCatalog)
    counted = fingerprint(table, sources(table), how.column if isinstance(how, ColumnSplit) else None)
    by_split = {split: targets.shard_set(config, split, table.columns, counted.entry) for split in SPLITS}
    return Catalog(table, sources(table), counted.num_rows), by_split


def packed(config: Config, flow: Flow | None = None) -> dict[str, ShardSetManifest]:
    catalog, by_split = wanted(config)
    return pack(catalog, config.pack, by_split, flow or Serial())


def many(num_items: int) -> list[dict[str, str]]:
    return [
        {"item_id": f"i{number:03d}", "title": f"dress {number}", "seller": SELLERS[number % len(SELLERS)]}
        for number in range(num_items)
    ]


def iterated(tars: Sequence[Path]) -> list[dict[str, Any]]:
    """The samples of tars as plain WebDataset gives them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files open
        return list(webdataset.WebDataset([str(path) for path in tars], shardshuffle=False))


def samples(config: Config, split: str) -> dict[str, Any]:
    """The samples of a split by their keys."""
    found = iterated(sorted(Path(config.root, "shards", split).glob("*.tar")))
    assert len({sample["__key__"] for sample in found}) == len(found)
    return {sample["__key__"]: sample for sample in found}


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


class Stopping(Serial):
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

    class Meanwhile(Serial):
        def survey(self, reads: Any, work: Any) -> Iterator[int]:
            packed(config)
            raise AssertionError("both are at work")

    with pytest.raises(Busy) as caught:
        packed(config, Meanwhile())
    assert str(caught.value) == (
        f"{config.root}/shards: another `raysys pack` is at work here (process {os.getpid()}); "
        "wait for it, or end it"
    )
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

    class Changing(Serial):
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


def added(folder: Path, name: str, rows: Sequence[dict[str, str]], parent: Config | None) -> Config:
    """A later catalogue over the same photos, in a root of its own."""
    section = PackConfig(split=BY_SELLER, items_per_shard=5, max_bad_fraction=1.0)
    config = catalogue(folder, rows, section)
    places: dict[str, Any] = {"root": str(folder / name)}
    if parent is not None:
        places["pack"] = section.model_copy(update={"parent": f"{parent.root}/shards"})
    return config.model_copy(update=places)


def live(made: dict[str, ShardSetManifest], config: Config) -> dict[str, tuple[str, str]]:
    """Item -> split and title, of own and inherited shards less what is dead."""
    found: dict[str, tuple[str, str]] = {}
    for split, manifest in made.items():
        place = Path(config.root, "shards", split)
        dead = set()
        if (place / "tombstones.parquet").exists():
            rows = pq.read_table(place / "tombstones.parquet").to_pylist()
            dead = {(row["shard"], row["item_id"]) for row in rows}
            assert len(dead) == manifest.num_tombstones
        tars = [str(place / shard.name) for shard in manifest.shards] + [
            one.uri for one in manifest.inherited
        ]
        of_split = {}
        for tar in tars:
            for sample in iterated([Path(tar)]):
                said = json.loads(sample["json"])
                if (tar, said["item_id"]) not in dead:
                    assert said["item_id"] not in found
                    of_split[said["item_id"]] = (split, said["title"])
        assert manifest.num_items == len(of_split)
        assert sum(one.num_live for one in manifest.inherited) == len(of_split) - sum(one.num_items for one in manifest.shards)  # fmt: skip
        assert of_split == as_streamed(str(place), split)
        found |= of_split
    return found


def as_streamed(uri: str, split: str) -> dict[str, tuple[str, str]]:
    """The same, as training and embedding read it."""
    items = [stored.item for shard in shards_of(uri) for stored in read_shard(shard)]
    return {item.item_id: (split, item.title) for item in items}


def test_a_later_catalogue_packs_only_what_changed_and_a_third_adds_to_both(tmp_path: Path) -> None:
    rows = many(40)
    first = added(tmp_path, "first", rows, None)
    before = live(packed(first), first)

    later = [dict(row) for row in rows[2:]]  # i000 and i001 are gone
    later[0]["title"] = "coat"  # i002 is another
    later += [{"item_id": "new", "title": "hat", "seller": "zoe"}]
    second = added(tmp_path, "second", later, first)
    made = packed(second)
    after = live(made, second)
    assert sum(shard.num_items for one in made.values() for shard in one.shards) == 2  # i002 and new
    assert sum(one.num_tombstones for one in made.values()) == 3  # i000, i001, i002
    assert set(after) == {row["item_id"] for row in later}
    assert after["i002"] == (before["i002"][0], "coat")
    assert all(after[item_id] == before[item_id] for item_id in set(after) - {"new", "i002"})
    assert sum(one.num_rows for one in made.values()) == len(later)

    last = [row for row in later if row["item_id"] not in ("new", "i003")] + [{"item_id": "newer"}]
    third = added(tmp_path, "third", last, second)
    made = packed(third)
    assert {row["item_id"] for row in last} == set(live(made, third))
    assert sum(shard.num_items for one in made.values() for shard in one.shards) == 1
    # Flat: nothing goes through the second folder to the first; the tar that held only `new` is let go.
    parents = {one.uri.split("/shards/")[0] for manifest in made.values() for one in manifest.inherited}
    assert parents == {first.root, second.root}
    assert {name: manifest.inputs[f"parent/{name}"].uri for name, manifest in made.items()} == {
        split: f"{second.root}/shards/{split}" for split in SPLITS
    }


def test_known_items_keep_their_group_when_its_leader_is_gone(tmp_path: Path) -> None:
    rows = many(6)
    first = added(tmp_path, "first", rows, None)
    packed(first)
    second = added(tmp_path, "second", [{"item_id": "aaa"}, *rows[1:]], first)
    packed(second)
    tables = (pq.read_table(f"{second.root}/shards/{split}/items.parquet") for split in SPLITS)
    groups = {row["item_id"]: row["group"] for table in tables for row in table.to_pylist()}
    assert groups == dict.fromkeys(["aaa", *(row["item_id"] for row in rows[1:])], "i000")


def test_adding_to_itself_is_refused(tmp_path: Path) -> None:
    config = catalogue(tmp_path, many(3))
    own = config.model_copy(
        update={"pack": config.pack.model_copy(update={"parent": f"{config.root}/shards"})}
    )
    with pytest.raises(InputError) as caught:
        packed(own)
    assert str(caught.value) == (
        f"pack.parent: {config.root}/shards is where this pack goes; set root to another folder, and pack again"
    )
