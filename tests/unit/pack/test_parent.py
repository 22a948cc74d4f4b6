"""A later catalogue packs only what changed, and names the earlier tars for the rest."""

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
    catalogue,
    iterated,
    many,
    packed,
)


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
    with pytest.raises(InputError, match=r"^pack\.parent: .*; set root to another folder, and pack again$"):
        packed(own)
