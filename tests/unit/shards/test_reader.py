"""A shard has as many samples as promised: each comes back bit by bit, or says why it cannot."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from raysys import storage
from raysys.errors import DamagedData, MissingError
from raysys.shards.reader import BadSample, Item, ShardRef, StoredItem, foreign_shards, open_shard, read_shard
from tests.factories import photo, write_shard

ITEMS = [
    Item(
        f"i{number}",
        f"{colour} cup",
        photo(colour),
        {"seller": "anna", "price": number},
        "g" if number > 2 else "",
    )
    for number, colour in enumerate(("red", "green", "blue", "white", "black"))
]


@pytest.fixture
def shard(tmp_path: Path) -> ShardRef:
    """A shard of five items, whose photos have as many colours."""
    return write_shard(tmp_path, ITEMS)


def rewritten(shard: ShardRef, data: bytes) -> ShardRef:
    """The shard with other bytes, but the same promises."""
    Path(shard.uri).write_bytes(data)
    return shard


def samples_of(shard: ShardRef) -> list[StoredItem | BadSample]:
    with open_shard(shard) as opened:
        return [opened.read(number) for number in range(shard.num_items)]


def test_items_come_back_in_order_with_all_they_had(shard: ShardRef) -> None:
    assert [stored.item for stored in read_shard(shard)] == ITEMS


def test_ranged_read_at_the_offset_gives_the_photo_back(shard: ShardRef) -> None:
    for stored in read_shard(shard):
        assert storage.read_range(shard.uri, stored.image_offset, len(stored.item.image)) == stored.item.image


def test_flipped_byte_anywhere_is_found_by_a_strict_reader(shard: ShardRef) -> None:
    data = Path(shard.uri).read_bytes()
    for place in (0, 600, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[place] ^= 1
        with pytest.raises(DamagedData) as caught:
            next(read_shard(rewritten(shard, bytes(damaged))))
        assert str(caught.value) == (
            f"{shard.uri}: {len(data)} bytes with another SHA-256 than its manifest says; "
            "`raysys verify` tells more, `raysys pack` makes it anew"
        )


def test_count_is_checked_even_when_the_hash_agrees(shard: ShardRef) -> None:
    cut = list(read_shard(shard))[2].image_offset - 512  # where the third photo's header is
    data = Path(shard.uri).read_bytes()[:cut]
    promised = dataclasses.replace(shard, sha256=storage.sha256_of_bytes(data))
    with pytest.raises(DamagedData, match="sample '2': missing: 2 of 5 samples are there"):
        list(read_shard(rewritten(promised, data)))


def test_more_items_than_promised_are_damage_too(shard: ShardRef) -> None:
    with pytest.raises(DamagedData, match="5 samples, its manifest says 4; pack again"):
        list(read_shard(dataclasses.replace(shard, num_items=4)))


def test_cut_shard_keeps_its_places_and_says_what_is_missing(shard: ShardRef) -> None:
    cut = list(read_shard(shard))[3].image_offset + 5
    found = samples_of(rewritten(shard, Path(shard.uri).read_bytes()[:cut]))
    assert [sample.item for sample in found if isinstance(sample, StoredItem)] == ITEMS[:3]
    size = len(ITEMS[3].image)
    why = f"3 of 5 samples are there ('i3.jpg' has 5 of its {size} bytes, then the file ends)"
    assert found[3:] == [BadSample("", "missing", why)] * 2


def test_sample_that_lost_its_photo_is_named_and_the_others_are_whole(shard: ShardRef) -> None:
    data = bytearray(Path(shard.uri).read_bytes())
    data[list(read_shard(shard))[1].image_offset - 512] ^= 0xFF  # the header of the second photo
    found = samples_of(rewritten(shard, bytes(data)))
    assert found[1] == BadSample("i1", "no_photo", "members: json")
    assert [s.item for s in found if isinstance(s, StoredItem)] == [ITEMS[0], *ITEMS[2:]]


def test_flipped_byte_costs_the_sample_it_is_in_and_no_other(shard: ShardRef) -> None:
    data = bytearray(Path(shard.uri).read_bytes())
    photo_at = list(read_shard(shard))[1].image_offset
    data[photo_at + 300] ^= 1  # a JPEG that still decodes, to other pixels
    title_at = data.index(b"white cup")
    data[title_at] ^= 1
    found = samples_of(rewritten(shard, bytes(data)))
    why = "not what was packed: another photo, title or attribute"
    assert found[1] == BadSample("i1", "changed", why)
    assert found[3] == BadSample("i3", "changed", why)
    assert [s.item for s in found if isinstance(s, StoredItem)] == [ITEMS[0], ITEMS[2], ITEMS[4]]


def test_damaged_shard_without_a_table_of_its_items_is_refused(shard: ShardRef) -> None:
    Path(shard.uri).with_name("items.parquet").unlink()
    data = Path(shard.uri).read_bytes()
    with pytest.raises(
        DamagedData, match=r"00000.tar: not the bytes that its manifest says, and no items.parquet"
    ):
        samples_of(rewritten(shard, data[:-1] + b"x"))


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"{", "JSONDecodeError"),
        (b"[]", "AttributeError"),
        (b'{"item_id": "i9", "title": " "}', "ValueError: the sample has no title"),
        (b"{}", "ValueError: the sample has no title"),
    ],
)
def test_sample_without_a_text_says_so(tmp_path: Path, text: bytes, detail: str) -> None:
    tar = io.BytesIO()
    with webdataset.TarWriter(tar, mtime=0, encoder=False) as writer:
        writer.write({"__key__": "i9", "jpg": photo(), "json": text})
    (tmp_path / "00000.tar").write_bytes(tar.getvalue())
    (found,) = samples_of(ShardRef(f"{tmp_path}/00000.tar", "train", 1, len(tar.getvalue())))
    assert isinstance(found, BadSample)
    assert (found.key, found.reason) == ("i9", "bad_text")
    assert found.detail.startswith(detail)


def test_shard_that_is_gone_is_a_missing_error(shard: ShardRef) -> None:
    Path(shard.uri).unlink()
    with pytest.raises(MissingError, match=f"{shard.uri}: no such file"), open_shard(shard):
        pass


def test_items_under_a_tombstone_are_no_samples(shard: ShardRef, tmp_path: Path) -> None:
    dead = pa.table({"shard": [shard.uri, "other.tar", shard.uri], "item_id": ["i1", "i0", "i4"]})
    pq.write_table(dead, tmp_path / "tombstones.parquet")
    live = dataclasses.replace(shard, num_items=3, tombstones_uri=f"{tmp_path}/tombstones.parquet")
    assert [stored.item.item_id for stored in read_shard(live)] == ["i0", "i2", "i3"]


def foreign(folder: Path, samples: list[dict[str, object]]) -> str:
    with webdataset.TarWriter(str(folder / "foreign.tar"), encoder=False) as writer:
        for sample in samples:
            writer.write(sample)
    return f"{folder}/foreign.tar"


def test_foreign_webdataset_is_read_without_a_manifest(tmp_path: Path) -> None:
    said = json.dumps({"caption": "a blue cup", "url": "https://x"}).encode()
    uri = foreign(
        tmp_path,
        [
            {"__key__": "000/a", "png": b"p", "txt": b"red cup"},
            {"__key__": "000/b", "webp": b"w", "json": said},
            {"__key__": "000/c", "jpeg": b"j"},
        ],
    )
    (shard,) = foreign_shards([uri])
    assert shard == ShardRef(uri, "train", 3, Path(uri).stat().st_size)
    first, second, third = samples_of(shard)
    assert isinstance(first, StoredItem)
    assert isinstance(second, StoredItem)
    assert first.item == Item("000/a", "red cup", b"p")
    assert second.item == Item("000/b", "a blue cup", b"w")
    assert third == BadSample("000/c", "bad_text", "ValueError: the sample has no title")


def test_foreign_shard_with_damage_is_refused_for_nobody_knows_what_is_lost(tmp_path: Path) -> None:
    uri = foreign(tmp_path, [{"__key__": f"{n}", "jpg": b"p", "txt": b"cup"} for n in range(3)])
    Path(uri).write_bytes(Path(uri).read_bytes()[:2048])
    with pytest.raises(DamagedData) as caught:
        foreign_shards([uri])
    assert str(caught.value) == (
        f"{uri}: no_end at byte 2048: the file ends without the end that a tar has; "
        "`raysys verify --repair` writes a clean copy"
    )
