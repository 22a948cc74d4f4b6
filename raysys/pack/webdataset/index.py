"""Index one tar: where each photo is, and the texts beside it. The bytes of photos are not read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.columns import (
    ATTRIBUTES,
    DETAIL,
    HEADER_HASH,
    ITEM_HASH,
    ITEM_ID,
    REASON,
    SOURCE,
    SPLIT,
    TITLE,
    item_hash,
)
from raysys.config.schema import PackConfig
from raysys.errors import (
    REASON_LENGTH,
    InputError,
    MissingError,
    StorageError,
    UnreadableImage,
    unforeseen_at,
)
from raysys.pack.catalog import CatalogRow, Refusal
from raysys.pack.catalog.raw_rows import is_unicode
from raysys.pack.fetch import require_size
from raysys.pack.photo_uris import UNREACHABLE
from raysys.pack.scan import (
    ID_HASH,
    PHOTO_BYTES,
    PHOTO_OFFSET,
    PHOTO_SHA256,
    PHOTO_URI,
    SCAN_SCHEMA,
    SELLER_TITLE_HASH,
    TAR_BYTES,
    hash_of_text,
)
from raysys.pack.splits import split_of
from raysys.pack.titles import clean_title
from raysys.pack.webdataset.listing import SourceTar, WebDataset
from raysys.pack.webdataset.samples import MAX_TEXT_BYTES, to_catalog_row
from raysys.shards import tar
from raysys.shards.names import PHOTO_SUFFIXES, TEXT_SUFFIXES, split_name
from raysys.shards.open_tar import MAGIC_BYTES, compression_name
from raysys.shards.read_ahead import ReadAhead
from raysys.shards.samples import Sample, group_samples
from raysys.shards.shard_set import HASHED_BYTES, header_hash
from raysys.shards.tar import Fault, FaultKind, Member
from raysys.terminal import printable

INDEX_SCHEMA = pa.schema([*SCAN_SCHEMA, (HEADER_HASH, pa.binary(16))])
LOST_TAR = ("absent_shard", UNREACHABLE, "compressed", "empty")  # reasons that cost all samples of a tar
_CONCURRENT_TARS = 16  # on an object store: the time goes to network latency, not to the CPU
# Members that are missing: the sample is refused for this reason.
_LOST_MEMBER: tuple[FaultKind, ...] = ("truncated", "broken_link", "not_a_file")
# Parts of a tar that may have held samples, or a second sample of a key.
_LOST_PART: tuple[FaultKind, ...] = ("damaged_header", "early_end", "no_end", "no_sample", "repeated_member")


def index_tars(tars: Sequence[SourceTar], *, catalog: WebDataset, section: PackConfig, folder: str) -> int:
    """Index tars, and write the rows of each into the scratch folder. Returns the number of tars."""
    work = partial(_index_tar, catalog=catalog, section=section, folder=folder)
    if all(storage.is_local(tar.uri) for tar in tars):
        list(map(work, tars))
    else:
        with ThreadPoolExecutor(_CONCURRENT_TARS) as pool:
            list(pool.map(work, tars))
    return len(tars)


def _index_tar(source: SourceTar, *, catalog: WebDataset, section: PackConfig, folder: str) -> None:
    with unforeseen_at(source.uri):
        rows = list(_rows(source, catalog, section))
        with storage.writable_file(storage.join(folder, f"{source.stem}.parquet")) as path:
            pq.write_table(pa.Table.from_pylist(rows, schema=INDEX_SCHEMA), path)


def _rows(source: SourceTar, catalog: WebDataset, section: PackConfig) -> Iterator[dict[str, Any]]:
    """One row a sample, and one for each part of the tar that may have held further ones."""
    if source.num_bytes < 0:
        yield _lost_part(source, "absent_shard", 0, "no such file; restore it, or change catalog.path")
        return
    with contextlib.ExitStack() as stack:
        try:
            headers = _Headers(cast(IO[bytes], stack.enter_context(storage.open_input(source.uri))))
            members, faults = ([], []) if headers.compression else headers.scan()
        except MissingError:
            yield _lost_part(source, "absent_shard", 0, "no such file any more; restore it")
        except (InputError, StorageError) as error:
            yield _lost_part(source, UNREACHABLE, 0, str(error))
        else:
            if headers.compression:
                how = f"compressed with {headers.compression}"
                detail = f"{how}: no photo can be read from inside it; decompress it"
                yield _lost_part(source, "compressed", 0, detail)
            else:
                yield from _sample_rows(source, headers, members, faults, catalog, section)


def _sample_rows(
    source: SourceTar,
    headers: _Headers,
    members: list[Member],
    faults: list[Fault],
    catalog: WebDataset,
    section: PackConfig,
) -> Iterator[dict[str, Any]]:
    samples, sample_faults = group_samples(members)
    faults = [*faults, *sample_faults]
    if not samples and not any(fault.kind in ("empty", *_LOST_MEMBER, *_LOST_PART) for fault in faults):
        faults.append(Fault("no_sample", 0, f"no photo and no text in the tar ({len(members)} members)"))
    cut = {fault.key: fault for fault in faults if fault.kind in _LOST_MEMBER}
    for sample in sorted(samples, key=_offset_of):
        yield _sample_row(source, sample, headers, catalog, section, cut.pop(sample.key, None))
    for fault in faults:
        if fault.kind in ("empty", *_LOST_PART):
            yield _lost_part(source, fault.kind, fault.offset, fault.detail)
    for fault in cut.values():  # samples of which no member is left
        yield _lost_part(source, fault.kind, fault.offset, fault.detail, fault.key)


def _offset_of(sample: Sample) -> int:
    photo = sample.photo()
    return photo.offset if photo else min(member.offset for member in sample.members.values())


class _Headers:
    """The headers of a tar, with the texts and the hashes of photos' headers that lie beside them."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = cast(IO[bytes], ReadAhead(stream))
        self._texts: dict[int, bytes] = {}  # by offset
        self._hashes: dict[int, bytes] = {}
        self.compression = compression_name(self._stream.read(MAGIC_BYTES))

    def scan(self) -> tuple[list[Member], list[Fault]]:
        """Members and faults, as `tar.scan` gives them."""
        return tar.scan(self._stream, on_member=self._keep)

    def text(self, member: Member) -> bytes:
        """The content of a text."""
        return self._texts.pop(member.offset, None) or self._read(member.offset, member.num_bytes)

    def header_hash(self, photo: Member) -> bytes:
        """The hash of the header and the first KiB of a photo."""
        return self._hashes.get(photo.offset) or self._hash(photo)  # the target of a link has any name

    def _keep(self, member: Member) -> None:
        suffix = split_name(member.name)[1].rpartition(".")[2]
        if suffix in TEXT_SUFFIXES and member.num_bytes <= MAX_TEXT_BYTES:
            self._texts[member.offset] = self._read(member.offset, member.num_bytes)
        elif suffix in PHOTO_SUFFIXES:
            self._hashes[member.offset] = self._hash(member)

    def _hash(self, photo: Member) -> bytes:
        num_bytes = min(tar.BLOCK_BYTES + photo.num_bytes, HASHED_BYTES)
        return header_hash(self._read(photo.offset - tar.BLOCK_BYTES, num_bytes))

    def _read(self, offset: int, num_bytes: int) -> bytes:
        self._stream.seek(offset)
        return self._stream.read(num_bytes)


def _sample_row(
    source: SourceTar,
    sample: Sample,
    headers: _Headers,
    catalog: WebDataset,
    section: PackConfig,
    cut: Fault | None,
) -> dict[str, Any]:
    where = _place(source, _offset_of(sample), sample.key)
    row, group = to_catalog_row(sample, where, headers.text, catalog.section.columns, catalog.split_column)
    title = clean_title(row.title)
    refusal = _refusal(row, title, sample.photo(), section)
    if refusal and cut:
        refusal = Refusal(cut.kind, cut.detail)
    columns = {
        ITEM_ID: row.item_id or _printable(sample.key),
        SOURCE: where,
        ID_HASH: hash_of_text(row.item_id),
        SPLIT: "train" if refusal else split_of(row.item_id, row.attributes, row.split, where, section.split),
    }
    if refusal:
        return {**columns, REASON: refusal.reason, DETAIL: printable(refusal.detail, REASON_LENGTH)}
    photo = sample.photo()
    assert photo is not None, "a sample without a photo is refused"
    header, attributes = headers.header_hash(photo), artifacts.canonical_json(row.attributes)
    seller = row.attributes.get(section.duplicates.seller or "")
    # In place of hashes of the photo, which is not read: of its group, or of its id if it has none.
    kind, name = ("item", row.item_id) if group is None else ("group", group)
    return {
        **columns,
        TITLE: title,
        ATTRIBUTES: attributes,
        PHOTO_URI: source.uri,
        PHOTO_OFFSET: photo.offset,
        PHOTO_BYTES: photo.num_bytes,
        PHOTO_SHA256: 2 * hash_of_text(kind, name),
        HEADER_HASH: header,
        ITEM_HASH: item_hash(header, title, attributes),
        SELLER_TITLE_HASH: None if seller is None else hash_of_text(str(seller), title),
        TAR_BYTES: photo.num_bytes,
    }


def _refusal(row: CatalogRow, title: str, photo: Member | None, section: PackConfig) -> Refusal | None:
    if row.refusal or photo is None:
        return row.refusal
    if not row.item_id:
        return Refusal("no_id", "the sample has no item id")
    if not title:
        return Refusal("no_title", "the sample has no title")
    if not photo.num_bytes:
        return Refusal("not_an_image", f"{photo.name}: has no bytes")
    try:
        require_size(photo.num_bytes, photo.name, section)
    except UnreadableImage as error:
        return Refusal(error.reason, str(error))
    return None


def _lost_part(source: SourceTar, reason: str, offset: int, detail: str, key: str = "") -> dict[str, Any]:
    return {
        ITEM_ID: _printable(key),
        SOURCE: _place(source, offset, key),
        SPLIT: "train",
        REASON: reason,
        DETAIL: printable(detail, REASON_LENGTH),
        ID_HASH: hash_of_text(_printable(key)),
    }


def _place(source: SourceTar, offset: int, key: str = "") -> str:
    """A place in a tar, as `raysys verify` prints it."""
    return f"{source.uri}#{offset}" + (f" '{_printable(key)}'" if key else "")


def _printable(text: str) -> str:
    """The text with bytes that are not UTF-8 written as escapes."""
    return text if is_unicode(text) else text.encode("utf-8", "backslashreplace").decode()
