"""Two items with one id are found before anything is embedded, and before vectors are published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.embed.unique import require_unique_items, require_unique_vectors
from raysys.errors import DamagedData
from raysys.shards.reader import Item, ShardRef
from tests.factories import write_shard, write_shards


def items(ids: str) -> list[Item]:
    return [Item(item_id, "red cup", b"") for item_id in ids]


def within_a_set(folder: Path) -> tuple[list[ShardRef], str]:
    shards = write_shards(folder / "train", items("abca"), items_per_shard=2)
    return shards, f"'a' in {folder}/train/00000.tar, {folder}/train/00001.tar"


def over_two_sets(folder: Path) -> tuple[list[ShardRef], str]:
    shards = [
        write_shard(folder / split, items(ids), split=split)
        for split, ids in [("train", "ab"), ("val", "cb")]
    ]
    return shards, f"'b' in {folder}/train/00000.tar, {folder}/val/00000.tar"


def within_a_shard(folder: Path) -> tuple[list[ShardRef], str]:
    return [write_shard(folder, items("abb"))], f"'b' in {folder}/00000.tar"


def live_twice(folder: Path) -> tuple[list[ShardRef], str]:
    shards, _ = inherited(folder, live="a")
    return shards, f"'a' in {folder}/parent/00000.tar, {folder}/train/00000.tar"


def inherited(folder: Path, live: str) -> tuple[list[ShardRef], str]:
    """The parent has a and b, of which `live` is still valid; the child has another a."""
    parent, own = write_shard(folder / "parent", items("ab")), write_shard(folder / "train", items("ac"))
    table = pq.read_table(folder / "train" / "items.parquet", columns=["item_id", "shard"])
    listed = pa.table({"item_id": [live], "shard": [parent.uri]})
    pq.write_table(pa.concat_tables([table, listed]), folder / "train" / "items.parquet")
    items_uri = f"{folder}/train/items.parquet"
    return [ShardRef(parent.uri, "train", 1, parent.num_bytes, parent.sha256, items_uri, 1), own], ""


@pytest.mark.parametrize("make", [within_a_set, over_two_sets, within_a_shard, live_twice])
def test_repeated_items_are_named_before_the_work(
    tmp_path: Path, make: Callable[[Path], tuple[list[ShardRef], str]]
) -> None:
    shards, named = make(tmp_path)
    with pytest.raises(DamagedData) as caught:
        require_unique_items("set", shards)
    assert str(caught.value) == (
        f"set: 1 item ids occur more than once (first {named}); make the ids unique, and pack again"
    )


def test_replaced_item_and_its_successor_may_have_one_id(tmp_path: Path) -> None:
    require_unique_items("set", inherited(tmp_path, live="b")[0])


def test_shards_that_are_not_embedded_may_have_any_id(tmp_path: Path) -> None:
    require_unique_items("set", within_a_set(tmp_path)[0][:1])


def test_set_without_a_table_of_items_is_checked_by_its_vectors_only(tmp_path: Path) -> None:
    shards, _ = within_a_shard(tmp_path)
    (tmp_path / "items.parquet").unlink()
    require_unique_items("set", shards)


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"train-0": "ab", "val-0": "ca"}, "'a' in train-0.tar, val-0.tar"),
        ({"train-0": "aab"}, "'a' in train-0.tar"),
        ({"train-0": "ab", "ledger": "ab"}, ""),  # the ledger has other items, and other columns
        ({}, ""),
    ],
)
def test_repeated_vectors_are_named_before_they_are_published(
    tmp_path: Path, parts: dict[str, str], named: str
) -> None:
    for name, ids in parts.items():
        table = pa.table({"item_id": list(ids), "title": list(ids), "shard": [f"{name}.tar"] * len(ids)})
        pq.write_table(table.drop(["shard"]) if name == "ledger" else table, tmp_path / f"{name}.parquet")
    if not named:
        require_unique_vectors(str(tmp_path))
        return
    with pytest.raises(DamagedData) as caught:
        require_unique_vectors(str(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path}: 1 item ids occur more than once (first {named}); make the ids unique, and pack again"
    )
