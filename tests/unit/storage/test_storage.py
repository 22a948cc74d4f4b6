"""Files on a local disk, by path and by `file://`, and on a fake object store backed by a folder."""

import errno
import os
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from raysys import storage
from raysys.errors import MissingError, StorageError


@pytest.fixture(params=["path", "file://", "store://"])
def root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same empty folder, as each kind of URI."""
    if request.param == "store://":

        def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
            key = uri.removeprefix("store://")
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)  # an object store has no folders
            return pafs.SubTreeFileSystem(str(tmp_path), pafs.LocalFileSystem()), key

        monkeypatch.setattr("raysys.storage.uri.resolve", resolve)
        return "store://bucket"
    return f"file://{tmp_path}" if request.param == "file://" else str(tmp_path)


def write_and_fail(uri: str) -> None:
    with storage.writable_file(uri) as path:
        path.write_bytes(b"part")
        raise ZeroDivisionError


def test_written_file_is_read_completely_and_by_range(root: str) -> None:
    uri = storage.join(root, "photo.bin")
    storage.write_bytes(uri, b"0123456789")
    storage.write_bytes(uri, b"abcdefghij", durable=False)  # replaces
    assert storage.read_bytes(uri) == b"abcdefghij"
    assert storage.read_range(uri, 2, 3) == b"cde"
    assert storage.exists(uri)


def test_list_is_relative_sorted_and_recursive(root: str) -> None:
    with storage.writable_file(storage.join(root, "b", "c.txt")) as path:
        path.write_bytes(b"xyz")
    with storage.writable_file(storage.join(root, "a.txt")) as path:
        path.write_bytes(b"x")
    assert list(storage.list_files(root).items()) == [("a.txt", 1), ("b/c.txt", 3)]
    assert storage.list_files(storage.join(root, "absent")) == {}


def test_delete_accepts_files_folders_and_absent_names(root: str) -> None:
    for name in ("a", "b", "c"):
        with storage.writable_file(storage.join(root, "below", name)) as path:
            path.write_bytes(b"x")
    storage.delete(storage.join(root, "below", "a"))
    assert list(storage.list_files(root)) == ["below/b", "below/c"]
    storage.delete(storage.join(root, "below"))
    storage.delete(storage.join(root, "below"))
    assert storage.list_files(root) == {}


def test_stat_returns_sizes_in_order_and_marks_absent_files(root: str) -> None:
    storage.write_bytes(storage.join(root, "a"), b"four")
    uris = [storage.join(root, name) for name in ("absent", "a", "a")]
    stats = storage.stat_files(uris)
    assert [size for size, _ in stats] == [-1, 4, 4]
    assert stats[0] == (-1, 0)
    assert stats[1][1] > 0


def test_missing_file_is_named_by_its_uri(root: str) -> None:
    uri = storage.join(root, "absent.tar")
    with pytest.raises(MissingError) as caught:
        storage.read_bytes(uri)
    assert str(caught.value) == f"{uri}: no such file; check the path"


def test_failed_block_writes_nothing(root: str) -> None:
    with pytest.raises(ZeroDivisionError):
        write_and_fail(storage.join(root, "a"))
    assert storage.list_files(root) == {}


def test_failed_block_keeps_the_old_file(root: str) -> None:
    uri = storage.join(root, "a")
    storage.write_bytes(uri, b"old")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(uri)
    assert storage.read_bytes(uri) == b"old"
    assert list(storage.list_files(root)) == ["a"]


def test_old_file_is_visible_until_the_block_ends(root: str) -> None:
    uri = storage.join(root, "a")
    storage.write_bytes(uri, b"old")
    with storage.writable_file(uri) as path:
        path.write_bytes(b"new")
        assert storage.read_bytes(uri) == b"old"
    assert storage.read_bytes(uri) == b"new"


def test_uploaded_folder_is_read_back(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "one").write_bytes(b"1")
    (source / "below" / "two").write_bytes(b"22")
    storage.upload_folder(source, storage.join(root, "copy"))
    with storage.readable_folder(storage.join(root, "copy")) as folder:
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert names == {"one", "below/two"}
        assert (folder / "below" / "two").read_bytes() == b"22"


def test_copy_replaces_a_file_and_does_not_follow_the_source(root: str) -> None:
    source, target = storage.join(root, "a"), storage.join(root, "below", "b")
    storage.write_bytes(source, b"new")
    storage.write_bytes(target, b"old")
    storage.copy_file(source, target)
    assert storage.read_bytes(target) == b"new"
    storage.write_bytes(source, b"newer")
    storage.delete(source)
    assert storage.read_bytes(target) == b"new"


def test_hash_does_not_depend_on_the_size_of_chunks(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysys.storage.reading._CHUNK_BYTES", 2)  # three chunks
    storage.write_bytes(storage.join(root, "a"), b"hello")
    # printf hello | sha256sum
    expected = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert storage.sha256_of(storage.join(root, "a")) == (5, expected)
    assert storage.sha256_of_bytes(b"hello") == expected


def test_draft_is_not_listed(root: str) -> None:
    # A killed writer leaves its draft: no reader may take it for a file.
    with storage.writable_file(storage.join(root, "part.parquet")) as path:
        path.write_bytes(b"part")
        assert storage.list_files(root) == {}


def test_full_disk_keeps_the_old_file_and_leaves_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        storage.write_bytes(str(tmp_path / "a"), b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"old"}


def test_written_file_is_readable_by_all_users(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "a"), b"x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_is_folder_is_false_for_files_and_absent_names(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    assert [storage.is_folder(str(tmp_path / name)) for name in (".", "file", "absent")] == [
        True,
        False,
        False,
    ]


def test_readable_file_is_the_file_itself_when_local(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with storage.readable_file(str(tmp_path / "file")) as path:
        assert path == tmp_path / "file"
    with (
        pytest.raises(MissingError, match="absent: no such file; check the path"),
        storage.readable_file(f"{tmp_path}/absent"),
    ):
        pass
