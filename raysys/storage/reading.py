"""Read and list files: each call returns everything that was requested, or raises an error."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from raysys.errors import MissingError, StorageError
from raysys.parallel import map_in_threads
from raysys.storage import uri as uris
from raysys.storage.failures import TruncatedTransfer
from raysys.storage.retry import with_retry
from raysys.storage.seekable import SeekableStream

_CHUNK_BYTES = 8 << 20
_PARALLEL_RANGES = 8  # of one file; a single stream of an object store gives about 60 MB/s


def exists(uri: str) -> bool:
    """Whether a file or a folder exists."""
    return bool(_info(uri).type != pafs.FileType.NotFound)


def is_file(uri: str) -> bool:
    """Whether a file exists."""
    return bool(_info(uri).type == pafs.FileType.File)


def is_folder(uri: str) -> bool:
    """Whether a folder exists (on an object store: whether any key starts with this path)."""
    return bool(_info(uri).type == pafs.FileType.Directory)


def list_files(uri: str, *, hidden: bool = False) -> dict[str, int]:
    """Every file below a folder: relative path -> size in bytes, sorted; empty if the folder is absent.

    Names that begin with a dot are left out unless `hidden`: they are drafts of unfinished writes. Bytes of
    a local name that are not UTF-8 become surrogates, as in `os.listdir`.
    """
    filesystem, path = uris.resolve(uri)
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    try:
        infos = with_retry(lambda: filesystem.get_file_info(selector), uri, "listed")
        files = (info for info in infos if info.type == pafs.FileType.File)
        sizes = {info.path[len(path.rstrip("/")) + 1 :]: info.size for info in files}
    except UnicodeDecodeError:
        sizes = _sizes_below(path)
    return {name: sizes[name] for name in sorted(sizes) if hidden or "/." not in f"/{name}"}


def list_folders(uri: str) -> list[str]:
    """The names of the folders directly in a folder, sorted, including names that begin with a dot."""
    filesystem, path = uris.resolve(uri)
    selector = pafs.FileSelector(path, allow_not_found=True)
    try:
        infos = with_retry(lambda: filesystem.get_file_info(selector), uri, "listed")
    except UnicodeDecodeError:
        return sorted(entry.name for entry in os.scandir(path) if entry.is_dir())
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)


def stat_files(files: list[str]) -> list[tuple[int, int]]:
    """Size in bytes and modification time in ns of each URI, in order; (-1, 0) for an absent file."""
    stats: dict[str, tuple[int, int]] = {}
    for _, group in itertools.groupby(
        sorted(set(files), key=lambda uri: (_filesystem_of(uri), uri)), key=_filesystem_of
    ):
        stats |= _stat_on_one_filesystem(list(group))
    return [stats[uri] for uri in files]


def open_input(uri: str) -> pa.NativeFile:
    """A readable, seekable file that the caller closes. A read returns all requested bytes up to the end."""
    if uris.is_local(uri):
        filesystem, path = uris.resolve(uri)
        local: pa.NativeFile = with_retry(lambda: filesystem.open_input_file(path), uri, "read")
        return local
    return pa.PythonFile(_RetryingFile(uri), mode="r")


def read_bytes(uri: str) -> bytes:
    """The complete content of a file."""
    with _RetryingFile(uri) as stream:
        return stream.read_at(stream.num_bytes, 0)


def read_range(uri: str, offset: int, num_bytes: int) -> bytes:
    """`num_bytes` from `offset`, as one ranged read; fewer only at the end of the file."""
    with _RetryingFile(uri) as stream:
        return stream.read_at(num_bytes, offset)


def sha256_of(uri: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 (hex) of a file, read in chunks."""
    digest = hashlib.sha256()
    with _RetryingFile(uri) as stream:
        for data in stream.chunks():
            digest.update(data)
            del data  # before the next one is read
        return stream.num_bytes, digest.hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    """SHA-256 (hex) of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


@contextlib.contextmanager
def readable_file(uri: str) -> Iterator[Path]:
    """A local path with the file's bytes: the file itself if it is local, else a temporary copy."""
    if uris.is_local(uri):
        if not is_file(uri):
            raise MissingError(f"{uri}: no such file; check the path")
        yield uris.local_path(uri)
        return
    with tempfile.TemporaryDirectory() as folder:
        _download(uri, Path(folder) / "copy")
        yield Path(folder) / "copy"


@contextlib.contextmanager
def readable_folder(uri: str) -> Iterator[Path]:
    """A local path with the folder's files: the folder itself if it is local, else a temporary copy."""
    if uris.is_local(uri):
        yield uris.local_path(uri)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in list_files(uri):
            _download(uris.join(uri, name), Path(folder) / name)
        yield Path(folder)


class _RetryingFile(SeekableStream):
    """A file on an object store; a read that fails or ends early is repeated from its start.

    `read_at` may be called by several threads at once.
    """

    def __init__(self, uri: str) -> None:
        super().__init__()
        self._uri = uri
        # Open streams that no thread is using: not every kind of stream allows several threads.
        self._idle: list[pa.NativeFile] = []
        self.num_bytes = -1
        self._idle.append(with_retry(self._open, uri, "read"))

    def read_at(self, num_bytes: int, offset: int) -> bytes:
        """`num_bytes` from `offset`; fewer only at the end of the file."""
        available = max(0, min(num_bytes, self.num_bytes - offset))
        if not available:
            return b""
        return with_retry(lambda: self._try_read(available, offset), self._uri, "read")

    def chunks(self) -> Iterator[bytes]:
        """The complete content, in order; of an object store several ranges at a time."""
        max_threads = 1 if uris.is_local(self._uri) else _PARALLEL_RANGES
        read = functools.partial(self.read_at, _CHUNK_BYTES)
        return map_in_threads(read, range(0, self.num_bytes, _CHUNK_BYTES), max_threads)

    def close(self) -> None:
        """Close the file; closing it again does nothing."""
        while self._idle:
            _close(self._idle.pop())
        super().close()

    def _try_read(self, num_bytes: int, offset: int) -> bytes:
        stream = self._idle.pop() if self._idle else self._open()
        try:
            data: bytes = stream.read_at(num_bytes, offset)
            if len(data) != num_bytes:
                raise TruncatedTransfer(f"{len(data)} of {num_bytes} bytes arrived from offset {offset}")
        except OSError:
            _close(stream)
            raise
        self._idle.append(stream)
        return data

    def _open(self) -> pa.NativeFile:
        filesystem, path = uris.resolve(self._uri)
        stream = filesystem.open_input_file(path)
        num_bytes = int(stream.size())
        if self.num_bytes not in (-1, num_bytes):
            raise StorageError(
                f"{self._uri}: changed while it was read; run again after the writer has finished"
            )
        self.num_bytes = num_bytes
        return stream


def _close(stream: pa.NativeFile) -> None:
    with contextlib.suppress(OSError):
        stream.close()


def _sizes_below(path: str) -> dict[str, int]:
    """What `list_files` returns for a local folder with a name that Arrow cannot decode."""
    files = (
        os.path.join(folder, name) for folder, _, names in os.walk(path, followlinks=True) for name in names
    )
    return {os.path.relpath(file, path): os.path.getsize(file) for file in files if os.path.isfile(file)}


def _info(uri: str) -> pafs.FileInfo:
    filesystem, path = uris.resolve(uri)
    return with_retry(lambda: filesystem.get_file_info(path), uri, "looked up")


def _stat_on_one_filesystem(files: list[str]) -> dict[str, tuple[int, int]]:
    filesystem = uris.resolve(files[0])[0]
    paths = [uris.resolve(uri)[1] for uri in files]
    infos = with_retry(lambda: filesystem.get_file_info(paths), files[0], "looked up")
    return {
        uri: (int(info.size), int(info.mtime_ns or 0)) if info.type == pafs.FileType.File else (-1, 0)
        for uri, info in zip(files, infos, strict=True)
    }


def _filesystem_of(uri: str) -> str:
    """The prefix that URIs of one filesystem share: scheme and bucket; empty if local."""
    return "" if uris.is_local(uri) else "/".join(uri.split("/", 3)[:3])


def _download(uri: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _RetryingFile(uri) as source, target.open("wb") as draft:
        draft.writelines(source.chunks())
