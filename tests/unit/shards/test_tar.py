"""A tar is read strictly: whatever happens to it, the members that are whole are found and the rest is told."""

from __future__ import annotations

import io
import tarfile

import pytest
import webdataset

from raysys.shards import tar
from raysys.shards.tar import Fault, Member

NUM_SAMPLES = 4


def written(how: str) -> bytes:
    """Four samples of a photo and a json; long names need headers of their own outside of WebDataset."""
    tar = io.BytesIO()
    if how == "webdataset":
        with webdataset.TarWriter(tar, mtime=0, encoder=False) as writer:
            for number in range(NUM_SAMPLES):
                writer.write({"__key__": f"i{number}", "jpg": b"p" * (500 + number * 7), "json": b"{}"})
        return tar.getvalue()
    style = tarfile.PAX_FORMAT if how == "pax" else tarfile.GNU_FORMAT
    with tarfile.open(fileobj=tar, mode="w", format=style) as archive:
        for number in range(NUM_SAMPLES):
            for suffix in ("jpg", "json"):
                info = tarfile.TarInfo(f"{'long' * 30}{number}.{suffix}")
                info.size, info.mtime = 600, 1.5
                archive.addfile(info, io.BytesIO(b"p" * 600))
    return tar.getvalue()


@pytest.mark.parametrize("how", ["webdataset", "pax", "gnu"])
def test_whole_tar_has_no_fault_and_says_where_everything_lies(how: str) -> None:
    data = written(how)
    members, faults = tar.scan(io.BytesIO(data))
    assert not faults
    assert len(members) == 2 * NUM_SAMPLES
    assert {data[m.offset : m.offset + m.num_bytes][:1] for m in members} <= {b"p", b"{"}
    grouped, faults = tar.samples(members)
    assert not faults
    assert [sorted(sample.members) for sample in grouped] == [["jpg", "json"]] * NUM_SAMPLES


@pytest.mark.parametrize("how", ["webdataset", "pax", "gnu"])
def test_every_cut_is_told_and_leaves_the_members_before_it(how: str) -> None:
    data = written(how)
    whole, _ = tar.scan(io.BytesIO(data))
    end_of_last = -(-(whole[-1].offset + whole[-1].num_bytes) // 512) * 512
    for cut in range(0, len(data), 64 if how == "webdataset" else 509):
        members, faults = tar.scan(io.BytesIO(data[:cut]))
        assert members == [member for member in whole if member.offset + member.num_bytes <= cut]
        assert bool(faults) == (cut < end_of_last + 1024), cut


def test_damaged_header_costs_its_member_and_no_other() -> None:
    data = bytearray(written("webdataset"))
    whole, _ = tar.scan(io.BytesIO(bytes(data)))
    data[whole[4].offset - 512 + 148] ^= 0xFF  # its checksum
    members, faults = tar.scan(io.BytesIO(bytes(data)))
    assert members == whole[:4] + whole[5:]
    assert faults == [Fault("damaged_header", whole[4].offset - 512, "1536 bytes that are no member")]


def test_cut_between_two_members_is_a_missing_end() -> None:
    data = written("webdataset")
    whole, _ = tar.scan(io.BytesIO(data))
    cut = whole[2].offset - 512
    members, faults = tar.scan(io.BytesIO(data[:cut]))
    assert members == whole[:2]
    assert faults == [Fault("no_end", cut, "the file ends without the end that a tar has")]


def test_cut_inside_a_photo_names_its_sample() -> None:
    data = written("webdataset")
    whole, _ = tar.scan(io.BytesIO(data))
    _, faults = tar.scan(io.BytesIO(data[: whole[2].offset + 10]))
    assert faults == [
        Fault(
            "truncated", whole[2].offset - 512, "'i1.jpg' has 10 of its 507 bytes, then the file ends", "i1"
        )
    ]


def test_tars_one_behind_the_other_are_read_through() -> None:
    data = written("webdataset")
    members, faults = tar.scan(io.BytesIO(data + data))
    assert len(members) == 4 * NUM_SAMPLES
    assert not faults


@pytest.mark.parametrize(
    ("data", "kind"), [(b"", "empty"), (b"<html>" * 500, "damaged_header"), (b"x", "damaged_header")]
)
def test_what_is_no_tar_is_told(data: bytes, kind: str) -> None:
    members, faults = tar.scan(io.BytesIO(data))
    assert members == []
    assert [fault.kind for fault in faults] == [kind]


def at(*names: str) -> list[Member]:
    return [Member(name, 1000 * place, 1) for place, name in enumerate(names)]


def test_samples_are_neighbours_of_one_key() -> None:
    grouped, faults = tar.samples(at("v1.0/a.b.JPG", "v1.0/a.json", "v1.0/c.webp", "__notes__.json"))
    assert [(sample.key, sorted(sample.members)) for sample in grouped] == [
        ("v1.0/a", ["b.jpg", "json"]),
        ("v1.0/c", ["webp"]),
    ]
    assert not faults
    assert grouped[1].photo() == Member("v1.0/c.webp", 2000, 1)


def test_disorder_is_told_and_what_came_first_stays() -> None:
    grouped, faults = tar.samples(at("b.jpg", "a.jpg", "b.json", "b.jpg"))
    assert [(fault.kind, fault.key) for fault in faults] == [
        ("unsorted", "a"),
        ("scattered_key", "b"),
        ("repeated_member", "b"),
    ]
    assert grouped[0].members == {"jpg": Member("b.jpg", 0, 1), "json": Member("b.json", 2000, 1)}
