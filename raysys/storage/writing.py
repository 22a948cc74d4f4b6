"""Write and delete files: a reader sees a complete file or none, even if the writer fails.

On a local disk, a file is written under a temporary name and renamed. On an object store, an upload becomes
visible only when its last request succeeds; a failed upload is repeated from the start, and its size is
checked at the end. pyarrow has no call to abort a multipart upload: parts of a failed one are never visible,
and stay until the bucket's lifecycle rule for incomplete uploads removes them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs

from raysys.storage import uri as uris
from raysys.storage.failures import TruncatedTransfer, is_full
from raysys.storage.reading import list_folders
from raysys.storage.retry import as_storage_error, with_retry


def write_bytes(uri: str, data: bytes, *, durable: bool = True) -> None:
    """Write a file atomically; with `durable`, it also survives a power cut."""
    if uris.is_local(uri):
        with _as_storage_errors(uri, needed_bytes=len(data)):
            _write_local(uris.local_path(uri), data, durable)
        return

    def put(filesystem: pafs.FileSystem, path: str) -> None:
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)

    _upload(uri, len(data), put)


def append_bytes(uri: str, data: bytes) -> None:
    """Append to a local file, which readers see at once; neither atomic nor durable."""
    with _as_storage_errors(uri, needed_bytes=len(data)), uris.local_path(uri).open("ab") as stream:
        stream.write(data)


def create_folder(uri: str) -> None:
    """Create a local folder if it does not exist; object stores need none."""
    if uris.is_local(uri):
        with _as_storage_errors(uri):
            _create_local_folder(uris.local_path(uri))


def require_folder(uri: str) -> None:
    """Check that a local path is a folder or may become one; object stores have none.

    Raises: InputError for a file, a path below a file, or one that the system does not accept.
    """
    if uris.is_local(uri):
        with _as_storage_errors(uri, "used as a folder"), contextlib.suppress(FileNotFoundError):
            if not stat.S_ISDIR(uris.local_path(uri).stat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


def require_writable(uri: str) -> None:
    """Check before long work that a local folder, or the closest one above it, can be written to.

    Raises: InputError for a read-only or forbidden place, StorageError for a full disk.
    """
    require_folder(uri)
    if uris.is_local(uri):
        path = uris.local_path(uri)
        existing = next(folder for folder in (path, *path.parents) if folder.exists())
        with _as_storage_errors(uri), tempfile.TemporaryFile(dir=existing):
            pass


def delete_drafts(uri: str) -> None:
    """Delete the drafts of killed writers from a folder; no writer may be active there."""
    for name in list_folders(uri):
        if name.startswith("."):
            delete(uris.join(uri, name))


def delete(uri: str) -> None:
    """Delete a file, or a folder with its content; does nothing if it does not exist."""
    filesystem, path = uris.resolve(uri)

    def remove() -> None:
        kind = filesystem.get_file_info(path).type
        with contextlib.suppress(FileNotFoundError):  # an earlier try deleted it, although it failed
            if kind == pafs.FileType.Directory:
                filesystem.delete_dir(path)
            elif kind == pafs.FileType.File:
                filesystem.delete_file(path)

    with_retry(remove, uri, "removed")


@contextlib.contextmanager
def writable_file(uri: str) -> Iterator[Path]:
    """A local path to write to; its file is published as `uri` when the block ends without an error."""
    if uris.is_local(uri):
        target = uris.local_path(uri)
        with _as_storage_errors(uri):
            _create_local_folder(target.parent)
        with _full_disk_as_storage_error(uri), _draft_folder(target.parent, f".{target.name}.") as folder:
            yield folder / target.name
            with _as_storage_errors(uri):
                _flush_to_disk(folder / target.name)
                os.replace(folder / target.name, target)
                _flush_to_disk(target.parent)
        return
    with _full_disk_as_storage_error(tempfile.gettempdir()), _draft_folder() as folder:
        draft = folder / uri.rsplit("/", 1)[-1]
        yield draft
        _upload_file(draft, uri)


def upload_folder(source: Path, uri: str) -> None:
    """Copy the files of a local folder to a URI, each one atomically."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            with writable_file(uris.join(uri, path.relative_to(source).as_posix())) as draft:
                shutil.copyfile(path, draft)


def copy_file(source: str, target: str) -> None:
    """Make `target` a file with the content of `source`, atomically, on the same disk or object store.

    On a local disk it is a hard link where the disk has them, so the copy needs no space.
    """
    if uris.is_local(source):
        with writable_file(target) as draft:
            try:
                os.link(uris.local_path(source), draft)
            except OSError:  # a file system without links, or another one
                shutil.copyfile(uris.local_path(source), draft)
        return
    filesystem, path = uris.resolve(source)
    with_retry(lambda: filesystem.copy_file(path, uris.resolve(target)[1]), target, "written")


def _write_local(target: Path, data: bytes, durable: bool) -> None:
    _create_local_folder(target.parent)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if durable:  # fsync takes milliseconds: too slow for thousands of small photos
                os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    if durable:
        _flush_to_disk(target.parent)  # makes the rename durable, too


def _create_local_folder(folder: Path) -> None:
    """Create a folder and those above it that do not exist; a durable file needs durable folders, too."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in missing:
        _flush_to_disk(path.parent)


def _flush_to_disk(path: Path) -> None:
    """Flush the content of a file, or the entries of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _upload_file(source: Path, uri: str) -> None:
    def copy(filesystem: pafs.FileSystem, path: str) -> None:
        pafs.copy_files(
            str(source),
            path,
            source_filesystem=pafs.LocalFileSystem(),
            destination_filesystem=filesystem,
            use_threads=False,
        )

    _upload(uri, source.stat().st_size, copy)


def _upload(uri: str, num_bytes: int, put: Callable[[pafs.FileSystem, str], None]) -> None:
    """Upload until an object of `num_bytes` exists; an object of another size is deleted."""
    filesystem, path = uris.resolve(uri)

    def put_and_check() -> None:
        put(filesystem, path)
        arrived = filesystem.get_file_info(path).size
        if arrived != num_bytes:
            delete(uri)
            raise TruncatedTransfer(f"{arrived} of {num_bytes} bytes arrived")

    with_retry(put_and_check, uri, "written")


@contextlib.contextmanager
def _draft_folder(parent: Path | None = None, prefix: str | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _as_storage_errors(uri: str, action: str = "written", needed_bytes: int | None = None) -> Iterator[None]:
    """Raise an `OSError` of the block as an error of raysys."""
    try:
        yield
    except OSError as error:
        raise as_storage_error(error, uri, action, needed_bytes=needed_bytes) from error


@contextlib.contextmanager
def _full_disk_as_storage_error(uri: str) -> Iterator[None]:
    """The same, but only if a disk is full: other errors of a caller's block are passed on unchanged."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise as_storage_error(error, uri, "written") from error
        raise
