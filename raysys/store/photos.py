"""Photos of changed items, as files named by their content."""

from __future__ import annotations

from raysys import storage
from raysys.store.changes import PhotoFile

FOLDER = "photos"


def keep_photo(root: str, photo: bytes) -> PhotoFile:
    """Write an encoded photo to `<root>/photos/<first two hex digits>/<SHA-256>`, atomically and durably.

    Equal photos are one file. An existing file is written again: another writer may not have flushed it yet.
    Raises: StorageError, InputError if the place cannot be written.
    """
    digest = storage.sha256_of_bytes(photo)
    uri = storage.join(storage.absolute(root), FOLDER, digest[:2], digest)
    storage.write_bytes(uri, photo)
    return PhotoFile(uri, len(photo))
