"""A WebDataset becomes ShardSets that refer to its tars: what img2dataset writes, splits, changes of tars."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raysys import artifacts, storage
from raysys.config.schema import SPLITS, AttributeSplit, ColumnSplit, GroupSplit, PackConfig
from raysys.errors import DamagedData, InputError, StorageError
from raysys.shards.reader import BadSample, Item, open_shard, read_shard, shards_of
from raysys.verify.find import open_shard_set
from raysys.verify.repair import repair
from raysys.verify.shard_checks import verify
from tests.img2dataset_tars import Download, write_img2dataset
from tests.unit.pack.small_catalogue import files_folder, jpeg
from tests.unit.pack.small_webdataset import (
    ALL_TRAIN,
    configure,
    downloads,
    index,
    open_with_specs,
    read_items,
    read_ledger,
    write_members,
)

THIRDS = GroupSplit(val_fraction=0.34, test_fraction=0.33, seed=9)


def test_output_of_img2dataset_is_read_where_it_is(tmp_path: Path) -> None:
    rows = [
        *downloads(2),
        Download("", "sku-2", jpeg()),  # img2dataset writes an empty txt
        Download("gone", "sku-3", None),
        Download("a dress again", "sku-4", jpeg("red", (8, 8))),  # the photo of sku-0
    ]
    (tar,) = write_img2dataset(tmp_path / "tars", rows)
    before = tar.read_bytes()
    config = configure(tar.parent, tmp_path / "root", group="sha256", attributes={"sku": "text"})
    manifest = index(config)["train"]
    zero, one, again = read_items(config)
    assert zero == Item("000000000", "dress 0", jpeg("red", (8, 8)), {"sku": "sku-0"}, "000000000")
    assert (one.title, one.group) == ("dress 1", "000000001")
    assert (again.title, again.group) == ("a dress again", "000000000")
    assert before[zero.image_offset :].startswith(zero.image)
    assert read_ledger(config) == [("000000002", "no_title")]
    assert (manifest.num_items, manifest.num_refused, manifest.num_rows) == (3, 1, 4)
    assert manifest.item_schema == {"sku": "text"}
    assert [(shard.uri, shard.num_items, shard.sha256) for shard in manifest.inherited] == [
        (str(tar), 3, None)
    ]
    assert tar.read_bytes() == before
    files = {Path(name).name for name in storage.list_files(str(tmp_path / "root"))}
    assert files == {"manifest.json", "items.parquet", "ledger.parquet"}


def test_one_tar_has_items_of_every_split(tmp_path: Path) -> None:
    write_img2dataset(tmp_path / "tars", downloads(12), downloads(12, first=12))
    config = configure(tmp_path / "tars", tmp_path / "root", PackConfig(split=THIRDS))
    manifests = index(config)
    items = {split: read_items(config, split) for split in SPLITS}
    ids = [item.item_id for split in SPLITS for item in items[split]]
    assert sorted(ids) == [f"{shard:05d}{number:04d}" for shard in (0, 1) for number in range(12)]
    assert all(len(manifests[split].inherited) == 2 and items[split] for split in SPLITS)
    assert [len(items[split]) for split in SPLITS] == [manifests[split].num_items for split in SPLITS]
    offsets = [item.image_offset for item in items["train"]]
    assert sum(later < earlier for earlier, later in itertools.pairwise(offsets)) == 1  # of the second tar
    total = sum(shard.live_bytes for split in SPLITS for shard in shards_of(f"{config.root}/shards/{split}"))
    assert total == pytest.approx(sum(shard.bytes for shard in manifests["train"].inherited))


def test_field_of_the_json_decides_the_split(tmp_path: Path) -> None:
    write_img2dataset(tmp_path / "tars", [Download("a cup", name, jpeg()) for name in SPLITS])
    config = configure(tmp_path / "tars", tmp_path / "root", PackConfig(split=ColumnSplit(column="sku")))
    index(config)
    assert [read_items(config, name)[0].item_id for name in SPLITS] == ["000000000", "000000001", "000000002"]


def test_attribute_decides_the_split(tmp_path: Path) -> None:
    write_img2dataset(
        tmp_path / "tars", [Download("a cup", f"s{number % 9}", jpeg()) for number in range(27)]
    )
    section = PackConfig(split=AttributeSplit(attribute="sku", val_fraction=0.3, test_fraction=0.3))
    config = configure(tmp_path / "tars", tmp_path / "root", section, attributes={"sku": "text"})
    index(config)
    sellers = [{item.attributes["sku"] for item in read_items(config, split)} for split in SPLITS]
    assert sum(map(len, sellers)) == len(set.union(*sellers)) == 9


def test_unknown_split_in_a_json_names_the_sample(tmp_path: Path) -> None:
    (tar,) = write_img2dataset(tmp_path / "tars", [Download("a cup", "dev", jpeg())])
    config = configure(tar, tmp_path / "root", PackConfig(split=ColumnSplit(column="sku")))
    with pytest.raises(InputError) as caught:
        index(config)
    assert str(caught.value) == (
        f"{tar}#1536 '000000000': column 'sku' should be one of train, val, test, got 'dev'"
    )


def test_columns_name_the_fields(tmp_path: Path) -> None:
    text = b'{"id": 7, "headline": "a cup", "price": "2.5", "caption": "unused"}'
    write_members(tmp_path / "a.tar", ("k.jpg", jpeg()), ("k.json", text))
    bad = b'{"id": 8, "headline": "a pot", "price": "cheap"}'
    write_members(
        tmp_path / "b.tar", ("k.jpg", jpeg()), ("k.json", bad), ("m.jpg", jpeg()), ("m.json", b"{}")
    )
    config = configure(
        tmp_path / "*.tar", tmp_path / "root", item_id="id", title="headline", attributes={"price": "number"}
    )
    index(config)
    (item,) = read_items(config)
    assert (item.item_id, item.title, item.attributes) == ("7", "a cup", {"price": 2.5})
    assert read_ledger(config) == [("8", "bad_attribute"), ("m", "no_id")]


def test_equal_keys_in_two_tars_are_repeated_ids(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_members(tmp_path / f"{name}.tar", ("k.jpg", jpeg()), ("k.txt", name.encode()))
    config = configure(tmp_path / "{a,b}.tar", tmp_path / "root")
    index(config)
    assert [item.title for item in read_items(config)] == ["a"]
    assert read_ledger(config) == [("k", "repeated_id")]


def test_second_run_is_up_to_date_until_a_tar_is_added_or_changed(tmp_path: Path) -> None:
    write_img2dataset(tmp_path / "tars", downloads(3))
    config = configure(tmp_path / "tars", tmp_path / "root")
    manifests = index(config)
    assert {s: artifacts.find_up_to_date(spec) for s, spec in open_with_specs(config)[1].items()} == manifests
    write_img2dataset(tmp_path / "tars", downloads(3), downloads(1, first=3))
    assert artifacts.find_up_to_date(open_with_specs(config)[1]["train"]) is None
    assert index(config)["train"].num_items == 4
    other = config.model_copy(update={"pack": config.pack.model_copy(update={"shard_megabytes": 9})})
    assert artifacts.find_up_to_date(open_with_specs(other)[1]["train"]) is not None  # nothing is copied


def test_changed_tar_never_gives_the_photo_of_another_item(tmp_path: Path) -> None:
    (tar,) = write_img2dataset(tmp_path / "tars", downloads(3))
    config = configure(tar, tmp_path / "root")
    index(config)
    before = read_items(config)
    write_img2dataset(tmp_path / "tars", [downloads(1)[0], *downloads(2, first=7)])
    (shard,) = shards_of(f"{config.root}/shards/train")
    with open_shard(shard) as opened:
        first, *others = (opened.read(number) for number in range(3))
    assert first == before[0]
    assert [(type(other), getattr(other, "reason", "")) for other in others] == 2 * [(BadSample, "changed")]
    with pytest.raises(DamagedData, match="`raysys pack` reads its headers again"):
        read_items(config)
    index(config)
    assert [item.title for item in read_items(config)] == ["dress 0", "dress 7", "dress 8"]


def test_shortened_tar_loses_its_last_photos_only(tmp_path: Path) -> None:
    (tar,) = write_img2dataset(tmp_path / "tars", downloads(3))
    config = configure(tar, tmp_path / "root")
    index(config)
    last = read_items(config)[-1]
    tar.write_bytes(tar.read_bytes()[: last.image_offset + 9])
    (shard,) = shards_of(f"{config.root}/shards/train")
    with open_shard(shard) as opened:
        assert [type(opened.read(number)) for number in range(3)] == [Item, Item, BadSample]


def test_table_with_another_number_of_items_is_damage(tmp_path: Path) -> None:
    (tar,) = write_img2dataset(tmp_path / "tars", downloads(3))
    config = configure(tar, tmp_path / "root")
    index(config)
    table = files_folder(config) / "items.parquet"
    (shard,) = shards_of(str(table.parent))
    pq.write_table(pq.read_table(table).slice(1), table)
    with pytest.raises(DamagedData, match=r"items.parquet: 2 items of .*, but its manifest states 3"):
        list(read_shard(shard))


def test_photos_are_not_downloaded_to_index_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = bytes(range(256)) * 400  # 102,400 bytes, which no reader decodes here
    rows = [Download(f"dress {number}", f"sku-{number}", jpeg() + noise) for number in range(200)]
    (tar,) = write_img2dataset(tmp_path / "tars", rows)
    reads: list[tuple[str, int]] = []
    monkeypatch.setattr(storage, "open_input", lambda uri: CountingFile(uri, reads))
    config = configure(tar, tmp_path / "root")
    assert index(config)["train"].num_items == 200
    from_tar = [num_bytes for uri, num_bytes in reads if uri == str(tar)]
    assert len(from_tar) < 1.1 * 200  # one ranged read a sample
    assert sum(from_tar) < 0.1 * tar.stat().st_size


class CountingFile(io.FileIO):
    """A file that records the size of every read."""

    def __init__(self, uri: str, reads: list[tuple[str, int]]) -> None:
        super().__init__(uri)
        self._reads = reads

    def read(self, size: int | None = -1) -> Any:
        data = super().read(-1 if size is None else size)
        self._reads.append((str(self.name), len(data)))
        return data


def test_unreachable_tar_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tars = write_img2dataset(tmp_path / "tars", downloads(1), downloads(1, first=1))
    section = PackConfig(split=ALL_TRAIN, max_bad_fraction=0.0)
    config = configure(tmp_path / "tars", tmp_path / "root", section)
    opened: list[str] = []
    open_input = storage.open_input

    def refuse_second(uri: str) -> Any:
        opened.append(uri)
        if uri == str(tars[1]) and opened.count(uri) == 1:
            raise StorageError(f"{uri}: could not be read; check the location, then run again")
        return open_input(uri)

    monkeypatch.setattr(storage, "open_input", refuse_second)
    with pytest.raises(
        DamagedData, match="1 unreachable; .*; a further run tries the unreachable ones again"
    ):
        index(config)
    assert index(config)["train"].num_items == 2
    assert (opened.count(str(tars[0])), opened.count(str(tars[1]))) == (
        1,
        2,
    )  # the first is in the scratch folder


def test_shard_sets_without_tars_of_their_own_cannot_be_repaired(tmp_path: Path) -> None:
    (tar,) = write_img2dataset(tmp_path / "tars", downloads(1))
    config = configure(tar, tmp_path / "root")
    index(config)
    source = open_shard_set(f"{config.root}/shards/train")
    with pytest.raises(
        InputError, match=r"refers to tars of another tool \(first: .*00000\.tar\); repair these"
    ):
        repair([source], str(tmp_path / "clean"), {}, map, max_pixels=10**6)


def test_verify_checks_the_indexed_photos_of_all_splits(tmp_path: Path) -> None:
    rows = downloads(12)
    rows[5] = Download("damaged", "sku-5", jpeg("red", (400, 400))[:-1000])
    (tar,) = write_img2dataset(tmp_path / "tars", rows)
    config = configure(tar, tmp_path / "root", PackConfig(split=THIRDS))
    index(config)
    sources = [open_shard_set(f"{config.root}/shards/{split}") for split in SPLITS]
    result = verify(sources, map, max_pixels=10**6)
    assert sum(health.num_items for health in result.shards) == 12
    findings = [finding for health in result.shards for finding in health.findings]
    assert [(finding.kind, finding.key) for finding in findings] == [("unreadable_photo", "000000005")]
    write_img2dataset(tmp_path / "tars", downloads(12), time_s=1.5)
    result = verify(sources, map, max_pixels=10**6)
    assert sum(health.counts["changed"] for health in result.shards) == 12
