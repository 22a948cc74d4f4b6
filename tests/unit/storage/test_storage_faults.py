"""One fault at every byte: the slow twin of an object store that fails now and then."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pyarrow.fs as pafs
import pytest

from raysys import storage
from raysys.errors import InputError, MissingError, StorageError
from raysys.shards.tar import BLOCK_BYTES, scan
from raysys.storage import reading, retry
from tests.unit.storage.flaky_store import NETWORK, FlakyStore

URI = "store://shop/a"
DATA = bytes(range(200))


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are not waited for."""
    waited: list[float] = []
    monkeypatch.setattr(retry, "pause", waited.append)
    return waited


@pytest.fixture(params=["error", "short"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> FlakyStore:
    """A store with the bucket `shop`, reached as `store://`."""
    return reached(tmp_path, monkeypatch, request.param)


@pytest.fixture
def erring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> FlakyStore:
    """The same, whose faults are errors."""
    return reached(tmp_path, monkeypatch, "error")


def reached(folder: Path, monkeypatch: pytest.MonkeyPatch, how: Literal["error", "short"]) -> FlakyStore:
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
    return target.getvalue()[: 6 * BLOCK_BYTES]  # header, content, header, content, the end


def as_stream(uri: str) -> bytes:
    """A file as a parser reads it: from the end, from the middle, then in small steps."""
    with storage.open_input(uri) as stream:
        assert stream.seek(0, 2) == len(DATA)
        stream.seek(100)
        tail = stream.read()
        stream.seek(0)
        steps = b"".join(stream.read(30) for _ in range(7))  # 200 bytes are 6 whole steps and a rest
        assert (tail, stream.read(1)) == (steps[100:], b"")
        return bytes(steps)


@pytest.mark.parametrize(
    ("read", "wanted"),
    [
        (storage.read_bytes, DATA),
        (lambda uri: storage.read_range(uri, 20, 150), DATA[20:170]),
        (lambda uri: storage.read_range(uri, 190, 50), DATA[190:]),
        (storage.sha256_of, (200, hashlib.sha256(DATA).hexdigest())),
        (as_stream, DATA),
    ],
    ids=["bytes", "range", "range past the end", "sha256", "stream"],
)
def test_fault_at_any_byte_changes_nothing(
    read: Callable[[str], object], wanted: object, store: FlakyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_CHUNK_BYTES", 64)
    storage.write_bytes(URI, DATA)
    num_failed = 0
    for at in range(len(DATA)):
        store.fail(at)
        assert read(URI) == wanted, f"byte {at}"
        num_failed += store.failed
    assert num_failed >= 10  # all 200, but for the ranges that most bytes lie outside of


def test_fault_all_over_a_tar_loses_no_member(store: FlakyStore) -> None:
    data = small_tar()
    storage.write_bytes(URI, data)
    wanted = scan(io.BytesIO(data))
    assert [member.name for member in wanted[0]] == ["a.jpg", "a.json"]
    num_failed = 0
    for at in range(0, len(data), 4):  # every fourth byte: a block is read whole
        store.fail(at)
        with storage.open_input(URI) as stream:
            assert scan(stream) == wanted, f"byte {at}"
        num_failed += store.failed
    assert num_failed >= 400  # of 768: both headers and the end are read, contents are not


def test_upload_that_breaks_at_any_byte_is_made_whole(store: FlakyStore, tmp_path: Path) -> None:
    for at in range(len(DATA)):
        (tmp_path / "shop" / "a").unlink(missing_ok=True)
        store.fail(at)
        storage.write_bytes(URI, DATA)
        assert (tmp_path / "shop" / "a").read_bytes() == DATA, f"byte {at}"
        assert store.failed == 1


def test_draft_whose_upload_breaks_is_made_whole(store: FlakyStore, tmp_path: Path) -> None:
    store.fail(150, times=2)
    with storage.writable_file(URI) as draft:
        draft.write_bytes(DATA)
    assert (tmp_path / "shop" / "a").read_bytes() == DATA
    assert store.failed == 2


def test_upload_that_stays_broken_leaves_nothing_and_says_so(erring: FlakyStore, tmp_path: Path) -> None:
    erring.fail(100, times=99)
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(URI, DATA)
    assert str(caught.value) == (
        f"{URI}: could not be written in 6 tries ({NETWORK}); check the place, then run again"
    )
    assert list((tmp_path / "shop").iterdir()) == []


def test_short_upload_is_never_left_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: list[float]
) -> None:
    reached(tmp_path, monkeypatch, "short").fail(100, times=99)
    with pytest.raises(StorageError, match="in 6 tries \\(100 of 200 bytes arrived\\)"):
        storage.write_bytes(URI, DATA)
    assert list((tmp_path / "shop").iterdir()) == []


def test_tries_are_bounded_and_wait_longer_each_time(erring: FlakyStore, waits: list[float]) -> None:
    storage.write_bytes(URI, DATA)
    erring.fail(7, times=99)
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(URI)
    assert str(caught.value) == (
        f"{URI}: could not be read in 6 tries ({NETWORK}); check the place, then run again"
    )
    assert erring.failed == 6
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0]


def test_refusal_is_not_repeated_and_says_what_to_check(erring: FlakyStore, waits: list[float]) -> None:
    storage.write_bytes(URI, DATA)
    erring.message = "AWS Error ACCESS_DENIED during GetObject operation: Access Denied"
    erring.fail(0, times=99)
    with pytest.raises(InputError) as caught:
        storage.read_bytes(URI)
    assert str(caught.value) == (
        f"{URI}: access denied, it could not be read ({erring.message}); check the credentials in the "
        "environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and the rights on the place"
    )
    assert (erring.failed, waits) == (1, [])


def test_absent_bucket_and_absent_file_are_not_repeated(erring: FlakyStore, waits: list[float]) -> None:
    with pytest.raises(MissingError, match=f"^{URI}: no such file; check the path$"):
        storage.read_bytes(URI)
    erring.message = "AWS Error NO_SUCH_BUCKET during PutObject operation: The bucket does not exist"
    erring.fail(0)
    with pytest.raises(MissingError, match=f"^{URI}: no such bucket; check the path$"):
        storage.write_bytes(URI, DATA)
    assert waits == []


def test_file_that_changes_between_two_tries_is_refused(erring: FlakyStore, tmp_path: Path) -> None:
    storage.write_bytes(URI, DATA)
    with storage.open_input(URI) as stream:
        assert stream.read(10) == DATA[:10]
        (tmp_path / "shop" / "a").write_bytes(b"another")
        erring.fail(10)
        with pytest.raises(StorageError, match=f"^{URI}: changed while it was read"):
            stream.read(10)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = str(tmp_path / "a")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        storage.write_bytes(uri, b"new")
    assert str(caught.value) == (
        f"{uri}: could not be written (No space left on device); free space there, or use another place"
    )
    assert list(tmp_path.iterdir()) == []


def test_full_disk_in_the_middle_of_a_draft_is_told_in_one_line(tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    with pytest.raises(StorageError) as caught:
        write_half(uri)
    assert str(caught.value).startswith(f"{uri}: could not be written (No space left on device); free space")
    assert list(tmp_path.iterdir()) == []


def write_half(uri: str) -> None:
    with storage.writable_file(uri) as draft:
        draft.write_bytes(b"half")
        full()


def test_refused_disk_is_told_without_a_word_on_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(InputError) as caught:
        storage.write_bytes(str(tmp_path / "a"), b"x")
    assert str(caught.value) == (
        f"{tmp_path}/a: access denied, it could not be written (Permission denied); check its owner and mode"
    )


@pytest.mark.parametrize("durable", [True, False])
def test_durable_write_flushes_the_file_and_then_its_folder(
    durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_ino))
    storage.write_bytes(str(tmp_path / "a"), b"x", durable=durable)
    wanted = [(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino] if durable else []
    assert flushed == wanted


def test_key_is_meant_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysys.storage.uri._store", lambda scheme, bucket, query: (query, bucket))
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:5000")
    assert storage.resolve("s3://shop/my cup #2?%20.jpg") == (
        "?endpoint_override=http%3A%2F%2F127.0.0.1%3A5000&region=us-east-1",
        "shop/my cup #2?%20.jpg",
    )
    assert storage.resolve("gs://shop/a/b") == ("", "shop/a/b")
    assert storage.resolve("s3://shop") == storage.resolve("s3://shop/")
