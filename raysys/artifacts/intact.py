"""Read the files of an artifact: damaged content is an error of one line with the file and the remedy.

`open_artifact` compares sizes only. A file that is read completely (a table, an index) is first compared with
the SHA-256 in its manifest: a flipped bit may leave a file readable, and FAISS does not check what it reads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import storage
from raysys.artifacts.directory import files_uri, make_again, read_manifest
from raysys.artifacts.manifest import Manifest
from raysys.errors import DamagedData, InputError, MissingError, RaysysError, SpaceMismatch


@contextlib.contextmanager
def intact_file(uri: str, name: str, manifest: Manifest) -> Iterator[Path]:
    """A local path with the file `name` of the artifact at `uri`, for a block that only reads it.

    Raises: DamagedData if its SHA-256 differs from the manifest, or the block cannot read it.
    """
    with storage.readable_file(storage.join(files_uri(uri, manifest), name)) as path:
        if storage.sha256_of(str(path))[1] != manifest.files[name].sha256:
            raise _differs(uri, name, manifest)
        with damage_named(uri, type(manifest), [name]):
            yield path


def read_table(uri: str, name: str, manifest: Manifest, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file of the artifact at `uri`. Raises: as `intact_file`."""
    with intact_file(uri, name, manifest) as path, pq.ParquetFile(path) as file:
        return file.read(columns=columns)


def require_intact(uri: str, manifest: Manifest, names: Iterable[str] | None = None) -> None:
    """Check files of an artifact, all by default. Raises: DamagedData if one is missing or differs."""
    for name in manifest.files if names is None else names:
        file_uri = storage.join(files_uri(uri, manifest), name)
        try:
            _, sha256 = storage.sha256_of(file_uri)
        except MissingError as error:
            raise DamagedData(f"{file_uri}: no such file any more; {make_again(uri, manifest)}") from error
        if sha256 != manifest.files[name].sha256:
            raise _differs(uri, name, manifest)


@contextlib.contextmanager
def damage_named(uri: str, kind: type[Manifest], names: Sequence[str] = ()) -> Iterator[None]:
    """Name the damaged file if a block fails that only reads the files `names` (or all) of an artifact.

    Errors of raysys are passed on, unless a file is damaged and so may have caused an InputError.
    Raises: DamagedData; SpaceMismatch stays one, with the name of the file.
    """
    try:
        yield
    except MemoryError:
        raise
    except SpaceMismatch as error:
        if damage := _damage(uri, kind, names):
            raise SpaceMismatch(f"{str(error).split(';')[0]}; {damage}") from error
        raise
    except InputError as error:
        if damage := _damage(uri, kind, names):
            raise damage from error
        raise
    except RaysysError:
        raise
    except Exception as error:  # Arrow, FAISS, safetensors and transformers have no error in common
        if damage := _damage(uri, kind, names):
            raise damage from error
        where = storage.join(uri, names[0]) if len(names) == 1 else uri
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        if _is_listed(uri, kind, names):
            reason += "; its SHA-256 equals the manifest"
        raise DamagedData(f"{where}: cannot be read ({reason}); {make_again(uri, kind)}") from error


def _damage(uri: str, kind: type[Manifest], names: Sequence[str]) -> DamagedData | None:
    """The error for the first file that differs from the manifest; None if there is no such file."""
    manifest = read_manifest(uri, kind)
    if manifest is None:
        return None
    try:
        require_intact(uri, manifest, [name for name in names if name in manifest.files] if names else None)
    except DamagedData as damage:
        return damage
    return None


def _is_listed(uri: str, kind: type[Manifest], names: Sequence[str]) -> bool:
    """Whether the manifest of an artifact, if there is one, has the hashes of all these files."""
    manifest = read_manifest(uri, kind)
    return manifest is not None and set(names) <= set(manifest.files)


def _differs(uri: str, name: str, manifest: Manifest) -> DamagedData:
    file_uri, remedy = storage.join(files_uri(uri, manifest), name), make_again(uri, manifest)
    return DamagedData(f"{file_uri}: damaged, its SHA-256 differs from the manifest; {remedy}")
