"""Blocks are bounded in bytes and keep order, coordinates and reasons."""

from __future__ import annotations

from raysys.shards.reader import BadSample, Item, ShardRef
from raysys.stream.blocks import SCHEMA, BlockBuilder

SHARD = ShardRef("a/00000.tar", "train", 9, 9216)


def stored(number: int, num_bytes: int) -> Item:
    return Item(f"i{number}", "cup", b"p" * num_bytes, {"b": 1, "a": None}, "g", 512 * number)


def test_block_is_yielded_when_its_photos_fill_it() -> None:
    block = BlockBuilder(100)
    sizes = [40, 60, 250, 10, 20]
    blocks = [b for n, size in enumerate(sizes) for b in block.add(stored(n, size), SHARD, (0, n, 0, n))]
    blocks += block.flush()
    assert [b.column("image_bytes").to_pylist() for b in blocks] == [[40, 60], [250], [10, 20]]
    assert [p for b in blocks for p in b.column("stream_position").to_pylist()] == [0, 1, 2, 3, 4]
    assert {b.schema for b in blocks} == {SCHEMA}
    assert list(block.flush()) == []


def test_row_contains_every_field_of_the_sample() -> None:
    block = BlockBuilder(1)
    (table,) = block.add(stored(3, 2), SHARD, (1, 20, 5, 3))
    assert table.to_pylist() == [
        {
            "item_id": "i3", "title": "cup", "attributes": '{"a": null, "b": 1}', "group": "g", "image": b"pp",
            "image_offset": 1536, "image_bytes": 2, "reason": "", "detail": "", "split": "train", "shard": "a/00000.tar",
            "epoch": 1, "stream_position": 20, "shard_number": 5, "sample_number": 3,
        }
    ]  # fmt: skip


def test_bad_sample_is_a_row_with_its_reason() -> None:
    block = BlockBuilder(100)
    assert list(block.add(BadSample("i7", "no_photo", "members: json"), SHARD, (0, 7, 0, 7))) == []
    (table,) = block.flush()
    (row,) = table.to_pylist()
    assert (row["item_id"], row["reason"], row["detail"]) == ("i7", "no_photo", "members: json")
    assert (row["image"], row["stream_position"]) == (b"", 7)
