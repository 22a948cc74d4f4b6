"""Reads a small catalogue into memory."""

from __future__ import annotations

from raysys.config.schema import FolderCatalog, TableCatalog
from raysys.pack.catalog import CatalogRow, catalog_files


def read_catalog(section: TableCatalog | FolderCatalog, split_column: str | None = None) -> list[CatalogRow]:
    """All rows of all files, in order."""
    return [row for file in catalog_files(section) for row in file.rows(section, split_column)]
