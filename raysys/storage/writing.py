"""Writing and removing: a reader sees all of a file or nothing, whatever happens half way.

On a local disk that is a temporary name and a rename. On an object store an upload becomes visible only
when its last request succeeds; it is repeated as a whole, and its size is looked up at the end. pyarrow
has no call that aborts an upload in parts: the parts of one that failed are no object, and stay until the
bucket's lifecycle rule for incomplete uploads removes them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.fs as pafs

from raysys.storage import uri as uris
from raysys.storage.reading import list_folders
from raysys.storage.retry import CutShort, is_full, told, with_retry


def write_bytes(uri: str, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader sees all of it or nothing; `durable` also survives a power cut."""
    if uris.is_local(uri):
        with _saying(uri):
            _write_local(uris.local_path(uri), data, durable)
        return

    def put(filesystem: pafs.FileSystem, path: str) -> None:
        with filesystem.open_output_stream(path) as stream:
            stream.write(data)

    _upload(uri, len(data), put)


def create_folder(uri: str) -> None:
    """Make sure that a folder is there; object stores need none."""
    if uris.is_local(uri):
        with _saying(uri):
            uris.local_path(uri).mkdir(parents=True, exist_ok=True)


def delete_drafts(uri: str) -> None:
    """Remove what killed writers left in a folder; nobody may be writing there."""
    for name in list_folders(uri):
        if name.startswith("."):
            delete(uris.join(uri, name))


def delete(uri: str) -> None:
    """Remove a file or a folder with all in it; nothing happens if it is absent."""
    filesystem, path = uris.resolve(uri)

    def remove() -> None:
        kind = filesystem.get_file_info(path).type
        with contextlib.suppress(FileNotFoundError):  # the try before this one went further than it said
            if kind == pafs.FileType.Directory:
                filesystem.delete_dir(path)
            elif kind == pafs.FileType.File:
                filesystem.delete_file(path)

    with_retry(remove, uri, "removed")


@contextlib.contextmanager
def writable_file(uri: str) -> Iterator[Path]:
    """A local path to write to, which becomes `uri` when the block ends without an error."""
    if uris.is_local(uri):
        target = uris.local_path(uri)
        with _saying(uri):
            target.parent.mkdir(parents=True, exist_ok=True)
        with _full_disk_told(uri), _draft_folder(target.parent, f".{target.name}.") as folder:
            yield folder / target.name
            with _saying(uri):
                _flush_to_disk(folder / target.name)
                os.replace(folder / target.name, target)
                _flush_to_disk(target.parent)
        return
    with _full_disk_told(tempfile.gettempdir()), _draft_folder() as folder:
        draft = folder / uri.rsplit("/", 1)[-1]
        yield draft
        _upload_file(draft, uri)


def upload_folder(source: Path, uri: str) -> None:
    """Copy the files of a local folder to a URI, each of them atomically."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            with writable_file(uris.join(uri, path.relative_to(source).as_posix())) as draft:
                shutil.copyfile(path, draft)


def _write_local(target: Path, data: bytes, durable: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if durable:  # a flush to disk costs milliseconds: thousands of small photos go without
                os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    if durable:
        _flush_to_disk(target.parent)  # the name, too, is only then sure to be there after a power cut


def _flush_to_disk(path: Path) -> None:
    """Flush a file's content, or a folder's names."""
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
    """Upload until an object of `num_bytes` is there; what is there and shorter is taken away."""
    filesystem, path = uris.resolve(uri)

    def once() -> None:
        put(filesystem, path)
        arrived = filesystem.get_file_info(path).size
        if arrived != num_bytes:
            delete(uri)
            raise CutShort(f"{arrived} of {num_bytes} bytes arrived")

    with_retry(once, uri, "written")


@contextlib.contextmanager
def _draft_folder(parent: Path | None = None, prefix: str | None = None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=parent, prefix=prefix) as folder:
        yield Path(folder)


@contextlib.contextmanager
def _saying(uri: str) -> Iterator[None]:
    """An error of the disk as one line of ours."""
    try:
        yield
    except OSError as error:
        raise told(error, uri, "written") from error


@contextlib.contextmanager
def _full_disk_told(place: str) -> Iterator[None]:
    """The same for the block of a caller, whose other errors are its own."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise told(error, place, "written") from error
        raise
