"""A repaired copy is healthy, and what is not in it stands in the ledger."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from raysys.artifacts import ShardSetManifest, open_artifact
from raysys.errors import DamagedData, InputError
from raysys.verify.find import find_sources
from raysys.verify.repair import Repaired, places_below, repair
from raysys.verify.shard_checks import verify
from tests.shards_by_hand import (
    Sample,
    cut,
    flip,
    foreign,
    members_of,
    ours,
    photo,
    write_shard_set,
    write_tar,
)

MAX_PIXELS = 1000


def repaired(folder: Path, out: Path) -> Repaired:
    """The clean copy of what lies in a folder."""
    sources = find_sources([str(folder)])
    verdict = verify(sources, map, max_pixels=MAX_PIXELS)
    return repair(sources, str(out), verdict.repeats, map, max_pixels=MAX_PIXELS)


def damages(folder: Path) -> list[Any]:
    verdict = verify(find_sources([str(folder)]), map, max_pixels=MAX_PIXELS)
    return [finding for health in (*verdict.shards, *verdict.folders) for finding in health.findings]


def ledger(out: Path) -> list[tuple[str, str, str]]:
    rows = pq.read_table(out / "ledger.parquet").to_pylist()
    return [(row["item_id"], row["reason"], row["source"]) for row in rows]


def test_what_is_whole_is_copied_and_the_rest_is_told(tmp_path: Path) -> None:
    first = write_tar(
        tmp_path / "in" / "1.tar",
        [
            foreign("d"),
            {"__key__": "c", "jpg": photo()},
            foreign("b"),
            {"__key__": "b", "txt": b"again"},
            foreign("a"),
            foreign("e"),
        ],
    )
    second = write_tar(tmp_path / "in" / "2.tar", [foreign("d"), foreign("f"), foreign("g"), foreign("h")])
    of_first, of_second = members_of(first), members_of(second)
    flip(first, of_first["e.jpg"].offset - 512 + 148)
    cut(second, of_second["h.jpg"].offset + 5)

    # 5 keys in the first, 4 in the second (of h only the name is left): 9 = 5 kept + 4 lost.
    assert repaired(tmp_path / "in", tmp_path / "out") == Repaired(num_kept=5, num_lost=4, num_parts=2)
    assert damages(tmp_path / "out") == []
    again = first.read_bytes().index(b"again")
    assert sorted(ledger(tmp_path / "out")) == [
        ("", "damaged_header", f"{first}#{of_first['e.jpg'].offset - 512}"),
        ("b", "repeated_member", f"{first}#{again}"),
        ("c", "no_text", f"{first}#{of_first['c.jpg'].offset}"),
        ("d", "repeated_key", f"{second}#{of_second['d.jpg'].offset}"),
        ("e", "no_photo", f"{first}#{of_first['e.txt'].offset}"),
        ("h", "truncated", f"{second}#{of_second['h.jpg'].offset - 512}"),
    ]


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # webdataset leaves it to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_webdataset_reads_the_copy_byte_by_byte(tmp_path: Path) -> None:
    samples: list[Sample] = [foreign("part/b", "zwei"), {"__key__": "part/ü", "png": photo(kind="PNG"), "cls": b"3", "json": b'{"caption": "x"}'}, foreign("a", "eins")]  # fmt: skip
    damaged = write_tar(tmp_path / "in" / "1.tar", samples)
    cut(damaged, damaged.stat().st_size - 9000)  # the end of the tar alone
    repaired(tmp_path / "in", tmp_path / "out")
    read = webdataset.WebDataset(str(tmp_path / "out" / "1.tar"), shardshuffle=False)
    got = [
        {key: value for key, value in sample.items() if key not in ("__url__", "__local_path__")}
        for sample in read
    ]
    assert got == [samples[2], samples[0], samples[1]]


def test_sample_whose_members_were_apart_is_whole_again(tmp_path: Path) -> None:
    parts: list[Sample] = [{"__key__": "a", "jpg": photo()}, foreign("b"), {"__key__": "a", "txt": b"a cup"}]
    write_tar(tmp_path / "in" / "1.tar", parts)
    assert repaired(tmp_path / "in", tmp_path / "out") == Repaired(2, 0, 0)
    assert list(members_of(tmp_path / "out" / "1.tar")) == ["a.jpg", "a.txt", "b.jpg", "b.txt"]


def test_shard_set_becomes_a_shard_set(tmp_path: Path) -> None:
    old = write_shard_set(tmp_path / "in", "ab", "cd", "ef")
    cut(tmp_path / "in" / "00000.tar", members_of(tmp_path / "in" / "00000.tar")["b.json"].offset)
    (tmp_path / "in" / "00001.tar").unlink()
    # b lost; the cut also shows in the count; the second shard is gone as a whole
    assert repaired(tmp_path / "in", tmp_path / "out") == Repaired(num_kept=3, num_lost=1, num_parts=1)
    new = open_artifact(str(tmp_path / "out"), ShardSetManifest)
    assert [(shard.name, shard.num_items) for shard in new.shards] == [("00000.tar", 1), ("00002.tar", 2)]
    assert new.num_rows == new.num_items + new.num_refused == 3 + 2
    assert new.refused_by_reason == {"truncated": 1, "absent_shard": 1}
    assert new.inputs["shards"].fingerprint == old.fingerprint
    assert (new.split, new.item_schema) == (old.split, old.item_schema)
    assert damages(tmp_path / "out") == []


def test_samples_that_were_taken_out_before_are_told_by_number(tmp_path: Path) -> None:
    write_shard_set(tmp_path / "in", "abc")
    path = write_tar(tmp_path / "in" / "00000.tar", [ours("a")])
    assert repaired(tmp_path / "in", tmp_path / "out") == Repaired(1, 0, 1)
    assert ledger(tmp_path / "out") == [("", "wrong_num_items", f"{path}#0")]


def test_whole_shard_set_comes_out_as_the_same_bytes(tmp_path: Path) -> None:
    old = write_shard_set(tmp_path / "in", "ab", "cd")
    repaired(tmp_path / "in", tmp_path / "out")
    assert open_artifact(str(tmp_path / "out"), ShardSetManifest).shards == old.shards


def test_second_run_into_the_copy_is_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "1.tar", [foreign("a")])
    repaired(tmp_path / "in", tmp_path / "out")
    with pytest.raises(InputError) as caught:
        repaired(tmp_path / "in", tmp_path / "out")
    out = tmp_path / "out"
    assert str(caught.value) == f"--repair {out}: there is something already; name a new or an empty folder"


def test_nothing_whole_leaves_the_ledger_alone(tmp_path: Path) -> None:
    write_tar(tmp_path / "in" / "1.tar", [{"__key__": "a", "jpg": photo()}])
    with pytest.raises(DamagedData, match=r"in: no sample is whole; .*out has the ledger alone"):
        repaired(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ledger.parquet"]


@pytest.mark.parametrize(
    ("uris", "places"),
    [
        (["/data/x"], ["/out"]),
        (["/data/train", "/data/val"], ["/out/train", "/out/val"]),
        (["/data/x", "/data/x/more"], ["/out", "/out/more"]),
        (["s3://bucket/x", "/data/x"], ["/out/bucket/x", "/out/data/x"]),
    ],
)
def test_copies_lie_to_one_another_as_their_folders_did(uris: list[str], places: list[str]) -> None:
    assert places_below("/out", uris) == places


def test_name_that_is_no_utf8_survives(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "in" / "1.tar", [foreign("aXb"), {"__key__": "cXd", "jpg": photo()}])
    data = path.read_bytes()
    fixed = io.BytesIO()
    for start in range(0, len(data), 512):  # a latin-1 name, with the checksum of its header mended
        block = bytearray(data[start : start + 512])
        if block[257:262] == b"ustar":
            block[:100] = block[:100].replace(b"X", b"\xe9")
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
        fixed.write(block)
    path.write_bytes(fixed.getvalue())
    assert repaired(tmp_path / "in", tmp_path / "out") == Repaired(1, 1, 0)
    assert [line[:2] for line in ledger(tmp_path / "out")] == [("c\\udce9d", "no_text")]
    assert damages(tmp_path / "out") == []


def test_after_any_cut_the_copy_holds_what_was_whole_before_it(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", [foreign("a"), foreign("b"), foreign("c")])
    members = members_of(whole)
    ends = [members[f"{key}.txt"].offset + members[f"{key}.txt"].num_bytes for key in "abc"]
    for num_bytes in range(ends[0], ends[2] + 1536, 800):
        damaged = tmp_path / str(num_bytes) / "in" / "1.tar"
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(whole.read_bytes()[:num_bytes])
        made = repaired(damaged.parent, damaged.parent.parent / "out")
        assert made.num_kept == sum(end <= num_bytes for end in ends), num_bytes
        assert bool(made.num_lost + made.num_parts) == bool(damages(damaged.parent)), num_bytes
        assert damages(damaged.parent.parent / "out") == []


def test_any_flipped_header_costs_one_sample_and_is_told(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", [foreign("a"), foreign("b"), foreign("c")])
    for name, member in members_of(whole).items():
        damaged = tmp_path / name / "in" / "1.tar"
        damaged.parent.mkdir(parents=True)
        damaged.write_bytes(whole.read_bytes())
        flip(damaged, member.offset - 512)  # the first letter of its name
        assert repaired(damaged.parent, tmp_path / name / "out") == Repaired(2, 1, 1)
        key = name.partition(".")[0]
        assert [line[:2] for line in ledger(tmp_path / name / "out")] == [
            (key, "no_photo" if name.endswith("jpg") else "no_text"),
            ("", "damaged_header"),
        ]
