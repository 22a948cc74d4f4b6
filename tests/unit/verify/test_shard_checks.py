"""Every kind of damage is reported with its sample and offset; intact samples are not affected."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from raysys import storage
from raysys.artifacts import FileEntry, InheritedShard
from raysys.shards.reader import ShardRef
from raysys.verify.find import ShardSource, find_sources, open_shard_set
from raysys.verify.health import Finding, ShardHealth
from raysys.verify.shard_checks import VerifyResult, verify, verify_shard
from tests.shards_by_hand import (
    Sample,
    cut,
    flip,
    foreign_sample,
    members_of,
    photo,
    raysys_sample,
    shard_ref,
    write_shard_set,
    write_tar,
)

MAX_PIXELS = 1000


def check_samples(path: Path, *samples: Sample) -> ShardHealth:
    """The health of a tar with these samples and without a manifest."""
    return verify_shard(ShardRef(str(write_tar(path / "x.tar", samples))), max_pixels=MAX_PIXELS)


def findings_in(path: Path) -> list[tuple[str, str, int]]:
    """Kind, key and offset of every finding in a tar without a manifest."""
    health = verify_shard(ShardRef(str(path)), max_pixels=MAX_PIXELS)
    return [(finding.kind, finding.key, finding.offset) for finding in health.findings]


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """Three samples, each with a jpg and a txt."""
    return write_tar(tmp_path / "00000.tar", [foreign_sample(key) for key in ("a", "b", "c")])


def test_intact_shard_is_healthy(tar: Path) -> None:
    health = verify_shard(ShardRef(str(tar)), max_pixels=MAX_PIXELS)
    assert (health.num_items, health.num_bytes) == (3, tar.stat().st_size)
    assert (health.findings, health.counts, health.num_damage_findings) == ((), {}, 0)
    assert health.is_intact.tolist() == [True, True, True]


def test_cut_inside_a_photo_is_truncated(tar: Path) -> None:
    jpg = members_of(tar)["b.jpg"]
    cut(tar, jpg.offset + 10)
    assert findings_in(tar) == [("truncated", "b", jpg.offset - 512)]


def test_cut_inside_a_text_leaves_a_photo_without_text(tar: Path) -> None:
    members = members_of(tar)
    cut(tar, members["b.txt"].offset + 2)
    assert findings_in(tar) == [
        ("truncated", "b", members["b.txt"].offset - 512),
        ("no_text", "b", members["b.jpg"].offset),
    ]


def test_cut_between_two_samples_is_a_missing_end(tar: Path) -> None:
    border = members_of(tar)["b.jpg"].offset - 512
    cut(tar, border)
    assert findings_in(tar) == [("no_end", "", border)]


def test_cut_inside_the_last_padding_is_a_missing_end(tar: Path) -> None:
    txt = members_of(tar)["c.txt"]
    cut(tar, txt.offset + txt.num_bytes + 1)
    assert findings_in(tar) == [("no_end", "", txt.offset + txt.num_bytes + 1)]


def test_missing_end_marker_is_reported(tar: Path) -> None:
    txt = members_of(tar)["c.txt"]
    cut(tar, txt.offset + 512)
    assert findings_in(tar) == [("no_end", "", txt.offset + 512)]


def test_damaged_header_costs_the_photo(tar: Path) -> None:
    members = members_of(tar)
    flip(tar, members["b.jpg"].offset - 512 + 148)  # its checksum
    assert findings_in(tar) == [
        ("damaged_header", "", members["b.jpg"].offset - 512),
        ("no_photo", "b", members["b.txt"].offset),
    ]


def test_empty_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"")
    assert findings_in(tmp_path / "x.tar") == [("empty", "", 0)]


def test_file_of_another_format_is_a_damaged_header(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"<html>" * 500)
    assert findings_in(tmp_path / "x.tar") == [("damaged_header", "", 0)]


def test_absent_shard_is_reported(tmp_path: Path) -> None:
    health = verify_shard(ShardRef(str(tmp_path / "x.tar")), max_pixels=MAX_PIXELS)
    assert health.findings == (Finding("absent_shard", f"{tmp_path}/x.tar", "no such file"),)


def test_unsorted_keys_are_damage_only_in_shards_with_a_manifest(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [raysys_sample("b"), raysys_sample("a")])
    remark = verify_shard(ShardRef(str(path)), max_pixels=MAX_PIXELS)
    damage = verify_shard(shard_ref(path, 2), max_pixels=MAX_PIXELS)
    assert remark.counts == damage.counts == {"unsorted": 1}
    assert (remark.num_damage_findings, damage.num_damage_findings) == (0, 1)
    assert damage.findings[0].detail == "'a' comes after 'b'"


def test_scattered_key_and_repeated_member_leave_samples_intact(tmp_path: Path) -> None:
    health = check_samples(
        tmp_path,
        {"__key__": "a", "jpg": photo()},
        foreign_sample("b"),
        {"__key__": "a", "txt": b"a cup"},
        {"__key__": "a", "txt": b"a cup"},
    )
    assert [(f.kind, f.key) for f in health.findings] == [("scattered_key", "a"), ("repeated_member", "a")]
    assert health.is_intact.tolist() == [True, True]


@pytest.mark.parametrize(
    ("members", "kind", "detail"),
    [
        ({"jpg": photo()}, "no_text", "members: jpg"),
        ({"txt": b"a cup"}, "no_photo", "members: txt"),
        (
            {"jpg": photo(side_px=30)[:640], "txt": b"a cup"},
            "unreadable_photo",
            "x.jpg: photo cannot be decoded (",
        ),
        ({"png": b"<svg>", "txt": b"a cup"}, "unreadable_photo", "x.png: not a photo (5 bytes)"),
        ({"jpg": photo(side_px=32), "txt": b"a"}, "too_many_pixels", "x.jpg: photo has 32 x 32 pixels"),
        ({"jpg": photo(), "json": b'{"title": '}, "bad_json", "x.json: Expecting value"),
        ({"jpg": photo(), "json": b"[1]"}, "bad_json", "x.json: expected an object, got list"),
        ({"jpg": photo(), "json": b"[" * 100_000}, "bad_json", "x.json: maximum recursion depth"),
        ({"jpg": photo(), "txt": b"\xff"}, "bad_text", "x.txt: 'utf-8' codec can't decode byte 0xff"),
        ({"jpg": photo(), "txt": b" \n"}, "empty_title", "no text in title or caption or text of json"),
        ({"jpg": photo(), "json": b'{"caption": null}'}, "empty_title", "no text in title or caption"),
    ],
)
def test_damaged_sample_is_named_and_its_neighbours_are_intact(
    tmp_path: Path, members: dict[str, bytes], kind: str, detail: str
) -> None:
    health = check_samples(tmp_path, foreign_sample("w"), {"__key__": "x", **members}, foreign_sample("y"))
    assert [(finding.kind, finding.key) for finding in health.findings] == [(kind, "x")]
    assert detail in health.findings[0].detail
    assert health.is_intact.tolist() == [True, False, True]


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp", "gif", "JPG"])
@pytest.mark.parametrize(
    "text",
    [{"txt": b"a cup"}, {"json": b'{"caption": "a cup"}'}, {"txt": b"", "json": b'{"text": "a cup"}'}],
)
def test_samples_of_other_tools_are_healthy(tmp_path: Path, suffix: str, text: dict[str, bytes]) -> None:
    data = photo(kind={"JPG": "JPEG"}.get(suffix, suffix))
    assert check_samples(tmp_path, {"__key__": "x", suffix: data, **text}).findings == ()


def test_json_in_a_shard_set_needs_the_fields_of_pack(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [{"__key__": "a", "jpg": photo(), "json": b'{"title": "a cup"}'}])
    (finding,) = verify_shard(shard_ref(path, 1), max_pixels=MAX_PIXELS).findings
    assert (finding.kind, finding.detail) == ("bad_json", "a.json: no item_id, attributes")


def test_counts_are_exact_when_examples_are_limited(tmp_path: Path) -> None:
    samples: list[Sample] = [{"__key__": f"{number:03d}", "jpg": photo()} for number in range(30)]
    health = check_samples(tmp_path, *samples)
    assert health.counts == {"no_text": 30}
    assert len(health.findings) == 20


def verify_sources(*sources: ShardSource) -> VerifyResult:
    return verify(sources, map, max_pixels=MAX_PIXELS)


def kinds(result: VerifyResult) -> list[tuple[str, str]]:
    """Kind and file name of every finding."""
    healths = [*result.shards, *result.folders]
    return [(f.kind, f.uri.rpartition("/")[2]) for health in healths for f in health.findings]


def test_intact_shard_set_is_healthy(tmp_path: Path) -> None:
    write_shard_set(tmp_path / "set", "ab", "cd")
    assert kinds(verify_sources(open_shard_set(str(tmp_path / "set")))) == []


def test_shards_and_files_are_compared_with_the_manifest(tmp_path: Path) -> None:
    write_shard_set(tmp_path / "set", "ab", "cd", "ef")
    first, second, third = (tmp_path / "set" / f"0000{number}.tar" for number in range(3))
    flip(first, members_of(first)["a.jpg"].offset - 512 + 100)  # the mode in a header: breaks that header
    write_tar(second, [{**raysys_sample("c"), "npy": bytes(20_000)}])
    third.unlink()
    write_tar(tmp_path / "set" / "old.tar", [raysys_sample("g")])
    (tmp_path / "set" / "ledger.parquet").write_bytes(b"another")
    assert kinds(verify_sources(open_shard_set(str(tmp_path / "set")))) == [
        ("damaged_header", "00000.tar"),
        ("wrong_sha256", "00000.tar"),
        ("no_photo", "00000.tar"),
        ("wrong_num_items", "00001.tar"),
        ("wrong_bytes", "00001.tar"),
        ("absent_shard", "00002.tar"),
        ("unnamed_shard", "old.tar"),
        ("wrong_file", "ledger.parquet"),
    ]


def test_damaged_manifest_is_reported(tmp_path: Path) -> None:
    write_shard_set(tmp_path / "set", "ab")
    cut(tmp_path / "set" / "manifest.json", 100)
    assert kinds(verify_sources(open_shard_set(str(tmp_path / "set")))) == [("bad_manifest", "manifest.json")]


def test_repeated_key_is_reported_for_the_later_shard(tmp_path: Path) -> None:
    first = write_tar(tmp_path / "1.tar", [foreign_sample("a"), foreign_sample("b")])
    second = write_tar(tmp_path / "2.tar", [foreign_sample("b"), foreign_sample("c")])
    source = ShardSource(str(tmp_path), (ShardRef(str(first)), ShardRef(str(second))))
    one, two = verify_sources(source).shards
    assert one.findings == ()
    assert two.findings == (
        Finding(
            "repeated_key", str(second), f"'b' is also in {first}", "b", members_of(second)["b.jpg"].offset
        ),
    )


def test_first_intact_sample_of_a_repeated_key_is_used(tmp_path: Path) -> None:
    first = write_tar(tmp_path / "1.tar", [{"__key__": "a", "jpg": photo()}])
    second = write_tar(tmp_path / "2.tar", [foreign_sample("a")])
    source = ShardSource(str(tmp_path), (ShardRef(str(first)), ShardRef(str(second))))
    repeats = verify_sources(source).repeats
    assert {uri: [sample.key for sample in samples] for uri, samples in repeats.items()} == {
        str(first): ["a"],
        str(second): [],
    }


def test_unreadable_table_of_items_is_a_wrong_file(tmp_path: Path) -> None:
    set_uri = str(tmp_path / "set")
    manifest = write_shard_set(tmp_path / "set", "ab")
    (tmp_path / "set" / "items.parquet").write_bytes(b"no Parquet")
    (shard,) = open_shard_set(set_uri).shards
    shard = dataclasses.replace(shard, items_uri=f"{set_uri}/items.parquet")
    files = {**manifest.files, "items.parquet": FileEntry(bytes=10, sha256="0")}
    source = ShardSource(set_uri, (shard,), manifest.model_copy(update={"files": files}))
    assert kinds(verify_sources(source)) == [("wrong_file", "items.parquet")]


def test_inherited_shard_is_verified_without_outdated_samples(tmp_path: Path) -> None:
    old = write_shard_set(tmp_path / "old", "ab")
    new = write_shard_set(tmp_path / "new", "bc")
    (entry,) = old.shards
    uri = f"{tmp_path}/old/00000.tar"
    inherited = InheritedShard(uri=uri, num_items=2, num_live=1, bytes=entry.bytes, sha256=entry.sha256)
    changed = new.model_copy(update={"inherited": [inherited]})
    manifest = tmp_path / "new" / "manifest.json"
    manifest.write_text(json.dumps(changed.model_dump()))
    pq.write_table(pa.table({"shard": [uri], "item_id": ["a"]}), tmp_path / "new" / "items.parquet")
    result = verify_sources(open_shard_set(str(tmp_path / "new")))
    assert [(health.num_items, health.findings) for health in result.shards] == [(1, ()), (2, ())]
    both = verify_sources(open_shard_set(str(tmp_path / "old")), open_shard_set(str(tmp_path / "new")))
    assert kinds(both) == []  # the shared tar is checked once, without its outdated 'b'


def test_memory_holds_one_member_at_a_time(tmp_path: Path) -> None:
    member_bytes = 1 << 20
    samples: list[Sample] = [
        {**foreign_sample(f"{number:02d}"), "npy": bytes(member_bytes)} for number in range(8)
    ]
    samples += [{**foreign_sample(f"x{number}"), "jpg": b"\xff" * member_bytes} for number in range(8)]
    path = write_tar(tmp_path / "x.tar", samples)
    del samples
    tracemalloc.start()
    health = verify_shard(shard_ref(path, 16), max_pixels=MAX_PIXELS)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert health.counts == {"unreadable_photo": 8, "no_text": 16}
    assert path.stat().st_size > 16 * member_bytes
    assert peak_bytes < 10 * member_bytes  # 8 MiB are hashed at a time


def test_shards_on_an_object_store_are_found_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard_set(tmp_path / "bucket" / "set", "ab", "cd")
    store = pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem())
    local = storage.resolve
    monkeypatch.setattr(
        storage.uri,
        "resolve",
        lambda uri: (store, uri.removeprefix("s3://")) if uri.startswith("s3://") else local(uri),
    )
    for path in (
        "s3://bucket/set/",
        "s3://bucket",
        "s3://bucket/*/0000?.tar",
        "s3://bucket/set/0000{0..1}.tar",
    ):
        result = verify_sources(*find_sources([path]))
        assert [health.uri for health in result.shards] == [
            "s3://bucket/set/00000.tar",
            "s3://bucket/set/00001.tar",
        ]
        assert kinds(result) == []
