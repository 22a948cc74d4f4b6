"""Rows of anybody's catalogue: `sources` names its files, `CatalogSource.rows` streams one of them.

A row that cannot be used as it is says so (`CatalogRow.problem`) and stops nobody; what is wrong with the
catalogue as a whole (no file, no such column, not UTF-8) is an InputError.
"""

from __future__ import annotations

from raysys.config.schema import FolderCatalog, TableCatalog
from raysys.errors import InputError
from raysys.pack.catalog.rows import CatalogRow
from raysys.pack.catalog.sources import CatalogSource, sources

__all__ = ["CatalogRow", "CatalogSource", "empty_catalog", "sources"]


def empty_catalog(section: TableCatalog | FolderCatalog) -> InputError:
    """The error of a catalogue whose sources have no row at all."""
    return InputError(f"{section.path}: the catalogue is empty; it needs at least one row")
