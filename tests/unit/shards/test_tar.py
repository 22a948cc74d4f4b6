"""In a damaged tar, every complete member is found and every fault is reported."""

from __future__ import annotations

import io
import tarfile

import pytest
import webdataset

from raysys.shards import tar
from raysys.shards.samples import group_samples
from raysys.shards.tar import Fault, Member

NUM_SAMPLES = 4


def make_tar(style: str) -> bytes:
    """Four samples of a photo and a json; in the styles `pax` and `gnu`, long names need extended headers."""
    tar = io.BytesIO()
    if style == "webdataset":
        with webdataset.TarWriter(tar, mtime=0, encoder=False) as writer:
            for number in range(NUM_SAMPLES):
                writer.write({"__key__": f"i{number}", "jpg": b"p" * (500 + number * 7), "json": b"{}"})
        return tar.getvalue()
    tar_format = tarfile.PAX_FORMAT if style == "pax" else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=tar, mode="w", format=tar_format) as archive:
        for number in range(NUM_SAMPLES):
            for suffix in ("jpg", "json"):
                info = tarfile.TarInfo(f"{'long' * 30}{number}.{suffix}")
                info.size, info.mtime = 600, 1.5
                archive.addfile(info, io.BytesIO(b"p" * 600))
    return tar.getvalue()


@pytest.mark.parametrize("style", ["webdataset", "pax", "gnu"])
def test_intact_tar_has_no_fault_and_correct_offsets(style: str) -> None:
    data = make_tar(style)
    members, faults = tar.scan(io.BytesIO(data))
    assert not faults
    assert len(members) == 2 * NUM_SAMPLES
    assert {data[m.offset : m.offset + m.num_bytes][:1] for m in members} <= {b"p", b"{"}
    grouped, faults = group_samples(members)
    assert not faults
    assert [sorted(sample.members) for sample in grouped] == [["jpg", "json"]] * NUM_SAMPLES


@pytest.mark.parametrize("style", ["webdataset", "pax", "gnu"])
def test_every_cut_is_reported_and_leaves_the_members_before_it(style: str) -> None:
    data = make_tar(style)
    intact, _ = tar.scan(io.BytesIO(data))
    end_of_last = -(-(intact[-1].offset + intact[-1].num_bytes) // 512) * 512
    for cut in range(0, len(data), 64 if style == "webdataset" else 509):
        members, faults = tar.scan(io.BytesIO(data[:cut]))
        assert members == [member for member in intact if member.offset + member.num_bytes <= cut]
        assert bool(faults) == (cut < end_of_last + 1024), cut


def test_damaged_header_costs_its_member_and_no_other() -> None:
    data = bytearray(make_tar("webdataset"))
    intact, _ = tar.scan(io.BytesIO(bytes(data)))
    data[intact[4].offset - 512 + 148] ^= 0xFF  # its checksum
    members, faults = tar.scan(io.BytesIO(bytes(data)))
    assert members == intact[:4] + intact[5:]
    assert faults == [Fault("damaged_header", intact[4].offset - 512, "1536 bytes belong to no member")]


def test_cut_between_two_members_is_a_missing_end() -> None:
    data = make_tar("webdataset")
    intact, _ = tar.scan(io.BytesIO(data))
    cut = intact[2].offset - 512
    members, faults = tar.scan(io.BytesIO(data[:cut]))
    assert members == intact[:2]
    assert faults == [Fault("no_end", cut, "the end-of-archive marker is missing")]


def test_cut_inside_a_photo_names_its_sample() -> None:
    data = make_tar("webdataset")
    intact, _ = tar.scan(io.BytesIO(data))
    _, faults = tar.scan(io.BytesIO(data[: intact[2].offset + 10]))
    assert faults == [
        Fault("truncated", intact[2].offset - 512, "'i1.jpg' is cut off after 10 of 507 bytes", "i1")
    ]


def test_concatenated_tars_are_read_completely() -> None:
    data = make_tar("webdataset")
    end_of_last = data.rindex(b"{}") + 512
    members, faults = tar.scan(io.BytesIO(data + data))
    assert len(members) == 4 * NUM_SAMPLES
    detail = f"{len(data) - end_of_last} zeros before further members: other readers stop here"
    assert faults == [Fault("early_end", end_of_last, detail)]


@pytest.mark.parametrize(
    ("data", "kind"), [(b"", "empty"), (b"<html>" * 500, "damaged_header"), (b"x", "damaged_header")]
)
def test_file_of_another_format_is_reported(data: bytes, kind: str) -> None:
    members, faults = tar.scan(io.BytesIO(data))
    assert members == []
    assert [fault.kind for fault in faults] == [kind]


def members_named(*names: str) -> list[Member]:
    return [Member(name, 1000 * number, 1) for number, name in enumerate(names)]


def test_members_are_grouped_by_key() -> None:
    grouped, faults = group_samples(
        members_named("v1.0/a.b.JPG", "v1.0/a.json", "v1.0/c.webp", "__notes__.json")
    )
    assert [(sample.key, sorted(sample.members)) for sample in grouped] == [
        ("v1.0/a", ["b.jpg", "json"]),
        ("v1.0/c", ["webp"]),
    ]
    assert [(fault.kind, fault.offset) for fault in faults] == [("ignored_member", 3000)]
    assert grouped[1].photo() == Member("v1.0/c.webp", 2000, 1)


def test_scattered_and_repeated_members_are_reported_and_adjacent_ones_are_preferred() -> None:
    grouped, faults = group_samples(members_named("b.jpg", "a.jpg", "b.json", "b.jpg"))
    assert [(fault.kind, fault.key) for fault in faults] == [
        ("unsorted", "a"),
        ("scattered_key", "b"),
        ("repeated_member", "b"),
    ]
    adjacent, first = (
        {"jpg": Member("b.jpg", offset, 1), "json": Member("b.json", 2000, 1)} for offset in (3000, 0)
    )
    assert [sample.members for sample in grouped[0].variants()] == [adjacent, first]
