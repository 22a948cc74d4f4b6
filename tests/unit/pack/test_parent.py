"""A pack with a parent writes only what changed and references the parent's tars for the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raysys.artifacts import ShardSetManifest
from raysys.config import Config
from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import InputError
from raysys.shards.reader import read_shard, shards_of
from tests.unit.pack.small_catalogue import (
    BY_SELLER,
    files_folder,
    numbered_rows,
    pack,
    read_tars,
    write_catalogue,
)


def configure(folder: Path, name: str, rows: Sequence[dict[str, str]], parent: Config | None) -> Config:
    """A catalogue over the same photos, with a root of its own."""
    section = PackConfig(split=BY_SELLER, items_per_shard=5, max_bad_fraction=1.0)
    config = write_catalogue(folder, rows, section)
    changes: dict[str, Any] = {"root": str(folder / name)}
    if parent is not None:
        changes["pack"] = section.model_copy(update={"parent": f"{parent.root}/shards"})
    return config.model_copy(update=changes)


def live_items(manifests: dict[str, ShardSetManifest], config: Config) -> dict[str, tuple[str, str]]:
    """Item -> split and title, over the tars of the ShardSets and the live items of the inherited ones."""
    items: dict[str, tuple[str, str]] = {}
    for split, manifest in manifests.items():
        folder = files_folder(config, split)
        rows = pq.read_table(folder / "items.parquet").to_pylist()
        live = {(row["shard"], row["item_id"]) for row in rows}
        tars = {shard.name: str(folder / shard.name) for shard in manifest.shards}
        tars |= {shard.uri: shard.uri for shard in manifest.inherited}
        split_items = {}
        for name, tar in tars.items():
            for sample in read_tars([Path(tar)]):
                content = json.loads(sample["json"])
                if (name, content["item_id"]) in live:
                    assert content["item_id"] not in items
                    split_items[content["item_id"]] = (split, content["title"])
        assert manifest.num_items == len(split_items)
        num_inherited = sum(shard.num_live for shard in manifest.inherited)
        assert num_inherited == len(split_items) - num_packed({split: manifest})
        assert split_items == streamed_items(f"{config.root}/shards/{split}", split)
        items |= split_items
    return items


def streamed_items(uri: str, split: str) -> dict[str, tuple[str, str]]:
    """The same as training and embedding read it."""
    items = [item for shard in shards_of(uri) for item in read_shard(shard)]
    return {item.item_id: (split, item.title) for item in items}


def num_packed(manifests: dict[str, ShardSetManifest]) -> int:
    return sum(shard.num_items for manifest in manifests.values() for shard in manifest.shards)


def test_later_catalogues_pack_only_changes_and_inherit_from_all_earlier_roots(tmp_path: Path) -> None:
    rows = numbered_rows(40)
    first = configure(tmp_path, "first", rows, None)
    before = live_items(pack(first), first)

    later = [dict(row) for row in rows[2:]]  # without i000 and i001
    later[0]["title"] = "coat"  # i002 changes
    later += [{"item_id": "new", "title": "hat", "seller": "zoe"}]
    second = configure(tmp_path, "second", later, first)
    manifests = pack(second)
    after = live_items(manifests, second)
    assert num_packed(manifests) == 2  # i002 and new
    inherited = [shard for manifest in manifests.values() for shard in manifest.inherited]
    assert sum(shard.num_items - shard.num_live for shard in inherited) == 3  # i000, i001, i002
    assert set(after) == {row["item_id"] for row in later}
    assert after["i002"] == (before["i002"][0], "coat")
    assert all(after[item_id] == before[item_id] for item_id in set(after) - {"new", "i002"})
    assert sum(manifest.num_rows for manifest in manifests.values()) == len(later)

    last = [row for row in later if row["item_id"] not in ("new", "i003")] + [{"item_id": "newer"}]
    third = configure(tmp_path, "third", last, second)
    manifests = pack(third)
    assert {row["item_id"] for row in last} == set(live_items(manifests, third))
    assert num_packed(manifests) == 1
    # Inherited shards are listed flat: the third set names the first root directly. The tar that held only
    # `new` is not listed any more.
    roots = {
        shard.uri.split("/shards/")[0] for manifest in manifests.values() for shard in manifest.inherited
    }
    assert roots == {first.root, second.root}
    assert {name: manifest.inputs[f"parent/{name}"].uri for name, manifest in manifests.items()} == {
        split: f"{second.root}/shards/{split}" for split in SPLITS
    }


def test_inherited_items_keep_their_group_when_its_leader_is_removed(tmp_path: Path) -> None:
    rows = numbered_rows(6)
    first = configure(tmp_path, "first", rows, None)
    pack(first)
    second = configure(tmp_path, "second", [{"item_id": "aaa"}, *rows[1:]], first)
    pack(second)
    tables = (pq.read_table(files_folder(second, split) / "items.parquet") for split in SPLITS)
    groups = {row["item_id"]: row["group"] for table in tables for row in table.to_pylist()}
    assert groups == dict.fromkeys(["aaa", *(row["item_id"] for row in rows[1:])], "i000")


def test_parent_in_the_same_root_is_an_error(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(3))
    section = config.pack.model_copy(update={"parent": f"{config.root}/shards"})
    with pytest.raises(InputError, match=r"pack\.parent: .*set root"):
        pack(config.model_copy(update={"pack": section}))
