"""A repaired copy is healthy, and the ledger lists everything that it omits."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from raysys.artifacts import ShardSetManifest, open_artifact, publish_version
from raysys.errors import DamagedData, InputError
from raysys.verify.find import find_sources
from raysys.verify.repair import RepairSummary, copy_uris_below, repair
from raysys.verify.shard_checks import verify
from tests.shards_by_hand import (
    Sample,
    cut,
    flip,
    foreign_sample,
    members_of,
    photo,
    raysys_sample,
    write_shard_set,
    write_tar,
)

MAX_PIXELS = 1000


def repair_folder(folder: Path, out: Path) -> RepairSummary:
    """Write a clean copy of a folder."""
    sources = find_sources([str(folder)])
    result = verify(sources, map, max_pixels=MAX_PIXELS)
    return repair(sources, str(out), result.repeats, map, max_pixels=MAX_PIXELS)


def findings_in(folder: Path) -> list[Any]:
    result = verify(find_sources([str(folder)]), map, max_pixels=MAX_PIXELS)
    return [finding for health in (*result.shards, *result.folders) for finding in health.findings]


def ledger(out: Path) -> list[tuple[str, str, str]]:
    rows = pq.read_table(out / "ledger.parquet").to_pylist()
    return [(row["item_id"], row["reason"], row["source"]) for row in rows]


def test_intact_samples_are_copied_and_the_ledger_lists_the_others(tmp_path: Path) -> None:
    first = write_tar(
        tmp_path / "in" / "1.tar",
        [
            foreign_sample("d"),
            {"__key__": "c", "jpg": photo()},
            foreign_sample("b"),
            {"__key__": "b", "txt": b"again"},
            foreign_sample("a"),
            foreign_sample("e"),
        ],
    )
    second = write_tar(
        tmp_path / "in" / "2.tar",
        [foreign_sample("d"), foreign_sample("f"), foreign_sample("g"), foreign_sample("h")],
    )
    of_first, of_second = members_of(first), members_of(second)
    flip(first, of_first["e.jpg"].offset - 512 + 148)
    cut(second, of_second["h.jpg"].offset + 5)

    # 5 keys in the first, 4 in the second (h has only its name left): 9 = 5 kept + 4 lost.
    assert repair_folder(tmp_path / "in", tmp_path / "out") == RepairSummary(
        num_kept=5, num_lost=4, num_parts=2
    )
    assert findings_in(tmp_path / "out") == []
    again = first.read_bytes().index(b"again")
    assert sorted(ledger(tmp_path / "out")) == [
        ("", "damaged_header", f"{first}#{of_first['e.jpg'].offset - 512}"),
        ("b", "repeated_member", f"{first}#{again}"),
        ("c", "no_text", f"{first}#{of_first['c.jpg'].offset}"),
        ("d", "repeated_key", f"{second}#{of_second['d.jpg'].offset}"),
        ("e", "no_photo", f"{first}#{of_first['e.txt'].offset}"),
        ("h", "truncated", f"{second}#{of_second['h.jpg'].offset - 512}"),
    ]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset never closes it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_same_bytes_from_the_copy(tmp_path: Path) -> None:
    samples: list[Sample] = [foreign_sample("part/b", "zwei"), {"__key__": "part/ü", "png": photo(kind="PNG"), "cls": b"3", "json": b'{"caption": "x"}'}, foreign_sample("a", "eins")]  # fmt: skip
    damaged = write_tar(tmp_path / "in" / "1.tar", samples)
    cut(damaged, damaged.stat().st_size - 9000)  # only the end-of-archive padding
    repair_folder(tmp_path / "in", tmp_path / "out")
    read = webdataset.WebDataset(str(tmp_path / "out" / "1.tar"), shardshuffle=False)
    got = [
        {key: value for key, value in sample.items() if key not in ("__url__", "__local_path__")}
        for sample in read
    ]
    assert got == [samples[2], samples[0], samples[1]]


def test_scattered_members_of_a_sample_are_joined(tmp_path: Path) -> None:
    parts: list[Sample] = [
        {"__key__": "a", "jpg": photo()},
        foreign_sample("b"),
        {"__key__": "a", "txt": b"a cup"},
    ]
    write_tar(tmp_path / "in" / "1.tar", parts)
    assert repair_folder(tmp_path / "in", tmp_path / "out") == RepairSummary(2, 0, 0)
    assert list(members_of(tmp_path / "out" / "1.tar")) == ["a.jpg", "a.txt", "b.jpg", "b.txt"]


def test_copy_of_a_shard_set_is_a_shard_set(tmp_path: Path) -> None:
    old = write_shard_set(tmp_path / "in", "ab", "cd", "ef")
    cut(tmp_path / "in" / "00000.tar", members_of(tmp_path / "in" / "00000.tar")["b.json"].offset)
    (tmp_path / "in" / "00001.tar").unlink()
    # b is lost; the cut also changes the item count; the second shard is absent
    assert repair_folder(tmp_path / "in", tmp_path / "out") == RepairSummary(
        num_kept=3, num_lost=1, num_parts=1
    )
    new = open_artifact(str(tmp_path / "out"), ShardSetManifest)
    assert [(shard.name, shard.num_items) for shard in new.shards] == [("00000.tar", 1), ("00002.tar", 2)]
    assert new.num_rows == new.num_items + new.num_refused == 3 + 2
    assert new.refused_by_reason == {"truncated": 1, "absent_shard": 1}
    assert new.inputs["shards"].fingerprint == old.fingerprint
    assert (new.split, new.item_schema) == (old.split, old.item_schema)
    assert findings_in(tmp_path / "out") == []


def test_missing_samples_without_a_trace_are_one_part(tmp_path: Path) -> None:
    write_shard_set(tmp_path / "in", "abc")
    path = write_tar(tmp_path / "in" / "00000.tar", [raysys_sample("a")])
    assert repair_folder(tmp_path / "in", tmp_path / "out") == RepairSummary(1, 0, 1)
    assert ledger(tmp_path / "out") == [("", "wrong_num_items", f"{path}#0")]


def test_copy_of_an_intact_shard_set_has_the_same_bytes(tmp_path: Path) -> None:
    old = write_shard_set(tmp_path / "in", "ab", "cd")
    repair_folder(tmp_path / "in", tmp_path / "out")
    assert open_artifact(str(tmp_path / "out"), ShardSetManifest).shards == old.shards


def test_output_folder_with_files_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "1.tar", [foreign_sample("a")])
    repair_folder(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError) as caught:
        repair_folder(tmp_path / "in", tmp_path / "out")
    out = tmp_path / "out"
    assert str(caught.value) == f"--repair {out}: not empty; name a new or an empty folder"


def test_source_without_intact_samples_leaves_only_the_ledger(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "1.tar", [{"__key__": "a", "jpg": photo()}])
    with pytest.raises(DamagedData, match=r"in: no sample is intact; .*out contains only the ledger"):
        repair_folder(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ledger.parquet"]


@pytest.mark.parametrize(
    ("uris", "copy_uris"),
    [
        (["/data/x"], ["/out"]),
        (["/data/train", "/data/val"], ["/out/train", "/out/val"]),
        (["/data/x", "/data/x/more"], ["/out", "/out/more"]),
        (["s3://bucket/x", "/data/x"], ["/out/bucket/x", "/out/data/x"]),
    ],
)
def test_copies_keep_the_relative_paths_of_their_folders(uris: list[str], copy_uris: list[str]) -> None:
    assert copy_uris_below("/out", uris) == copy_uris


def test_name_that_is_not_utf8_is_copied(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "in" / "1.tar", [foreign_sample("aXb"), {"__key__": "cXd", "jpg": photo()}])
    data = path.read_bytes()
    fixed = io.BytesIO()
    for start in range(0, len(data), 512):  # write a latin-1 name and update the checksum of its header
        block = bytearray(data[start : start + 512])
        if block[257:262] == b"ustar":
            block[:100] = block[:100].replace(b"X", b"\xe9")
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        fixed.write(block)
    path.write_bytes(fixed.getvalue())
    assert repair_folder(tmp_path / "in", tmp_path / "out") == RepairSummary(1, 1, 0)
    assert [row[:2] for row in ledger(tmp_path / "out")] == [("c\\udce9d", "no_text")]
    assert findings_in(tmp_path / "out") == []


def test_copy_after_any_cut_has_every_sample_before_it(tmp_path: Path) -> None:
    intact = write_tar(
        tmp_path / "intact.tar", [foreign_sample("a"), foreign_sample("b"), foreign_sample("c")]
    )
    members = members_of(intact)
    ends = [members[f"{key}.txt"].offset + members[f"{key}.txt"].num_bytes for key in "abc"]
    for num_bytes in range(ends[0], ends[2] + 1536, 800):
        damaged = tmp_path / str(num_bytes) / "in" / "1.tar"
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(intact.read_bytes()[:num_bytes])
        summary = repair_folder(damaged.parent, damaged.parent.parent / "out")
        assert summary.num_kept == sum(end <= num_bytes for end in ends), num_bytes
        assert bool(summary.num_lost + summary.num_parts) == bool(findings_in(damaged.parent)), num_bytes
        assert findings_in(damaged.parent.parent / "out") == []


def test_any_damaged_header_costs_one_sample_and_is_in_the_ledger(tmp_path: Path) -> None:
    intact = write_tar(
        tmp_path / "intact.tar", [foreign_sample("a"), foreign_sample("b"), foreign_sample("c")]
    )
    for name, member in members_of(intact).items():
        damaged = tmp_path / name / "in" / "1.tar"
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(intact.read_bytes())
        flip(damaged, member.offset - 512)  # the first letter of its name
        assert repair_folder(damaged.parent, tmp_path / name / "out") == RepairSummary(2, 1, 1)
        key = name.partition(".")[0]
        assert [row[:2] for row in ledger(tmp_path / name / "out")] == [
            (key, "no_photo" if name.endswith("jpg") else "no_text"),
            ("", "damaged_header"),
        ]


def test_copy_of_a_versioned_shard_set_lies_beside_its_manifest(tmp_path: Path) -> None:
    old = write_shard_set(tmp_path / "in" / "version-1", "ab", "cd")
    publish_version(str(tmp_path / "in"), "version-1", old)
    repair_folder(tmp_path / "in", tmp_path / "out")
    assert open_artifact(str(tmp_path / "out"), ShardSetManifest).shards == old.shards
    assert (tmp_path / "out" / "00001.tar").exists()
