"""A part of the catalogue looked at: every row with its photo, down to what planning and writing need.

A part is some neighbouring rows of a source, cut the same way each time. Its facts are one Parquet file in
the scratch folder, written atomically: a part that is there is not looked at again. Photos that cannot be
read again as the same bytes cheaply (from the table, from the web, encoded anew) go to a file beside it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.columns import (
    ATTRIBUTES,
    DETAIL,
    ITEM_HASH,
    ITEM_ID,
    PHOTO_HASH,
    REASON,
    SOURCE,
    SPLIT,
    TITLE,
    item_hash,
)
from raysys.config.schema import PackConfig
from raysys.errors import MissingError, UnreadableImage
from raysys.pack.catalog import CatalogRow
from raysys.pack.photos import Photo, read_photo
from raysys.pack.splits import split_of
from raysys.pack.titles import clean_title

ID_HASH = "id_hash"  # 128 bits
PHOTO_SHA256 = "photo_sha256"
PHOTO_URI, PHOTO_OFFSET, PHOTO_BYTES = "photo_uri", "photo_offset", "photo_bytes"
TWIN = "twin"  # 128 bits of seller and title, null without a seller
TAR_BYTES = "tar_bytes"  # what the sample adds to a tar, about

FACTS = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (TITLE, pa.string()),
        (ATTRIBUTES, pa.string()),
        (SPLIT, pa.string()),  # null where only the group can tell
        (SOURCE, pa.string()),
        (REASON, pa.string()),  # why the row is refused, null where it is not
        (DETAIL, pa.string()),
        (ID_HASH, pa.binary(16)),
        (PHOTO_URI, pa.string()),
        (PHOTO_OFFSET, pa.int64()),
        (PHOTO_BYTES, pa.int64()),
        (PHOTO_SHA256, pa.binary(32)),
        (PHOTO_HASH, pa.binary(16)),
        (ITEM_HASH, pa.binary(32)),
        (TWIN, pa.binary(16)),
        (TAR_BYTES, pa.int64()),
    ]
)
ROWS_PER_PART = 1000
_BYTES_PER_PART = 64 << 20  # of photos that lie in the table itself
_FETCHED_AT_ONCE = 16  # remote photos: the wait is the network's
_TAR_BLOCK = 512


@dataclass(frozen=True)
class Part:
    """Neighbouring rows of one source."""

    source: int
    number: int
    rows: tuple[CatalogRow, ...] = field(repr=False)

    @property
    def stem(self) -> str:
        """The name of its files."""
        return f"part-{self.source:04d}-{self.number:06d}"


def cut(
    source: int,
    rows: Iterable[CatalogRow],
    done: Container[str] = (),
    rows_per_part: int = ROWS_PER_PART,
) -> Iterator[Part]:
    """The parts of a source that are not done yet; where they are cut depends on the rows alone."""
    taken: list[CatalogRow] = []
    number = num_bytes = 0
    for row in rows:
        taken.append(row)
        num_bytes += len(row.image) if isinstance(row.image, bytes) else 0
        if len(taken) == rows_per_part or num_bytes >= _BYTES_PER_PART:
            part = Part(source, number, tuple(taken))
            if part.stem not in done:
                yield part
            taken, number, num_bytes = [], number + 1, 0
    if taken and (part := Part(source, number, tuple(taken))).stem not in done:
        yield part


def survey(part: Part, *, section: PackConfig, folder: str) -> int:
    """Write the facts of a part into the scratch folder; the number of its rows."""
    with _scratch(storage.join(folder, f"{part.stem}.photos")) as keep:
        facts = [_fact(row, photo, section, keep) for row, photo in _photos(part.rows, section)]
    with storage.writable_file(storage.join(folder, f"{part.stem}.parquet")) as path:
        pq.write_table(pa.Table.from_pylist(facts, schema=FACTS), path)
    return len(part.rows)


def key_of_text(*parts: str) -> bytes:
    """128 bits of a hash of texts."""
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


Keep = Callable[[bytes], tuple[str, int]]  # writes a photo: where it now lies
Found = Photo | tuple[str, str]  # a photo, or why there is none: reason and detail


@contextlib.contextmanager
def _scratch(uri: str) -> Iterator[Keep]:
    """Write photos one behind the other into a file that is there when the block ends, if any came."""
    with contextlib.ExitStack() as stack:
        stream: IO[bytes] | None = None

        def keep(data: bytes) -> tuple[str, int]:
            nonlocal stream
            if stream is None:
                path = stack.enter_context(storage.writable_file(uri))
                stream = stack.enter_context(path.open("wb"))
            offset = stream.tell()
            stream.write(data)
            return uri, offset

        yield keep


def _photos(rows: tuple[CatalogRow, ...], section: PackConfig) -> Iterator[tuple[CatalogRow, Found]]:
    """Every row with its photo, in order; a few at a time are in memory."""
    look = partial(_look, section=section)
    if not any(isinstance(row.image, str) and not storage.is_local(row.image) for row in rows):
        yield from ((row, look(row)) for row in rows)
        return
    with ThreadPoolExecutor(_FETCHED_AT_ONCE) as pool:
        remaining = iter(rows)
        while chunk := list(itertools.islice(remaining, _FETCHED_AT_ONCE)):
            yield from zip(chunk, pool.map(look, chunk), strict=True)


def _look(row: CatalogRow, section: PackConfig) -> Found:
    if row.problem:
        return row.problem
    if not row.item_id:
        return "no_id", "the row has no item id"
    if not clean_title(row.title):
        return "no_title", "the title is empty"
    if not row.image:
        return "no_image", "the row names no photo"
    try:
        return read_photo(row.image, section)
    except UnreadableImage as error:
        return error.reason, str(error)
    except MissingError as error:
        return "missing_image", str(error)


def _fact(row: CatalogRow, found: Found, section: PackConfig, keep: Keep) -> dict[str, Any]:
    said = {
        ITEM_ID: row.item_id,
        SOURCE: row.source,
        ID_HASH: key_of_text(row.item_id),
        # A row that cannot be read may lack what decides its split: its refusal stands with the train split.
        SPLIT: "train"
        if row.problem
        else split_of(row.item_id, row.attributes, row.split, row.source, section.split),
    }
    if not isinstance(found, Photo):
        return {**said, REASON: found[0], DETAIL: found[1]}
    title, attributes = clean_title(row.title), artifacts.canonical_json(row.attributes)
    is_cheap = found.is_original and isinstance(row.image, str) and not row.image.startswith("http")
    uri, offset = (str(row.image), 0) if is_cheap else keep(found.data)
    photo = hashlib.sha256(found.data).digest()
    seller = row.attributes.get(section.duplicates.seller or "")
    text_bytes = 2 * len(row.item_id.encode()) + len(title.encode()) + len(attributes.encode()) + 60
    return {
        **said,
        TITLE: title,
        ATTRIBUTES: attributes,
        PHOTO_URI: uri,
        PHOTO_OFFSET: offset,
        PHOTO_BYTES: len(found.data),
        PHOTO_SHA256: photo,
        PHOTO_HASH: found.perceptual_hash,
        ITEM_HASH: item_hash(photo, title, attributes),
        TWIN: None if seller is None else key_of_text(str(seller), title),
        TAR_BYTES: _in_tar(len(found.data)) + _in_tar(text_bytes),
    }


def _in_tar(num_bytes: int) -> int:
    return _TAR_BLOCK + -(-num_bytes // _TAR_BLOCK) * _TAR_BLOCK
