"""Reads and writes against an object store with one fault at every byte offset."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow.fs as pafs
import pytest

from raysys import storage
from raysys.errors import DiskFull, InputError, MissingError, StorageError
from raysys.shards.tar import BLOCK_BYTES, scan
from raysys.storage import reading, retry
from tests.unit.storage.flaky_store import NETWORK, FlakyStore

URI = "store://shop/a"
DATA = bytes(range(200))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, in seconds; the test does not sleep."""
    recorded: list[float] = []
    monkeypatch.setattr(retry, "pause", recorded.append)
    return recorded


@pytest.fixture(params=["error", "short"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> FlakyStore:
    """A store with the bucket `shop`, as `store://`; its faults are errors or short responses."""
    return make_store(tmp_path, monkeypatch, request.param)


@pytest.fixture
def failing_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> FlakyStore:
    """The same, but its faults are always errors."""
    return make_store(tmp_path, monkeypatch, "error")


def make_store(folder: Path, monkeypatch: pytest.MonkeyPatch, how: Literal["error", "short"]) -> FlakyStore:
    (folder / "shop").mkdir()
    handler = FlakyStore(folder, how)
    filesystem = pafs.PyFileSystem(handler)
    monkeypatch.setattr(
        "raysys.storage.uri._store",
        lambda scheme, bucket, query: (filesystem, bucket),
    )
    return handler


def small_tar() -> bytes:
    """Two members, without the padding to 10 KiB."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in (("a.jpg", b"photo" * 20), ("a.json", b"{}")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return target.getvalue()[: 6 * BLOCK_BYTES]  # header, content, header, content, end marker


def as_stream(uri: str) -> bytes:
    """Read a file as a parser does: from the end, from the middle, then in small steps."""
    with storage.open_input(uri) as stream:
        assert stream.seek(0, 2) == len(DATA)
        stream.seek(100)
        tail = stream.read()
        stream.seek(0)
        steps = b"".join(stream.read(30) for _ in range(7))  # 200 bytes: 6 full steps and a rest
        assert (tail, stream.read(1)) == (steps[100:], b"")
        return bytes(steps)


def copied(uri: str) -> bytes:
    """Read the local copy of a file."""
    with storage.readable_file(uri) as path:
        return path.read_bytes()


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (storage.read_bytes, DATA),
        (lambda uri: storage.read_range(uri, 20, 150), DATA[20:170]),
        (lambda uri: storage.read_range(uri, 190, 50), DATA[190:]),
        (storage.sha256_of, (200, hashlib.sha256(DATA).hexdigest())),
        (as_stream, DATA),
        (copied, DATA),
    ],
    ids=["bytes", "range", "range past the end", "sha256", "stream", "copy"],
)
def test_fault_at_any_byte_does_not_change_the_result(
    read: Callable[[str], object], expected: object, store: FlakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK_BYTES", 64)
    storage.write_bytes(URI, DATA)
    num_failed = 0
    for at in range(len(DATA)):
        store.fail(at)
        assert read(URI) == expected, f"byte {at}"
        num_failed += store.failed
    assert num_failed >= 10  # 200 for complete reads; the ranges contain fewer


def test_fault_anywhere_in_a_tar_loses_no_member(store: FlakyStore) -> None:
    data = small_tar()
    storage.write_bytes(URI, data)
    expected = scan(io.BytesIO(data))
    assert [member.name for member in expected[0]] == ["a.jpg", "a.json"]
    num_failed = 0
    for at in range(0, len(data), 13):  # 13 and the block size have no common factor: every place in a block
        store.fail(at)
        with storage.open_input(URI) as stream:
            assert scan(stream) == expected, f"byte {at}"
        num_failed += store.failed
    assert num_failed >= 120  # out of 237 tries: headers and end marker are read, contents are not


def test_upload_that_fails_at_any_byte_is_repeated(store: FlakyStore, tmp_path: Path) -> None:
    for at in range(len(DATA)):
        (tmp_path / "shop" / "a").unlink(missing_ok=True)
        store.fail(at)
        storage.write_bytes(URI, DATA)
        assert (tmp_path / "shop" / "a").read_bytes() == DATA, f"byte {at}"
        assert store.failed == 1


def test_failed_upload_of_a_draft_is_repeated(store: FlakyStore, tmp_path: Path) -> None:
    store.fail(150, times=2)
    with storage.writable_file(URI) as draft:
        draft.write_bytes(DATA)
    assert (tmp_path / "shop" / "a").read_bytes() == DATA
    assert store.failed == 2


def test_upload_that_always_fails_leaves_nothing_and_raises(
    failing_store: FlakyStore, tmp_path: Path
) -> None:
    failing_store.fail(100, times=99)
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(URI, DATA)
    assert str(caught.value) == (
        f"{URI}: could not be written in 6 tries ({NETWORK}); check the location, then run again"
    )
    assert list((tmp_path / "shop").iterdir()) == []


def test_short_upload_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    make_store(tmp_path, monkeypatch, "short").fail(100, times=99)
    with pytest.raises(StorageError, match="in 6 tries \\(100 of 200 bytes arrived\\)"):
        storage.write_bytes(URI, DATA)
    assert list((tmp_path / "shop").iterdir()) == []


def test_tries_are_limited_and_waits_double(failing_store: FlakyStore, waits: list[float]) -> None:
    storage.write_bytes(URI, DATA)
    failing_store.fail(7, times=99)
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(URI)
    assert str(caught.value) == (
        f"{URI}: could not be read in 6 tries ({NETWORK}); check the location, then run again"
    )
    assert failing_store.failed == 6
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_denied_access_is_not_retried_and_names_the_credentials(
    failing_store: FlakyStore, waits: list[float]
) -> None:
    storage.write_bytes(URI, DATA)
    failing_store.message = "AWS Error ACCESS_DENIED during GetObject operation: Access Denied"
    failing_store.fail(0, times=99)
    with pytest.raises(InputError) as caught:
        storage.read_bytes(URI)
    assert str(caught.value) == (
        f"{URI}: access denied, it could not be read ({failing_store.message}); check the credentials in the "
        "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and the permissions of the bucket"
    )
    assert (failing_store.failed, waits) == (1, [])


def test_absent_bucket_and_absent_file_are_not_retried(failing_store: FlakyStore, waits: list[float]) -> None:
    with pytest.raises(MissingError, match=f"^{URI}: no such file; check the path$"):
        storage.read_bytes(URI)
    failing_store.message = "AWS Error NO_SUCH_BUCKET during PutObject operation: The bucket does not exist"
    failing_store.fail(0)
    with pytest.raises(MissingError, match=f"^{URI}: no such bucket; check the path$"):
        storage.write_bytes(URI, DATA)
    assert waits == []


def test_file_that_changes_between_two_tries_is_refused(failing_store: FlakyStore, tmp_path: Path) -> None:
    storage.write_bytes(URI, DATA)
    with storage.open_input(URI) as stream:
        assert stream.read(10) == DATA[:10]
        (tmp_path / "shop" / "a").write_bytes(b"another")
        failing_store.fail(10)
        with pytest.raises(StorageError, match=f"^{URI}: changed while it was read"):
            stream.read(10)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("num_bytes", "free", "room"),
    [
        (3, 2, ": it needs 3 bytes, 2 bytes are free"),
        (70_000, 0, ": it needs 70.0 kB, 0 bytes are free"),
        (70_000, 4096, ": it needs 70.0 kB, 4.1 kB are free"),
        (3, 10**12, ""),  # the disk has space, but no more files
    ],
)
def test_full_disk_is_named_with_what_is_needed_and_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_bytes: int, free: int, room: str
) -> None:
    uri = str(tmp_path / "a")
    monkeypatch.setattr(os, "fsync", full)
    monkeypatch.setattr(retry, "free_bytes", lambda _: free)
    with pytest.raises(DiskFull) as caught:
        storage.write_bytes(uri, bytes(num_bytes))
    assert str(caught.value) == (
        f"{uri}: could not be written (No space left on device{room}); free space there, or use another place"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("free", "size"), [(0, "0 bytes"), (999, "999 bytes"), (2_500_000, "2.5 MB")])
def test_full_disk_inside_a_block_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, size: str
) -> None:
    uri = str(tmp_path / "a")
    monkeypatch.setattr(retry, "free_bytes", lambda _: free)
    with pytest.raises(DiskFull) as caught:
        write_to_full_disk(uri)
    assert str(caught.value) == (
        f"{uri}: could not be written (No space left on device: it needs more than the {size} that are free); "
        "free space there, or use another place"
    )
    assert list(tmp_path.iterdir()) == []


def test_free_space_is_that_of_the_disk_that_a_path_will_be_on(tmp_path: Path) -> None:
    assert 0 < storage.free_bytes(f"{tmp_path}/absent/file") <= shutil.disk_usage(tmp_path).total


def write_to_full_disk(uri: str) -> None:
    with storage.writable_file(uri) as draft:
        draft.write_bytes(b"part")
        full()


def test_denied_access_to_a_local_file_names_owner_and_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", deny)
    with pytest.raises(InputError) as caught:
        storage.write_bytes(str(tmp_path / "a"), b"x")
    assert str(caught.value) == (
        f"{tmp_path}/a: access denied, it could not be written (Permission denied); check its owner and mode"
    )


@pytest.mark.parametrize("durable", [True, False])
def test_durable_write_flushes_the_file_then_its_folder(
    durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    storage.write_bytes(str(tmp_path / "a"), b"x", durable=durable)
    expected = [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino] if durable else []
    assert flushed == expected


def test_appending_to_a_full_disk_names_the_file() -> None:
    with pytest.raises(StorageError) as caught:
        storage.append_bytes("/dev/full", b"row")
    assert str(caught.value) == (
        "/dev/full: could not be written (No space left on device); free space there, or use another place"
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/a"), "/data/a: could not be used (No space"),
        (OSError(errno.ENOSPC, "No space left on device"), "a disk is full (No space left on device)"),
        (OSError(errno.EROFS, "Read-only file system", "/data/a"), "/data/a: could not be used (Read-only"),
        (OSError(errno.ENOENT, "No such file", "/data/a"), None),  # may be a bug: its traceback is needed
        (ValueError("bug"), None),
    ],
)
def test_place_that_a_library_could_not_use(error: Exception, message: str | None) -> None:
    outer = RuntimeError("library")
    outer.__cause__ = error
    found = retry.unusable_place(outer)
    assert found is None if message is None else str(found).startswith(message)
