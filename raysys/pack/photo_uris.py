"""Which cells can be the address of a photo, checked before anything is asked of a file system or a host.

A cell of a catalogue may hold anything. A check here costs its row; the same cell in a batch of look-ups
would fail the batch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from raysys import storage
from raysys.errors import InputError, RaysysError

UNREACHABLE = "unreachable"  # the reason of a refused photo that may be had another time
_STORED_SCHEMES = ("file", "s3", "gs", "gcs")
_MAX_NAME_BYTES, _MAX_PATH_BYTES = 255, 4095  # of Linux; object stores allow keys of 1,024 bytes
_DATA_URI = re.compile(r"(^|/)data:[\w.+-]+/[\w.+-]+[;,]")


def is_on_the_web(uri: str) -> bool:
    """Whether a photo is fetched over HTTP. Schemes have no case (RFC 3986)."""
    return uri[:8].lower().startswith(("http://", "https://"))


def fault_of(uri: str) -> str | None:
    """Why no file can be at this address, with the remedy; None if one can."""
    if _DATA_URI.search(uri[:5000]):
        return "a data URI is not an address; store the photos as files, or as bytes in a Parquet table"
    if "\0" in uri:
        return "contains a NUL character; correct the cell"
    if is_on_the_web(uri):
        return None
    scheme, separator, location = uri.partition("://")
    if separator and scheme not in _STORED_SCHEMES:
        return "its scheme is unknown; use a path, s3://, gs:// or https://"
    if separator and scheme != "file":
        bucket, _, key = location.partition("/")
        return None if bucket and key.strip("/") else "it names no bucket and file; correct the cell"
    return _local_fault(uri)


def stat_photos(uris: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Size and modification time of each stored photo; (-1, 0) for one that is absent or cannot be looked up.

    Raises: StorageError if an object store fails: a fingerprint without its photos would be another one.
    """
    by_place: dict[str, list[str]] = {}
    for uri in dict.fromkeys(uris):
        if uri and not is_on_the_web(uri) and fault_of(uri) is None:
            place = "" if storage.is_local(uri) else uri[: uri.find("/", uri.find("://") + 3)]
            by_place.setdefault(place, []).append(uri)
    stats: dict[str, tuple[int, int]] = {}
    for group in by_place.values():
        try:
            stats |= zip(group, storage.stat_files(group), strict=True)
        except (RaysysError, ValueError):  # one of them: look up each on its own
            stats |= {uri: _stat(uri) for uri in group}
    return stats


def _stat(uri: str) -> tuple[int, int]:
    try:
        return storage.stat_files([uri])[0]
    except RaysysError as error:
        if storage.is_local(uri) or isinstance(error, InputError):
            return (-1, 0)
        raise
    except ValueError:  # of Arrow: a path that its file system does not accept
        return (-1, 0)


def _local_fault(uri: str) -> str | None:
    try:
        path = str(storage.local_path(uri)).encode(errors="surrogateescape")
    except InputError:
        return "not a valid file:// URI; write a path, or encode spaces as %20"
    if len(path) > _MAX_PATH_BYTES or max(map(len, path.split(b"/"))) > _MAX_NAME_BYTES:
        return (
            f"a name of more than {_MAX_NAME_BYTES} bytes, or a path of {_MAX_PATH_BYTES}; correct the cell"
        )
    return None
