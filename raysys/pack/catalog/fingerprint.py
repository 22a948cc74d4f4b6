"""`Catalog`: an opened catalogue with its number of rows and the fingerprint of its content.

The fingerprint covers the values of all rows, and size and modification time of every photo file they name.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from raysys import artifacts, storage
from raysys.artifacts import InputEntry
from raysys.config.schema import (
    AttributeSplit,
    ColumnSplit,
    FolderCatalog,
    GroupSplit,
    TableCatalog,
    TimeSplit,
)
from raysys.errors import InputError
from raysys.pack.catalog.files import CatalogFile, catalog_files
from raysys.pack.catalog.listing import UnnamedPhotos
from raysys.pack.catalog.rows import CatalogRow
from raysys.pack.photo_uris import stat_photos

_BATCH_ROWS = 2000


@dataclass(frozen=True)
class Catalog:
    """The input of a pack."""

    section: TableCatalog | FolderCatalog
    split_column: str | None
    files: Sequence[CatalogFile]
    num_rows: int
    entry: InputEntry
    """Path and fingerprint, as the manifests record them."""


def open_catalog(
    section: TableCatalog | FolderCatalog, split: ColumnSplit | AttributeSplit | GroupSplit | TimeSplit
) -> Catalog:
    """List the files and read all rows once, in batches, to count and hash them. Photos are not read.

    Raises: InputError for a catalogue without rows; the errors of reading it.
    """
    files = catalog_files(section)
    split_column = split.column if isinstance(split, ColumnSplit) else None
    digest, num_rows = hashlib.sha256(), 0
    unnamed = UnnamedPhotos(section.path) if isinstance(section, FolderCatalog) else None
    for file in files:
        rows, photo_folder = file.rows(section, split_column), storage.absolute(file.photo_folder)
        while batch := list(itertools.islice(rows, _BATCH_ROWS)):
            num_rows += len(batch)
            if unnamed:
                unnamed.remove(row.photo for row in batch)
            digest.update(artifacts.canonical_json(list(_contents(batch, photo_folder))).encode())
    if unnamed:
        unnamed.report()
    if not num_rows:
        raise InputError(f"{section.path}: the catalogue is empty; it needs at least one row")
    entry = InputEntry(uri=section.path, fingerprint=digest.hexdigest())
    return Catalog(section, split_column, files, num_rows, entry)


def _contents(rows: Iterable[CatalogRow], photo_folder: str) -> Iterator[list[object]]:
    """The hashed values of each row. The location of the photo folder does not count."""
    rows = list(rows)
    # Photos on the web have no modification time: no request is sent before they are fetched.
    stats = stat_photos(row.photo for row in rows if isinstance(row.photo, str))
    for row in rows:
        photo = (
            [row.photo.removeprefix(photo_folder), *stats.get(row.photo, ())]
            if isinstance(row.photo, str)
            else [hashlib.sha256(row.photo).hexdigest()]
        )
        yield [row.item_id, row.title, row.attributes, row.split, row.refusal, photo]
