"""Shards are read strictly: a photo comes back bit by bit, and damage never makes a shard shorter."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from raysys import storage
from raysys.errors import DamagedData
from raysys.records import Item
from raysys.stream.tar import ShardRef, read_shard
from tests.packed import packed_shards


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> ShardRef:
    """A shard of five items, whose photos have as many colours."""
    folder = tmp_path_factory.mktemp("shard")
    items = []
    for number, colour in enumerate(("red", "green", "blue", "white", "black")):
        Image.new("RGB", (8, 8), colour).save(folder / f"{colour}.jpg", "JPEG")
        photo = (folder / f"{colour}.jpg").read_bytes()
        items.append(Item(f"i{number}", f"{colour} cup", photo, {"seller": "anna", "price": number}))
    (shard,) = packed_shards(folder, items)
    return shard


def rewritten(shard: ShardRef, data: bytes, folder: Path, **promised: str) -> ShardRef:
    """The shard with other bytes, and what its manifest says of it."""
    path = folder / "00000.tar"
    path.write_bytes(data)
    return dataclasses.replace(shard, **{"uri": str(path), **promised})  # type: ignore[arg-type]  # texts alone


def test_items_come_back_in_order_with_all_they_had(packed: ShardRef) -> None:
    items = [stored.item for stored in read_shard(packed)]
    assert [item.item_id for item in items] == ["i0", "i1", "i2", "i3", "i4"]
    assert items[2].title == "blue cup"
    assert items[2].attributes == {"seller": "anna", "price": 2}
    assert items[2].image == (Path(packed.uri).parents[2] / "blue.jpg").read_bytes()


def test_ranged_read_at_the_offset_gives_the_photo_back(packed: ShardRef) -> None:
    for stored in read_shard(packed):
        photo = storage.read_range(packed.uri, stored.image_offset, len(stored.item.image))
        assert photo == stored.item.image
        assert Image.open(io.BytesIO(photo)).size == (8, 8)


def test_flipped_byte_anywhere_is_found(packed: ShardRef, tmp_path: Path) -> None:
    data = Path(packed.uri).read_bytes()
    for place in (0, 600, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1
        shard = rewritten(packed, bytes(damaged), tmp_path)
        with pytest.raises(DamagedData) as caught:
            next(read_shard(shard))
        assert str(caught.value) == (
            f"{tmp_path}/00000.tar: {len(data)} bytes with another SHA-256 than its manifest says; pack again"
        )


def test_shard_cut_at_the_border_of_a_member_is_found(packed: ShardRef, tmp_path: Path) -> None:
    third = list(read_shard(packed))[2]
    cut = third.image_offset - 512  # the header of the third photo: tarfile ends there without a word
    shard = rewritten(packed, Path(packed.uri).read_bytes()[:cut], tmp_path)
    with pytest.raises(DamagedData, match=f"{tmp_path}/00000.tar: {cut} bytes with another SHA-256"):
        list(read_shard(shard))


def test_count_is_checked_even_when_the_hash_agrees(packed: ShardRef, tmp_path: Path) -> None:
    third = list(read_shard(packed))[2]
    data = Path(packed.uri).read_bytes()[: third.image_offset - 512]
    shard = rewritten(packed, data, tmp_path, sha256=storage.sha256_of_bytes(data))
    with pytest.raises(DamagedData) as caught:
        list(read_shard(shard))
    assert str(caught.value) == f"{tmp_path}/00000.tar: 2 items, its manifest says 5; pack again"


def test_more_items_than_promised_are_damage_too(packed: ShardRef) -> None:
    with pytest.raises(DamagedData, match="5 items, its manifest says 4; pack again"):
        list(read_shard(dataclasses.replace(packed, num_items=4)))


def test_sample_without_a_photo_is_named(packed: ShardRef, tmp_path: Path) -> None:
    tar = io.BytesIO()
    with webdataset.TarWriter(tar, mtime=0, encoder=False) as writer:
        writer.write({"__key__": "i9", "json": b"{}"})
    shard = rewritten(packed, tar.getvalue(), tmp_path, sha256=storage.sha256_of_bytes(tar.getvalue()))
    with pytest.raises(DamagedData) as caught:
        list(read_shard(shard))
    assert str(caught.value) == f"{tmp_path}/00000.tar: sample 'i9' has no photo before its json; pack again"
