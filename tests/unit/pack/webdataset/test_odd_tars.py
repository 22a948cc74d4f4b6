"""Tars as tools and accidents leave them: what is an item, and what the ledger says about the rest."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from raysys.config.schema import PackConfig
from raysys.errors import DamagedData, InputError, MissingError
from tests.unit.pack.small_catalogue import jpeg
from tests.unit.pack.small_webdataset import (
    ALL_TRAIN,
    configure,
    index,
    read_items,
    read_ledger,
    write_members,
)

PHOTO = jpeg()


def link(name: str, target: str, kind: bytes = tarfile.LNKTYPE) -> tarfile.TarInfo:
    """A link in a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


ODD_MEMBERS: dict[str, tuple[list[tuple[str, bytes] | tarfile.TarInfo], list[str], list[tuple[str, str]]]] = {
    "dotted names": (
        [("22.05.jpg", PHOTO), ("22.05.txt", b"a"), ("22.06.jpg", PHOTO), ("22.06.txt", b"b")],
        ["22_05", "22_06"], [],
    ),
    "sub-folders with equal names": (
        [("a/x.jpg", PHOTO), ("a/x.txt", b"a"), ("b/x.jpg", PHOTO), ("b/x.txt", b"b")], ["a/x", "b/x"], [],
    ),
    "a hard link to a photo": (
        [("a.jpg", PHOTO), ("a.txt", b"a"), link("b.jpg", "a.jpg"), ("b.txt", b"b")], ["a", "b"], [],
    ),
    "a link to a file that is in no sample": (
        [("blob", PHOTO), link("b.jpg", "blob"), ("b.txt", b"b")], ["b"], [],
    ),
    "a symbolic link to a text": (
        [("s/a.jpg", PHOTO), ("s/a.txt", b"a"), ("s/b.jpg", PHOTO), link("s/b.txt", "a.txt", tarfile.SYMTYPE)],
        ["s/a", "s/b"], [],
    ),
    "a link to nothing": (
        [("a.jpg", PHOTO), ("a.txt", b"a"), link("b.jpg", "no.jpg"), ("b.txt", b"b")],
        ["a"], [("b", "broken_link")],
    ),
    "files of macOS": (
        [("._a.jpg", b"x"), ("a.jpg", PHOTO), ("a.txt", b"a"), ("__MACOSX/a.jpg", b"x"), (".DS_Store", b"x")],
        ["a"], [],
    ),
    "a repeated member": (
        [("a.jpg", PHOTO), ("a.jpg", PHOTO), ("a.txt", b"a")], ["a"], [("", "repeated_member")],
    ),
    "scattered members": ([("a.jpg", PHOTO), ("b.jpg", PHOTO), ("a.txt", b"a"), ("b.txt", b"b")], ["a", "b"], []),
    "upper case": ([("a.JPG", PHOTO), ("a.JSON", b'{"caption": "a"}')], ["a"], []),
    "other formats": (
        [("a.png", PHOTO), ("a.txt", b"a"), ("b.WebP", PHOTO), ("b.txt", b"b"), ("c.jpeg", PHOTO), ("c.txt", b"c")],
        ["a", "b", "c"], [],
    ),
    "no title": ([("a.jpg", PHOTO), ("b.jpg", PHOTO), ("b.txt", b" \n"), ("c.jpg", PHOTO), ("c.txt", b"c")],
        ["c"], [("a", "no_title"), ("b", "no_title")],
    ),
    "no photo": ([("a.txt", b"a"), ("b.jpg", PHOTO), ("b.txt", b"b"), ("stats.json", b"{}")],
        ["b"], [("a", "no_photo"), ("stats", "no_photo")],
    ),
    "a photo without bytes": ([("a.jpg", b""), ("a.txt", b"a")], [], [("a", "not_an_image")]),
    "a json that is no object": ([("a.jpg", PHOTO), ("a.json", b"[1]"), ("a.txt", b"a")], [], [("a", "bad_json")]),
    "a json that is cut off": ([("a.jpg", PHOTO), ("a.json", b'{"caption": "a"')], [], [("a", "bad_json")]),
    "a txt that is not UTF-8": ([("a.jpg", PHOTO), ("a.txt", b"\xff\xfe")], [], [("a", "bad_text")]),
    "a title that is a list": ([("a.jpg", PHOTO), ("a.json", b'{"title": ["a"]}')], [], [("a", "bad_title")]),
    "a title of the json before the txt": (
        [("a.jpg", PHOTO), ("a.json", b'{"caption": "a"}'), ("a.txt", b"\xff")], ["a"], [],
    ),
    "a name that is not UTF-8": (
        [("a.jpg", PHOTO), ("a.txt", b"a"), ("b\udcff.jpg", PHOTO), ("b\udcff.txt", b"b"), link("c\udcff.jpg", "no")],
        ["a"], [("b\\udcff", "bad_item_id"), ("c\\udcff", "broken_link")],
    ),
    "a device": ([("a.jpg", PHOTO), ("a.txt", b"a"), link("b.jpg", "", tarfile.CHRTYPE)], ["a"], [("b", "not_a_file")]),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_MEMBERS)
def test_odd_members(tmp_path: Path, case: str) -> None:
    members, ids, refused = ODD_MEMBERS[case]
    write_members(tmp_path / "0.tar", ("good.jpg", PHOTO), ("good.txt", b"good"))
    write_members(tmp_path / "1.tar", *members)
    config = configure(tmp_path, tmp_path / "root")
    index(config)
    items = read_items(config)
    assert [item.item_id for item in items] == ["good", *ids]
    assert all(item.image == PHOTO for item in items)
    assert read_ledger(config) == refused


def filled(*keys: str) -> list[tuple[str, bytes]]:
    """Samples whose titles are their keys."""
    return [member for key in keys for member in ((f"{key}.jpg", PHOTO), (f"{key}.txt", key.encode()))]


def cut_in_the_middle(data: bytes) -> bytes:
    return data[: data.index(b"c.jpg") + 512 + 100]


def with_a_hole(data: bytes) -> bytes:
    start = data.index(b"b.jpg")
    return data[:start] + bytes(512) + data[start + 512 :]


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], Sequence[str], Sequence[tuple[str, str]]]] = {
    "truncated": (cut_in_the_middle, ["a", "b"], [("c", "truncated")]),
    "a hole of zeros": (with_a_hole, ["a", "c"], [("b", "no_photo"), ("", "damaged_header")]),
    "cut between samples": (lambda data: data[: data.index(b"c.jpg")], ["a", "b"], [("", "no_end")]),
    "zeros": (lambda data: bytes(10240), [], [("", "no_sample")]),
    "no byte": (lambda data: b"", [], [("", "empty")]),
    "gzip": (gzip.compress, [], [("", "compressed")]),
    "bzip2": (bz2.compress, [], [("", "compressed")]),
    "xz": (lzma.compress, [], [("", "compressed")]),
    "zstd": (lambda data: b"\x28\xb5\x2f\xfd" + data, [], [("", "compressed")]),
    "not a tar": (lambda data: b"<html>" * 500, [], [("", "damaged_header")]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_tars(tmp_path: Path, damage: str) -> None:
    change, ids, refused = DAMAGES[damage]
    write_members(tmp_path / "0.tar", *filled("good"))
    path = write_members(tmp_path / "1.TAR", *filled("a", "b", "c"))
    path.write_bytes(change(path.read_bytes()))
    config = configure(tmp_path, tmp_path / "root")
    manifests = index(config)
    assert [item.item_id for item in read_items(config)] == ["good", *ids]
    assert read_ledger(config) == refused
    assert sum(manifest.num_rows for manifest in manifests.values()) == 1 + len(ids) + len(refused)


def test_absent_tars_of_a_range_are_in_the_ledger(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in (0, 2):
        write_members(tmp_path / f"{number:02d}.tar", *filled(f"k{number}"))
    config = configure(f"{tmp_path}/{{00..03}}.tar", tmp_path / "root")
    with caplog.at_level("WARNING", "raysys"):
        index(config)
    assert [item.item_id for item in read_items(config)] == ["k0", "k2"]
    assert read_ledger(config) == 2 * [("", "absent_shard")]
    assert caplog.messages == [
        f"     pack  {tmp_path}/{{00..03}}.tar: 2 of its 4 tars do not exist (first: {tmp_path}/01.tar)"
    ]


def test_too_many_lost_tars_stop_the_pack_with_one_line(tmp_path: Path) -> None:
    write_members(tmp_path / "0.tar", *filled(*(f"k{number:02d}" for number in range(40))))
    (tmp_path / "1.tar.gz").write_bytes(gzip.compress((tmp_path / "0.tar").read_bytes()))
    config = configure(tmp_path, tmp_path / "root", PackConfig(split=ALL_TRAIN))
    with pytest.raises(DamagedData) as caught:
        index(config)
    assert str(caught.value) == (
        f"{tmp_path}: 1 of 2 tars cannot be used (1 compressed; first {tmp_path}/1.tar.gz#0: compressed with gzip: no "
        f"photo can be read from inside it; decompress it; ledger: {tmp_path / 'root'}/shards/ledger.parquet); "
        "correct them, or raise pack.max_bad_fraction"
    )
    assert not (tmp_path / "root" / "shards" / "train").exists()


def test_too_many_refused_samples_stop_the_pack(tmp_path: Path) -> None:
    write_members(tmp_path / "0.tar", *filled("a", "b"), ("c.jpg", PHOTO))
    config = configure(tmp_path, tmp_path / "root", PackConfig(split=ALL_TRAIN))
    with pytest.raises(DamagedData, match=r"1 of 3 rows cannot be used \(1 no_title; first .*0\.tar#\d+ 'c'"):
        index(config)


@pytest.mark.parametrize("path", ["", "*.tar", "{0..3}.tar", "none.tar", "none", "*.jpg"])
def test_no_tar_is_one_line_with_the_remedy(tmp_path: Path, path: str) -> None:
    (tmp_path / "tars").mkdir()
    (tmp_path / "tars" / "a.txt").write_text("no tar")
    where = f"{tmp_path}/tars/{path}".rstrip("/")
    with pytest.raises(MissingError) as caught:
        index(configure(where, tmp_path / "root"))
    assert str(caught.value) == (
        f"{where}: no tar there; set catalog.path to a range such as 'x/{{00000..00999}}.tar', a glob, a tar or "
        "a folder with tars"
    )


def test_photos_above_the_size_limit_are_refused(tmp_path: Path) -> None:
    write_members(tmp_path / "0.tar", *filled("a"), ("b.jpg", bytes(2000)), ("b.txt", b"b"))
    section = PackConfig(split=ALL_TRAIN, max_bad_fraction=0.5, max_photo_megabytes=0.0015)
    config = configure(tmp_path, tmp_path / "root", section)
    index(config)
    assert read_ledger(config) == [("b", "too_many_bytes")]


def test_folder_is_searched_with_its_sub_folders(tmp_path: Path) -> None:
    write_members(tmp_path / "a" / "0.tar", *filled("k0"))
    write_members(tmp_path / "b" / "0.TAR", *filled("k1"))
    write_members(tmp_path / "__MACOSX" / "0.tar", *filled("k2"))
    config = configure(tmp_path, tmp_path / "root")
    index(config)
    assert [item.item_id for item in read_items(config)] == ["k0", "k1"]


def test_parent_is_refused(tmp_path: Path) -> None:
    write_members(tmp_path / "0.tar", *filled("a"))
    section = PackConfig(split=ALL_TRAIN, parent=str(tmp_path / "old" / "shards"))
    with pytest.raises(InputError, match=r"pack\.parent: .* remove pack\.parent"):
        index(configure(tmp_path, tmp_path / "root", section))


def test_same_titles_of_one_seller_are_a_group(tmp_path: Path) -> None:
    texts = [b'{"title": "a cup", "seller": "anna"}', b'{"title": "A  cup", "seller": "ben"}']
    members = [("0.json", texts[0]), ("1.json", texts[1]), ("2.json", texts[0])]
    photos = [(f"{number}.jpg", PHOTO) for number in range(3)]
    write_members(tmp_path / "0.tar", *(part for pair in zip(photos, members, strict=True) for part in pair))
    config = configure(tmp_path, tmp_path / "root", attributes={"seller": "text"})
    index(config)
    assert [item.group for item in read_items(config)] == ["0", "1", "0"]
