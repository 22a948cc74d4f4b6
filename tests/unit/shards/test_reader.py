"""A shard has as many samples as its manifest states; each one is read unchanged or returned as an error."""

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
from raysys.shards.reader import BadSample, Item, ShardRef, open_shard, read_shard
from tests.factories import photo, tar_of, write_shard

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
    """A shard of five items, each with a photo of another colour."""
    return write_shard(tmp_path, ITEMS)


def overwrite(shard: ShardRef, data: bytes) -> ShardRef:
    """Replace the bytes of the shard, but not its manifest entry."""
    Path(shard.uri).write_bytes(data)
    return shard


def read_all(shard: ShardRef) -> list[Item | BadSample]:
    with open_shard(shard) as opened:
        return [opened.read(number) for number in range(shard.num_items)]


def test_items_are_read_in_order_with_all_fields(shard: ShardRef) -> None:
    assert list(read_shard(shard)) == ITEMS


def test_ranged_read_at_the_offset_returns_the_photo(shard: ShardRef) -> None:
    for item in read_shard(shard):
        assert storage.read_range(shard.uri, item.image_offset, len(item.image)) == item.image


def test_read_shard_rejects_a_flipped_byte_anywhere(shard: ShardRef) -> None:
    data = Path(shard.uri).read_bytes()
    for offset in (0, 600, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[offset] ^= 1
        with pytest.raises(DamagedData) as caught:
            next(read_shard(overwrite(shard, bytes(damaged))))
        assert str(caught.value) == (
            f"{shard.uri}: the SHA-256 of its {len(data)} bytes differs from the manifest; "
            "run `raysys verify` for details; delete it, and `raysys pack` writes it again"
        )


def test_missing_samples_are_rejected_even_if_the_hash_matches(shard: ShardRef) -> None:
    cut = list(read_shard(shard))[2].image_offset - 512  # where the third photo's header is
    data = Path(shard.uri).read_bytes()[:cut]
    shorter = dataclasses.replace(shard, sha256=storage.sha256_of_bytes(data))
    with pytest.raises(DamagedData, match="sample '2': missing: the shard has 2 of 5 samples"):
        list(read_shard(overwrite(shorter, data)))


def test_more_items_than_in_the_manifest_are_rejected(shard: ShardRef) -> None:
    with pytest.raises(DamagedData, match="5 samples, but its manifest states 4; pack again"):
        list(read_shard(dataclasses.replace(shard, num_items=4)))


def test_cut_shard_returns_its_missing_samples_as_errors(shard: ShardRef) -> None:
    cut = list(read_shard(shard))[3].image_offset + 5
    samples = read_all(overwrite(shard, Path(shard.uri).read_bytes()[:cut]))
    assert [sample for sample in samples if isinstance(sample, Item)] == ITEMS[:3]
    size = len(ITEMS[3].image)
    detail = f"the shard has 3 of 5 samples ('i3.jpg' is cut off after 5 of {size} bytes)"
    assert samples[3:] == [BadSample("i3", "missing", detail), BadSample("i4", "missing", detail)]


def test_damaged_header_costs_one_sample_and_no_other(shard: ShardRef) -> None:
    data = bytearray(Path(shard.uri).read_bytes())
    data[list(read_shard(shard))[1].image_offset - 512] ^= 0xFF  # the header of the second photo
    samples = read_all(overwrite(shard, bytes(data)))
    assert samples[1] == BadSample("i1", "no_photo", "members: json")
    assert [s for s in samples if isinstance(s, Item)] == [ITEMS[0], *ITEMS[2:]]


def test_sample_without_any_header_moves_no_other_sample(shard: ShardRef) -> None:
    data = bytearray(Path(shard.uri).read_bytes())
    start = list(read_shard(shard))[1].image_offset - 512
    stop = list(read_shard(shard))[2].image_offset - 512
    data[start:stop] = bytes(stop - start)
    samples = read_all(overwrite(shard, bytes(data)))
    detail = (
        f"the shard has 4 of 5 samples ({stop - start} zeros before further members: other readers stop here)"
    )
    assert samples == [ITEMS[0], BadSample("i1", "missing", detail), *ITEMS[2:]]


def test_samples_of_another_shard_behind_the_end_are_ignored(shard: ShardRef) -> None:
    data = Path(shard.uri).read_bytes()
    other = tar_of([Item("i00", "a mug", photo("pink"))])
    assert read_all(overwrite(shard, data + other)) == ITEMS


def test_flipped_byte_costs_its_own_sample_and_no_other(shard: ShardRef) -> None:
    data = bytearray(Path(shard.uri).read_bytes())
    photo_offset = list(read_shard(shard))[1].image_offset
    data[photo_offset + 300] ^= 1  # a JPEG that still decodes, to other pixels
    title_offset = data.index(b"white cup")
    data[title_offset] ^= 1
    samples = read_all(overwrite(shard, bytes(data)))
    detail = "photo, title or attributes differ from the packed item"
    assert samples[1] == BadSample("i1", "changed", detail)
    assert samples[3] == BadSample("i3", "changed", detail)
    assert [s for s in samples if isinstance(s, Item)] == [ITEMS[0], ITEMS[2], ITEMS[4]]


def test_damaged_shard_without_item_hashes_is_rejected(shard: ShardRef) -> None:
    Path(shard.uri).with_name("items.parquet").unlink()
    data = Path(shard.uri).read_bytes()
    with pytest.raises(
        DamagedData,
        match=r"00000.tar: its bytes differ from the manifest, and without items.parquet .*--repair",
    ):
        read_all(overwrite(shard, data[:-1] + b"x"))


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (b"{", "JSONDecodeError"),
        (b"[]", "AttributeError"),
        (b'{"item_id": "i9", "title": " "}', "ValueError: the sample has no title"),
        (b"{}", "ValueError: the sample has no title"),
    ],
)
def test_sample_with_an_invalid_text_is_bad_text(tmp_path: Path, text: bytes, detail: str) -> None:
    tar = io.BytesIO()
    with webdataset.TarWriter(tar, mtime=0, encoder=False) as writer:
        writer.write({"__key__": "i9", "jpg": photo(), "json": text})
    (tmp_path / "00000.tar").write_bytes(tar.getvalue())
    (sample,) = read_all(ShardRef(f"{tmp_path}/00000.tar", "train", 1, len(tar.getvalue())))
    assert isinstance(sample, BadSample)
    assert (sample.key, sample.reason) == ("i9", "bad_text")
    assert sample.detail.startswith(detail)


def test_absent_shard_is_a_missing_error(shard: ShardRef) -> None:
    Path(shard.uri).unlink()
    with pytest.raises(MissingError, match=f"{shard.uri}: no such file"), open_shard(shard):
        pass


def test_only_the_items_in_the_table_of_a_referring_shard_set_are_read(
    shard: ShardRef, tmp_path: Path
) -> None:
    table = pa.table(
        {"shard": [shard.uri, "other.tar", shard.uri, shard.uri], "item_id": ["i0", "i1", "i3", "i2"]}
    )
    pq.write_table(table, tmp_path / "new.parquet")
    shard = dataclasses.replace(shard, num_items=3, num_others=2, items_uri=f"{tmp_path}/new.parquet")
    assert [item.item_id for item in read_shard(shard)] == ["i0", "i2", "i3"]


def test_third_party_webdataset_is_read_without_a_manifest(tmp_path: Path) -> None:
    caption = json.dumps({"caption": "a blue cup", "url": "https://x"}).encode()
    uri = f"{tmp_path}/foreign.tar"
    with webdataset.TarWriter(uri, encoder=False) as writer:
        writer.write({"__key__": "000/a", "png": b"p", "txt": b"red cup"})
        writer.write({"__key__": "000/b", "webp": b"w", "json": caption})
        writer.write({"__key__": "000/c", "jpeg": b"j"})
    first, second, third = read_all(ShardRef(uri, "train", 3))
    assert isinstance(first, Item)
    assert isinstance(second, Item)
    assert first == Item("000/a", "red cup", b"p")
    assert second == Item("000/b", "a blue cup", b"w")
    assert third == BadSample("000/c", "bad_text", "ValueError: the sample has no title")
