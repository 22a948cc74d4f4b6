"""The scan: reads every row of a part with its photo, and writes the values that planning and writing need.

A part is a run of consecutive rows of one file, cut at the same rows every time. Its scanned rows are one
Parquet file in the scratch folder, written atomically: a part with a file is not scanned again. Photos whose
bytes cannot be read again cheaply (from the table, from the web, re-encoded) go to a second file.
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
import pyarrow.compute as pc
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
from raysys.errors import REASON_LENGTH, MissingError, UnreadableImage, unforeseen_at
from raysys.pack.catalog import CatalogRow, Refusal
from raysys.pack.photo_uris import UNREACHABLE, is_on_the_web
from raysys.pack.photos import Photo, read_photo
from raysys.pack.splits import split_of
from raysys.pack.titles import clean_title
from raysys.terminal import printable

ID_HASH = "id_hash"
PHOTO_SHA256 = "photo_sha256"
PHOTO_URI, PHOTO_OFFSET, PHOTO_BYTES = "photo_uri", "photo_offset", "photo_bytes"
SELLER_TITLE_HASH = "seller_title_hash"
TAR_BYTES = "tar_bytes"

SCAN_SCHEMA = pa.schema(
    [
        (ITEM_ID, pa.string()),
        (TITLE, pa.string()),
        (ATTRIBUTES, pa.string()),
        (SPLIT, pa.string()),  # null where the group decides
        (SOURCE, pa.string()),
        (REASON, pa.string()),  # null for a usable row; a refused one has no photo columns
        (DETAIL, pa.string()),
        (ID_HASH, pa.binary(16)),
        (PHOTO_URI, pa.string()),
        (PHOTO_OFFSET, pa.int64()),
        (PHOTO_BYTES, pa.int64()),
        (PHOTO_SHA256, pa.binary(32)),
        (PHOTO_HASH, pa.binary(16)),  # null for a photo of one colour
        (ITEM_HASH, pa.binary(32)),
        (SELLER_TITLE_HASH, pa.binary(16)),  # null without a seller
        (TAR_BYTES, pa.int64()),  # approximate size of the sample in a tar
    ]
)
ROWS_PER_PART = 1000
_PHOTO_BYTES_PER_PART = 64 << 20  # of photos that the table itself holds
_CONCURRENT_FETCHES = 16  # of remote photos: the time goes to network latency, not to the CPU
_TAR_BLOCK = 512


@dataclass(frozen=True)
class Part:
    """Consecutive rows of one file of the catalogue."""

    file_number: int
    number: int
    rows: tuple[CatalogRow, ...] = field(repr=False)

    @property
    def stem(self) -> str:
        """The name of its files in the scratch folder, without extension."""
        return f"part-{self.file_number:04d}-{self.number:06d}"


def cut_parts(
    file_number: int,
    rows: Iterable[CatalogRow],
    done: Container[str] = (),
    rows_per_part: int = ROWS_PER_PART,
) -> Iterator[Part]:
    """Yield the parts of a file whose stems are not in `done`; the boundaries depend on the rows alone."""
    buffer: list[CatalogRow] = []
    number = num_bytes = 0
    for row in rows:
        buffer.append(row)
        num_bytes += len(row.photo) if isinstance(row.photo, bytes) else 0
        if len(buffer) == rows_per_part or num_bytes >= _PHOTO_BYTES_PER_PART:
            part = Part(file_number, number, tuple(buffer))
            if part.stem not in done:
                yield part
            buffer, number, num_bytes = [], number + 1, 0
    if buffer and (part := Part(file_number, number, tuple(buffer))).stem not in done:
        yield part


def scan(part: Part, *, section: PackConfig, folder: str) -> int:
    """Write the scanned rows of a part into the scratch folder. Returns their number.

    Of a part that was scanned before, only the rows whose photo was `unreachable` are checked again.
    """
    where = f"{part.rows[0].source} to {part.rows[-1].source}"
    with unforeseen_at(where):
        uri = storage.join(folder, f"{part.stem}.parquet")
        kept = _kept_rows(uri, part)
        missing = tuple(row for row, done in zip(part.rows, kept, strict=True) if done is None)
        is_retry = len(missing) < len(part.rows)
        with _photo_file(_photo_uri(folder, part.stem, is_retry=is_retry)) as append:
            scanned = (_scan_row(row, photo, section, append) for row, photo in _photos(missing, section))
            rows = [next(scanned) if done is None else done for done in kept]
        with storage.writable_file(uri) as path:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCAN_SCHEMA), path)
    return len(part.rows)


def has_unreachable(uri: str) -> bool:
    """Whether a scanned part has rows that were refused for a reason that may have passed since."""
    with storage.open_input(uri) as stream:
        reasons = pq.read_table(stream, columns=[REASON]).column(REASON)
    return bool(pc.any(pc.equal(reasons, UNREACHABLE)).as_py())


def hash_of_text(*parts: str) -> bytes:
    """The first 128 bits of a SHA-256 over texts."""
    return hashlib.sha256("\0".join(parts).encode()).digest()[:16]


def _kept_rows(uri: str, part: Part) -> list[dict[str, Any] | None]:
    """The rows of an earlier scan of this part; None for each row that is to be scanned (again)."""
    if not storage.exists(uri):
        return [None] * len(part.rows)
    with storage.open_input(uri) as stream:
        rows = pq.read_table(stream).to_pylist()
    return [None if row[REASON] == UNREACHABLE else row for row in rows]


def _photo_uri(folder: str, stem: str, *, is_retry: bool) -> str:
    """The file for the photos of a part; a retry has a file of its own, because rows refer to the first."""
    if not is_retry:
        return storage.join(folder, f"{stem}.photos")
    names = (storage.join(folder, f"{stem}.photos-{number}") for number in itertools.count(1))
    return next(uri for uri in names if not storage.exists(uri))


AppendPhoto = Callable[[bytes], tuple[str, int]]  # returns the photo's URI and offset


@contextlib.contextmanager
def _photo_file(uri: str) -> Iterator[AppendPhoto]:
    """Append photos to one file; it is created with the first photo and complete when the block ends."""
    with contextlib.ExitStack() as stack:
        stream: IO[bytes] | None = None

        def append(data: bytes) -> tuple[str, int]:
            nonlocal stream
            if stream is None:
                path = stack.enter_context(storage.writable_file(uri))
                stream = stack.enter_context(path.open("wb"))
            offset = stream.tell()
            stream.write(data)
            return uri, offset

        yield append


def _photos(
    rows: tuple[CatalogRow, ...], section: PackConfig
) -> Iterator[tuple[CatalogRow, Photo | Refusal]]:
    """Each row with its photo, in order, with at most `_CONCURRENT_FETCHES` photos in memory."""
    check = partial(_check_row, section=section)
    if not any(isinstance(row.photo, str) and not storage.is_local(row.photo) for row in rows):
        yield from ((row, check(row)) for row in rows)
        return
    with ThreadPoolExecutor(_CONCURRENT_FETCHES) as pool:
        remaining = iter(rows)
        while chunk := list(itertools.islice(remaining, _CONCURRENT_FETCHES)):
            yield from zip(chunk, pool.map(check, chunk), strict=True)


def _check_row(row: CatalogRow, section: PackConfig) -> Photo | Refusal:
    """The photo of a usable row, or the reason why the row is refused."""
    if row.refusal:
        return row.refusal
    if not row.item_id:
        return Refusal("no_id", "the row has no item id")
    if not clean_title(row.title):
        return Refusal("no_title", "the title is empty")
    if not row.photo:
        return Refusal("no_image", "the row names no photo")
    try:
        return read_photo(row.photo, section)
    except UnreadableImage as error:
        return Refusal(error.reason, str(error))
    except MissingError as error:
        return Refusal("missing_image", str(error))
    except MemoryError:
        raise
    except Exception as error:  # what libraries raise for crafted bytes or addresses is no closed set
        return Refusal("damaged", f"the photo cannot be used ({type(error).__name__}: {error})")


def _scan_row(
    row: CatalogRow, photo: Photo | Refusal, section: PackConfig, append: AppendPhoto
) -> dict[str, Any]:
    columns = {
        ITEM_ID: row.item_id,
        SOURCE: row.source,
        ID_HASH: hash_of_text(row.item_id),
        # A row that could not be read may lack the value that decides its split: the train ledger lists it.
        SPLIT: "train"
        if row.refusal
        else split_of(row.item_id, row.attributes, row.split, row.source, section.split),
    }
    if isinstance(photo, Refusal):
        return {**columns, REASON: photo.reason, DETAIL: printable(photo.detail, REASON_LENGTH)}
    title, attributes = clean_title(row.title), artifacts.canonical_json(row.attributes)
    is_rereadable = photo.is_original and isinstance(row.photo, str) and not is_on_the_web(row.photo)
    uri, offset = (str(row.photo), 0) if is_rereadable else append(photo.data)
    photo_sha256 = hashlib.sha256(photo.data).digest()
    seller = row.attributes.get(section.duplicates.seller or "")
    text_bytes = 2 * len(row.item_id.encode()) + len(title.encode()) + len(attributes.encode()) + 60
    return {
        **columns,
        TITLE: title,
        ATTRIBUTES: attributes,
        PHOTO_URI: uri,
        PHOTO_OFFSET: offset,
        PHOTO_BYTES: len(photo.data),
        PHOTO_SHA256: photo_sha256,
        PHOTO_HASH: photo.phash,
        ITEM_HASH: item_hash(photo_sha256, title, attributes),
        SELLER_TITLE_HASH: None if seller is None else hash_of_text(str(seller), title),
        TAR_BYTES: _bytes_in_tar(len(photo.data)) + _bytes_in_tar(text_bytes),
    }


def _bytes_in_tar(num_bytes: int) -> int:
    """A header block, and the data padded to full blocks."""
    return _TAR_BLOCK + -(-num_bytes // _TAR_BLOCK) * _TAR_BLOCK
