"""A whole catalogue in memory, for tests of small ones."""

from __future__ import annotations

from raysys.config.schema import FolderCatalog, TableCatalog
from raysys.pack.catalog import CatalogRow, empty_catalog, sources


def read_catalog(section: TableCatalog | FolderCatalog, split_column: str | None = None) -> list[CatalogRow]:
    """All rows of all sources, in order; without any the error that packing raises."""
    rows = [row for source in sources(section) for row in source.rows(section, split_column)]
    if not rows:
        raise empty_catalog(section)
    return rows
