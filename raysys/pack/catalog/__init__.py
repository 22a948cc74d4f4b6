"""Readers of a user's catalogue: `open_catalog` lists, counts and hashes it, `CatalogFile` streams its rows.

A row that cannot be used carries a `Refusal` and does not stop the reader. An error of the complete
catalogue (no file, a missing column, a file that is not text) is an InputError.
"""

from raysys.pack.catalog.files import CatalogFile, catalog_files
from raysys.pack.catalog.fingerprint import Catalog, open_catalog
from raysys.pack.catalog.raw_rows import Refusal
from raysys.pack.catalog.rows import CatalogRow

__all__ = ["Catalog", "CatalogFile", "CatalogRow", "Refusal", "catalog_files", "open_catalog"]
