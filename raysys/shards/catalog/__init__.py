"""Rows of anybody's catalogue: `sources` names its files, `CatalogSource.rows` streams one of them.

A row that cannot be used as it is says so (`CatalogRow.problem`) and stops nobody; what is wrong with the
catalogue as a whole (no file, no such column, not UTF-8) is an InputError.
"""

from __future__ import annotations

import hashlib

from raysys import storage
from raysys.artifacts import InputEntry
from raysys.config.schema import FolderCatalog, TableCatalog
from raysys.errors import InputError
from raysys.shards.catalog.rows import CatalogRow
from raysys.shards.catalog.sources import CatalogSource, sources

__all__ = ["CatalogRow", "CatalogSource", "empty_catalog", "fingerprint_catalog", "read_catalog", "sources"]


def read_catalog(section: TableCatalog | FolderCatalog, split_column: str | None = None) -> list[CatalogRow]:
    """All rows in order, in memory.

    Raises: MissingError without the file, InputError for a missing column, a damaged or an empty table.
    """
    rows = [row for source in sources(section) for row in source.rows(section, split_column)]
    if not rows:
        raise empty_catalog(section)
    return rows


def empty_catalog(section: TableCatalog | FolderCatalog) -> InputError:
    """The error of a catalogue whose sources have no row at all."""
    return InputError(f"{section.path}: the catalogue is empty; it needs at least one row")


def fingerprint_catalog(section: TableCatalog | FolderCatalog, rows: list[CatalogRow]) -> InputEntry:
    """What the catalogue is now: the bytes of its tables, and size and time of every stored photo."""
    digest = hashlib.sha256()
    for source in sources(section):
        digest.update(storage.sha256_of(source.uri)[1].encode())
    named = [row.image for row in rows if isinstance(row.image, str)]
    stored = [uri for uri in named if not uri.startswith(("http://", "https://"))]
    for size, modified_ns in storage.stat_files(stored):
        digest.update(f"{size} {modified_ns}".encode())
    return InputEntry(uri=section.path, fingerprint=digest.hexdigest())
