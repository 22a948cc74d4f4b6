"""Places: one way to read, write and list, whether a URI is a local path, `s3://` or `gs://`.

It is pyarrow's filesystems with three habits added: writes are atomic (a temporary name and a
rename on a local disk; a PUT is atomic by itself on object stores), paths are joined as text, and
a missing file is a `MissingError` that says where it was looked for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs

from raysys.errors import InputError, MissingError, NoSpace

_CHUNK_BYTES = 1 << 20
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path inside it; local paths are made absolute."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(uri))
    try:
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{uri}: not a place that can be opened ({error}); use a path, s3:// or gs://"
        ) from error
    return filesystem, path


def is_local(uri: str) -> bool:
    """Whether the URI lies on a disk of this machine."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """The URI as every process understands it: a local path from the root of the disk on."""
    return str(local_path(uri)) if is_local(uri) else uri


def local_path(uri: str) -> Path:
    """The local path of a local URI."""
    if not is_local(uri):
        raise InputError(f"{uri}: a local path is needed here")
    return Path(resolve(uri)[1])


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`, without doubling slashes."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(uri: str) -> bool:
    """Whether a file or a folder is there."""
    filesystem, path = resolve(uri)
    return bool(filesystem.get_file_info(path).type != pafs.FileType.NotFound)


def list_files(uri: str) -> dict[str, int]:
    """Every file below a folder: path relative to it -> size in bytes, sorted; empty if absent.

    Names that begin with a dot are left out: what a writer that was killed left behind is no file.
    """
    filesystem, path = resolve(uri)
    selector = pafs.FileSelector(path, recursive=True, allow_not_found=True)
    files = (info for info in filesystem.get_file_info(selector) if info.type == pafs.FileType.File)
    sizes = {info.path[len(path.rstrip("/")) + 1 :]: info.size for info in files}
    return {name: sizes[name] for name in sorted(sizes) if "/." not in f"/{name}"}


def stat_files(uris: list[str]) -> list[tuple[int, int]]:
    """Size in bytes and time of change in ns of files, in order; (-1, 0) for one that is absent."""
    stats: dict[str, tuple[int, int]] = {}
    for _, group in itertools.groupby(
        sorted(set(uris)), key=lambda uri: uri.split("://")[0] if "://" in uri else ""
    ):
        members = list(group)
        filesystem = resolve(members[0])[0]
        infos = filesystem.get_file_info([resolve(uri)[1] for uri in members])
        for uri, info in zip(members, infos, strict=True):
            present = info.type == pafs.FileType.File
            stats[uri] = (int(info.size), int(info.mtime_ns or 0)) if present else (-1, 0)
    return [stats[uri] for uri in uris]


def open_input(uri: str) -> pa.NativeFile:
    """A readable, seekable file; the caller closes it."""
    filesystem, path = resolve(uri)
    try:
        return filesystem.open_input_file(path)
    except FileNotFoundError as error:
        raise MissingError(f"{uri}: no such file; check the path") from error


def read_bytes(uri: str) -> bytes:
    """The whole file."""
    with open_input(uri) as stream:
        return bytes(stream.read())


def read_range(uri: str, offset: int, num_bytes: int) -> bytes:
    """`num_bytes` from `offset`, as one ranged read."""
    with open_input(uri) as stream:
        return bytes(stream.read_at(num_bytes, offset))


def write_bytes(uri: str, data: bytes, *, durable: bool = True) -> None:
    """Write a file so that a reader sees all of it or nothing; `durable` also survives a power cut."""
    if is_local(uri):
        with _room_for(uri):
            _write_local(local_path(uri), data, durable)
        return
    filesystem, path = resolve(uri)
    with filesystem.open_output_stream(path) as stream:
        stream.write(data)


def delete(uri: str) -> None:
    """Remove a file or a folder with all in it; nothing happens if it is absent."""
    filesystem, path = resolve(uri)
    kind = filesystem.get_file_info(path).type
    if kind == pafs.FileType.Directory:
        filesystem.delete_dir(path)
    elif kind == pafs.FileType.File:
        filesystem.delete_file(path)


def list_folders(uri: str) -> list[str]:
    """The names of the folders in a folder, also those that begin with a dot, sorted."""
    filesystem, path = resolve(uri)
    infos = filesystem.get_file_info(pafs.FileSelector(path, allow_not_found=True))
    return sorted(info.base_name for info in infos if info.type == pafs.FileType.Directory)


def create_folder(uri: str) -> None:
    """Make sure that a folder is there; object stores need none."""
    if is_local(uri):
        local_path(uri).mkdir(parents=True, exist_ok=True)


def delete_drafts(uri: str) -> None:
    """Remove what killed writers left in a folder; nobody may be writing there."""
    for name in list_folders(uri):
        if name.startswith("."):
            delete(join(uri, name))


@contextlib.contextmanager
def writable_file(uri: str) -> Iterator[Path]:
    """A local path to write to, which becomes `uri` when the block ends without an error."""
    if is_local(uri):
        target = local_path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            _room_for(uri),
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder,
        ):
            yield Path(folder) / target.name
            _flush_to_disk(Path(folder) / target.name)
            os.replace(Path(folder) / target.name, target)
        return
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / uri.rsplit("/", 1)[-1]
        yield draft
        _upload(draft, uri)


@contextlib.contextmanager
def readable_folder(uri: str) -> Iterator[Path]:
    """A local path that holds what `uri` holds: itself when local, else a copy for the block's time."""
    if is_local(uri):
        yield local_path(uri)
        return
    with tempfile.TemporaryDirectory() as folder:
        filesystem, path = resolve(uri)
        pafs.copy_files(path, folder, source_filesystem=filesystem)
        yield Path(folder)


def upload_folder(source: Path, uri: str) -> None:
    """Copy the files of a local folder to a URI, each of them atomically."""
    for path in sorted(source.rglob("*")):
        if path.is_file():
            with writable_file(join(uri, path.relative_to(source).as_posix())) as draft:
                shutil.copyfile(path, draft)


def sha256_of(uri: str) -> tuple[int, str]:
    """Size in bytes and SHA-256 (hex) of a file, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with open_input(uri) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()


def sha256_of_bytes(data: bytes) -> str:
    """SHA-256 (hex) of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


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


@contextlib.contextmanager
def _room_for(uri: str) -> Iterator[None]:
    """Raises: NoSpace instead of the operating system's error."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_SPACE:
            raise NoSpace(
                f"{uri}: no room to write it ({os.strerror(error.errno)}); "
                "make room, and the same command continues where it was"
            ) from error
        raise


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _upload(source: Path, uri: str) -> None:
    filesystem, path = resolve(uri)
    with source.open("rb") as reader, filesystem.open_output_stream(path) as writer:
        shutil.copyfileobj(reader, writer, _CHUNK_BYTES)
