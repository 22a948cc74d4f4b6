"""Pairs are read by parts: each part opens only the shards that it needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.config.schema import RobustConfig
from raysys.errors import DamagedData, InputError, MissingError
from raysys.evaluate.pairs import DrawnPairs, PackedPairs, retention_pairs
from raysys.shards.reader import Item
from raysys.synth import generate_items
from tests.factories import photo, write_shards
from tests.shards_by_hand import write_shard_set

ITEMS = [Item(f"i{n}", f"cup {n}", photo(size=(8 + n, 8))) for n in range(7)]


def test_parts_together_are_all_pairs_in_order(tmp_path: Path) -> None:
    pairs = PackedPairs(write_shards(tmp_path, ITEMS, items_per_shard=3), [0, 2, 3, 6])
    expected = [(ITEMS[n].image, ITEMS[n].title) for n in (0, 2, 3, 6)]
    for size in (1, 2, 3, 4):
        parts = [list(pairs.read(start, start + size)) for start in range(0, 6, size)]
        assert [pair for part in parts for pair in part] == expected


def test_part_does_not_open_other_shards(tmp_path: Path) -> None:
    shards = write_shards(tmp_path, ITEMS, items_per_shard=3)
    Path(shards[1].uri).write_bytes(b"")
    pairs = PackedPairs(shards, range(7))
    assert [title for _, title in pairs.read(0, 3)] == ["cup 0", "cup 1", "cup 2"]
    assert [title for _, title in pairs.read(6, 9)] == ["cup 6"]
    with pytest.raises(DamagedData, match="differs from the manifest"):
        list(pairs.read(2, 4))


def test_drawn_pairs_are_reproducible_and_differ_from_catalogues() -> None:
    pairs = list(DrawnPairs(6).read(0, 6))
    assert [*DrawnPairs(6).read(0, 4), *DrawnPairs(6).read(4, 8)] == pairs
    assert len(pairs) == 6
    assert [title for _, title in pairs] != [item.title for item in generate_items(6, seed=7)]


def test_retention_pairs_are_drawn_or_the_first_of_a_shard_set(tmp_path: Path) -> None:
    assert retention_pairs(RobustConfig(retention_items=6)) == DrawnPairs(6)
    write_shard_set(tmp_path, ["first", "second"], ["third"])
    for limit, num_pairs in ((2, 2), (9, 3)):
        pairs = retention_pairs(RobustConfig(retention_set=str(tmp_path), retention_items=limit))
        assert isinstance(pairs, PackedPairs)
        assert pairs.num_pairs == len(list(pairs.read(0, 9))) == num_pairs


def test_unusable_shard_set_is_reported_before_training(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no ShardSet here"):
        retention_pairs(RobustConfig(retention_set=str(tmp_path / "nothing")))
    write_shard_set(tmp_path, [])
    with pytest.raises(InputError, match="no items"):
        retention_pairs(RobustConfig(retention_set=str(tmp_path)))
