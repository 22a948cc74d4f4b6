"""What a catalogue is now, in a hash: what its rows say, and size and time of every photo they name."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from raysys import artifacts, storage
from raysys.artifacts import InputEntry
from raysys.config.schema import FolderCatalog, TableCatalog
from raysys.pack.catalog import CatalogRow, CatalogSource, empty_catalog

_ROWS_AT_ONCE = 2000


@dataclass(frozen=True)
class Counted:
    """The fingerprint of a catalogue and the number of its rows."""

    entry: InputEntry
    num_rows: int


def fingerprint(
    section: TableCatalog | FolderCatalog, sources: Sequence[CatalogSource], split_column: str | None = None
) -> Counted:
    """Read the rows once, some thousands at a time.

    Raises: InputError for a catalogue without rows, and what reading it raises.
    """
    digest, num_rows = hashlib.sha256(), 0
    for source in sources:
        rows, images = source.rows(section, split_column), storage.absolute(source.images)
        while chunk := list(itertools.islice(rows, _ROWS_AT_ONCE)):
            num_rows += len(chunk)
            digest.update(artifacts.canonical_json(list(_said(chunk, images))).encode())
    if not num_rows:
        raise empty_catalog(section)
    return Counted(InputEntry(uri=section.path, fingerprint=digest.hexdigest()), num_rows)


def _said(rows: Iterable[CatalogRow], images: str) -> Iterator[list[object]]:
    """What each row says; where the folder of the photos lies does not matter."""
    rows = list(rows)
    named = [row.image for row in rows if isinstance(row.image, str) and _has_time(row.image)]
    stats = dict(zip(named, storage.stat_files(named), strict=True))
    for row in rows:
        photo = (
            [row.image.removeprefix(images), *stats.get(row.image, ())]
            if isinstance(row.image, str)
            else [hashlib.sha256(row.image).hexdigest()]
        )
        yield [row.item_id, row.title, row.attributes, row.split, row.problem, photo]


def _has_time(uri: str) -> bool:
    """A photo on the web is not asked for before it is fetched."""
    return bool(uri) and not uri.startswith(("http://", "https://"))
