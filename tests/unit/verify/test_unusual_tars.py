"""Tars as other tools and accidents leave them: what `verify` reports, and what the copy has."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

from raysys.shards.reader import BadSample, Item, ShardRef, open_shard
from raysys.verify.find import find_sources
from raysys.verify.repair import RepairSummary, repair
from raysys.verify.shard_checks import verify, verify_shard
from tests.factories import write_shard
from tests.shards_by_hand import foreign_sample, members_of, photo, raysys_sample, tar_of, write_shard_set

RED, BLUE = photo(), photo("blue")


def archive(*members: tuple[str, bytes | str]) -> bytes:
    """A tar with these files; a text is the target of a hard link, after `->` of a symbolic link."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type = tarfile.SYMTYPE if content.startswith("->") else tarfile.LNKTYPE
                info.linkname = content.removeprefix("->")
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return data.getvalue()


def directories(*names: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            tar.addfile(info)
    return data.getvalue()


def sample(key: str, image: bytes = RED) -> list[tuple[str, bytes]]:
    return [(f"{key}.jpg", image), (f"{key}.txt", b"a cup")]


def check(folder: Path, data: bytes, name: str = "1.tar") -> tuple[dict[str, int], bool, list[str]]:
    """The counts of findings, whether there is damage, and the keys that the copy has."""
    folder.mkdir()
    (folder / name).write_bytes(data)
    sources = find_sources([str(folder)])
    result = verify(sources, map, max_pixels=10**6)
    (health,) = result.shards
    out = folder / "out"
    if health.is_intact.any():
        repair(sources, str(out), result.repeats, map, max_pixels=10**6)
    names = list(members_of(out / "1.tar")) if out.exists() else []
    counts = {str(kind): number for kind, number in health.counts.items()}
    return counts, bool(health.num_damage_findings), [n for n in names if not n.endswith("txt")]


A, B = tar_of([foreign_sample("a")]), tar_of([foreign_sample("b")])
END = A.rindex(b"a cup") + 512  # of the last member with its padding


@pytest.mark.parametrize(
    ("data", "counts", "is_damage", "kept"),
    [
        pytest.param(A + B, {"early_end": 1}, True, ["a.jpg", "b.jpg"], id="concatenated"),
        pytest.param(A + A, {"early_end": 1, "repeated_member": 2}, True, ["a.jpg"], id="twice"),
        pytest.param(A[:END] + bytes(512) + B, {"early_end": 1}, True, ["a.jpg", "b.jpg"], id="one block of zeros"),
        pytest.param(A + b"garbage!" * 64 + B, {"damaged_header": 1}, True, ["a.jpg", "b.jpg"], id="garbage"),
        pytest.param(bytes(10240), {"no_sample": 1}, True, [], id="zeros"),
        pytest.param(directories("x", "y"), {"no_sample": 1}, True, [], id="directories"),
        pytest.param(archive(("README", b"x")), {"ignored_member": 1, "no_sample": 1}, True, [], id="no suffix"),
        pytest.param(archive(("a.jpg", "b.jpg"), ("a.txt", "b.txt")), {"broken_link": 2}, True, [], id="only links"),
        pytest.param(archive(*sample("a"), ("b.jpg", "a.jpg"), ("b.txt", b"x")), {"link": 1}, True, ["a.jpg", "b.jpg"], id="hard link"),
        pytest.param(archive(("b.jpg", "->x/a.jpg"), ("b.txt", b"x"), *sample("x/a")), {"link": 1}, True, ["b.jpg", "x/a.jpg"], id="symbolic link"),
        pytest.param(archive(*sample("x/a"), ("x/b.jpg", "->a.jpg"), ("x/b.txt", "->./b.jpg")), {"link": 2, "bad_text": 1}, True, ["x/a.jpg"], id="chain"),
        pytest.param(archive(*sample("a"), ("b.jpg", "->b.jpg"), ("b.txt", b"x")), {"broken_link": 1, "no_photo": 1}, True, ["a.jpg"], id="loop"),
        pytest.param(archive(*sample("22.05"), *sample("22.06")), {"dotted_name": 2}, True, ["22_05.jpg", "22_06.jpg"], id="dotted"),
        pytest.param(archive(*sample("22.05"), *sample("22_05", BLUE)), {"dotted_name": 1, "unsorted": 1}, True, ["22_05.jpg", "22_05_.jpg"], id="dotted and taken"),
        pytest.param(archive(("a.left.jpg", RED), *sample("a")), {}, False, ["a.jpg", "a.left.jpg"], id="two photos"),
        pytest.param(archive(("a.left.jpg", RED), ("a.txt", b"x")), {"no_photo": 1}, True, [], id="no plain photo"),
        pytest.param(archive(("a.jfif", RED), ("a.txt", b"x"), ("b.JPE", RED), ("b.txt", b"x")), {}, False, ["a.jfif", "b.jpe"], id="suffixes of JPEG"),
        pytest.param(archive(*sample("x/a"), ("__MACOSX/x/._a.jpg", b"\0"), ("x/.DS_Store", b"\0")), {"ignored_member": 2}, False, ["x/a.jpg"], id="macOS"),
        pytest.param(pa.compress(A, "zstd", asbytes=True), {"unsupported_compression": 1}, True, [], id="zstd"),
        pytest.param(b"", {"empty": 1}, True, [], id="empty"),
    ],
)  # fmt: skip
def test_unusual_tar(
    tmp_path: Path, data: bytes, counts: dict[str, int], is_damage: bool, kept: list[str]
) -> None:
    expected = (counts, is_damage, kept)
    assert check(tmp_path / "in", data) == expected


COMPRESSIONS = [gzip.compress, bz2.compress, lzma.compress]


@pytest.mark.parametrize("compress", COMPRESSIONS)
@pytest.mark.parametrize(
    ("change", "counts", "is_damage", "kept"),
    [
        (lambda a, b: a, {"compressed": 1}, False, ["a.jpg"]),
        (lambda a, b: a + bytes(1000), {"compressed": 1}, False, ["a.jpg"]),
        (lambda a, b: a + b, {"compressed": 1, "early_end": 1}, True, ["a.jpg", "b.jpg"]),
        (lambda a, b: a + bytes(64) + b, {"compressed": 1, "early_end": 1}, True, ["a.jpg", "b.jpg"]),
        (lambda a, b: a[:-3], {"compressed": 1, "damaged_compression": 1}, True, ["a.jpg"]),
        (lambda a, b: a + b"garbage", {"compressed": 1, "damaged_compression": 1}, True, ["a.jpg"]),
        (lambda a, b: a + b[:10], {"compressed": 1, "damaged_compression": 1}, True, ["a.jpg"]),
    ],
    ids=["whole", "padded", "two", "two with zeros", "cut off", "garbage", "second cut off"],
)
def test_compressed_tar_is_read_up_to_its_damage(
    tmp_path: Path,
    compress: Callable[[bytes], bytes],
    change: Callable[[bytes, bytes], bytes],
    counts: dict[str, int],
    is_damage: bool,
    kept: list[str],
) -> None:
    found = check(tmp_path / "in", change(compress(A), compress(B)))
    assert found == (counts, is_damage, kept)


def test_zstd_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "1.tar.zst").write_bytes(pa.compress(A, "zstd", asbytes=True))
    health = verify_shard(ShardRef(f"{tmp_path}/1.tar.zst"), max_pixels=10**6)
    detail = "compressed with zstd, which is not read; unpack it with `zstd -d`"
    assert [finding.detail for finding in health.findings] == [detail]
    with open_shard(ShardRef(f"{tmp_path}/1.tar.zst", "train", 3)) as opened:
        missing = opened.read(2)
    assert isinstance(missing, BadSample)
    assert missing.detail == f"the shard has 0 of 3 samples ({detail})"


def test_name_of_a_member_that_begins_like_bzip2_is_no_compression(tmp_path: Path) -> None:
    assert check(tmp_path / "in", archive(*sample("BZh91AY"))) == ({}, False, ["BZh91AY.jpg"])


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("1.TAR", bytes),
        *((name, gzip.compress) for name in ("1.tar.gz", "1.tgz", "1.TGZ", "1.tar")),
        *((name, bz2.compress) for name in ("1.tar.bz2", "1.tbz2", "1.tbz", "1.tar")),
        *((name, lzma.compress) for name in ("1.tar.xz", "1.txz", "1.Tar.XZ", "1.tar")),
    ],
)
def test_shard_is_found_by_every_name_of_a_tar(
    tmp_path: Path, name: str, compress: Callable[[bytes], bytes]
) -> None:
    assert check(tmp_path / "in", compress(A), name)[2] == ["a.jpg"]  # the copy is a plain 1.tar


def noise() -> bytes:
    data = io.BytesIO()
    Image.frombytes("RGB", (64, 64), random.Random(0).randbytes(3 * 64 * 64)).save(data, "JPEG")
    return data.getvalue()


def png() -> bytes:
    return photo(side_px=64, kind="PNG")


@pytest.mark.parametrize(
    ("image", "damage"),
    [
        (noise(), lambda data: data[:1000] + bytes(4000) + data[5000:]),
        (png(), lambda data: data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]),
    ],
)
def test_damage_that_the_decoder_only_warns_about_is_damage(
    tmp_path: Path, image: bytes, damage: Callable[[bytes], bytes]
) -> None:
    suffix = "png" if image.startswith(b"\x89") else "jpg"
    both = archive(
        *((f"{key}.txt", b"x") for key in "ab"), (f"a.{suffix}", image), (f"b.{suffix}", damage(image))
    )
    counts, is_damage, kept = check(tmp_path / "in", both)
    assert (counts["unreadable_photo"], is_damage, kept) == (1, True, [f"a.{suffix}"])


def test_intact_copy_of_a_repeated_member_is_used(tmp_path: Path) -> None:
    data = archive(("a.jpg", b"\xff\xd8 damaged"), ("a.txt", b"first"), *sample("a", BLUE))
    counts, _, kept = check(tmp_path / "in", data)
    assert counts == {"repeated_member": 2, "unreadable_photo": 1}
    assert kept == ["a.jpg"]
    copy = (tmp_path / "in" / "out" / "1.tar").read_bytes()
    assert BLUE in copy
    assert (
        b"first" not in copy
    )  # the text of the damaged sample is not joined with the photo of the other one


def test_reader_and_verify_find_the_same_samples(tmp_path: Path) -> None:
    hole = tar_of([foreign_sample("a"), foreign_sample("b"), foreign_sample("c")])
    start = hole.index(b"b.jpg")
    stop = hole.index(b"c.jpg")
    data = gzip.compress(hole[:start] + bytes(stop - start) + hole[stop:])
    counts, _, kept = check(tmp_path / "in", data)
    assert (counts, kept) == ({"compressed": 1, "early_end": 1}, ["a.jpg", "c.jpg"])
    with open_shard(ShardRef(f"{tmp_path}/in/1.tar", "train", 2)) as opened:
        items = [opened.read(number) for number in range(2)]
    assert [item.item_id for item in items if isinstance(item, Item)] == ["a", "c"]


def test_photo_that_contains_a_header_stays_content(tmp_path: Path) -> None:
    """A JPEG may have a tar in a comment: nothing is cut off, so its members are not members of the shard."""
    comment = b"\xff\xfe" + (508 + 10240).to_bytes(2, "big") + bytes(506) + archive(("evil.txt", b"x"))
    data = archive(("a.jpg", RED[:2] + comment[:4] + bytes(506) + comment[510:] + RED[2:]), ("a.txt", b"x"))
    assert b"evil.txt" in data
    assert check(tmp_path / "in", data) == ({}, False, ["a.jpg"])


def test_scan_with_warnings_is_lost_if_the_tar_is_not_as_packed(tmp_path: Path) -> None:
    """Without the table of items, a photo with an irregular scan is kept only if its tar is unchanged."""
    write_shard_set(tmp_path / "in", "ab")
    path = tmp_path / "in" / "00000.tar"
    path.write_bytes(tar_of([raysys_sample("a"), {**raysys_sample("b"), "jpg": noise()[:2000] + bytes(999)}]))
    sources = find_sources([str(tmp_path / "in")])
    result = verify(sources, map, max_pixels=10**6)
    summary = repair(sources, f"{tmp_path}/out", result.repeats, map, max_pixels=10**6)
    assert summary == RepairSummary(num_kept=1, num_lost=1, num_parts=0)


def test_changed_item_of_a_damaged_shard_is_found_by_its_hash(tmp_path: Path) -> None:
    """As in the reader: the photo and the text can be decoded, but they are not what was packed."""
    items = [Item(key, f"{key} cup", photo("red")) for key in ("i0", "i1", "i2")]
    shard = write_shard(tmp_path, items)
    path = Path(shard.uri)
    path.write_bytes(path.read_bytes().replace(b"i1 cup", b"i1 mug"))
    with open_shard(shard) as opened:
        read = [opened.read(number) for number in range(3)]
    assert [sample for sample in read if isinstance(sample, Item)] == [items[0], items[2]]
    health = verify_shard(shard, max_pixels=10**6)
    assert health.counts == {"wrong_sha256": 1, "changed": 1}
    assert health.is_intact.tolist() == [True, False, True]
