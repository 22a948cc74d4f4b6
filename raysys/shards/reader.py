"""Read a shard by sample number: exactly as many samples as its manifest states, each an item or an error.

The number of a sample determines its position in the training order, so damage must not shift the other
samples: a missing sample keeps its number and is returned as a `BadSample`. A shard on an object store is
first copied to a local disk. Memory holds the headers and one sample at a time.

Of a tar in another folder, the ShardSet's table of items lists the samples that belong to it. If raysys wrote
the tar, the samples have their text; if another tool wrote it, the table has it, and where each photo is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import storage
from raysys.artifacts import ShardSetManifest, canonical_json, files_uri, open_artifact
from raysys.artifacts.intact import damage_named
from raysys.columns import (
    ATTRIBUTES,
    GROUP,
    HEADER_HASH,
    IMAGE_BYTES,
    IMAGE_OFFSET,
    ITEM_HASH,
    ITEM_ID,
    SHARD,
    TITLE,
    item_hash,
)
from raysys.errors import DamagedData, InputError, MissingError
from raysys.shards import tar
from raysys.shards.open_tar import OpenTar, open_tar
from raysys.shards.samples import Sample, group_samples
from raysys.shards.shard_set import ITEMS, TITLE_KEYS, header_hash
from raysys.shards.tar import Member, key_of
from raysys.types import Attributes

# A ranged read takes as long as a download of about 4 MiB.
_RANGED_ABOVE_BYTES = 4 << 20  # of a tar, per item


@dataclass(frozen=True)
class Item:
    """A listing as a shard stores it; `image` is the encoded photo."""

    item_id: str
    title: str
    image: bytes
    attributes: Attributes = field(default_factory=dict)
    group: str = ""  # equal for listings that show the same thing; "" is a group of one
    image_offset: int = field(default=0, compare=False)  # of the photo in its tar, in bytes


@dataclass(frozen=True)
class ShardRef:
    """The URI of a shard, and the size, hash and number of live samples that its manifest states.

    A WebDataset tar without a manifest has `sha256=None`; its counts may be 0, which means unknown. A tar
    that a ShardSet refers to has `items_uri`, the table of items that lists its live samples.
    """

    uri: str
    split: str = ""
    num_items: int = 0  # without `num_others`
    num_bytes: int = 0
    sha256: str | None = None
    items_uri: str | None = None
    num_others: int = 0  # samples in the tar that are no items of the ShardSet

    @property
    def has_manifest(self) -> bool:
        """Whether a manifest describes this shard, that is, whether raysys wrote it."""
        return self.sha256 is not None

    @property
    def is_indexed(self) -> bool:
        """Whether another tool wrote the tar, and a ShardSet lists its photos."""
        return self.sha256 is None and self.items_uri is not None

    @property
    def live_bytes(self) -> float:
        """The share of its items in the bytes of the tar."""
        return self.num_bytes * self.num_items / max(1, self.num_items + self.num_others)


@dataclass(frozen=True)
class BadSample:
    """An unusable sample; `reason` is one of a fixed set of words, `detail` is a sentence for people."""

    key: str
    reason: str
    detail: str


class OpenShard:
    """The samples of an open shard, by number."""

    def __init__(self, shard: ShardRef, opened: OpenTar) -> None:
        self._shard, self._stream = shard, opened.stream
        members, tar_faults = tar.scan(opened.stream)
        samples, sample_faults = group_samples(members)
        self._faults = [*opened.faults, *tar_faults, *sample_faults]
        live = live_keys(shard)
        self._samples: list[Sample | str] = [s for s in samples if live is None or s.key in live]
        self._hashes = None if matches_manifest(shard, opened.path) else item_hashes(shard)
        if self._hashes is not None:
            self._place_samples(self._hashes, {sample.key: sample for sample in samples})
        if len(self._samples) > shard.num_items:
            raise DamagedData(
                f"{shard.uri}: {len(self._samples)} samples, but its manifest states {shard.num_items}; "
                "pack again"
            )

    def _place_samples(self, hashes: Mapping[str, bytes], by_key: Mapping[str, Sample]) -> None:
        """Give every sample of a damaged shard its number, or the key of the one that is missing."""
        keys = sorted(map(key_of, hashes))
        if len(keys) != self._shard.num_items:
            raise DamagedData(
                f"{self._shard.uri}: its manifest states {self._shard.num_items} samples, but {ITEMS} lists "
                f"{len(keys)}, so the damaged items cannot be identified; pack again"
            )
        self._samples = [by_key.get(key, key) for key in keys]

    def read(self, number: int) -> Item | BadSample:
        """The sample with a number from 0 to `num_items` - 1."""
        sample = self._samples[number] if number < len(self._samples) else ""
        if isinstance(sample, str):
            fault = self._faults[0].detail if self._faults else "no fault found in the tar"
            num_present = sum(isinstance(present, Sample) for present in self._samples)
            detail = f"the shard has {num_present} of {self._shard.num_items} samples ({fault})"
            return BadSample(sample, "missing", detail)
        results = (self._read(variant) for variant in sample.variants())
        first = next(results)
        return first if isinstance(first, Item) else next((r for r in results if isinstance(r, Item)), first)

    def _read(self, sample: Sample) -> Item | BadSample:
        photo = sample.photo()
        if photo is None:
            return BadSample(sample.key, "no_photo", f"members: {', '.join(sample.members)}")
        try:
            item = read_item(self._stream, sample, photo)
            if self._hashes is not None and self._hashes.get(item.item_id) != hash_of(item):
                return BadSample(
                    sample.key, "changed", "photo, title or attributes differ from the packed item"
                )
            return item
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return BadSample(sample.key, "bad_text", f"{type(error).__name__}: {error}"[:200])


class IndexedShard:
    """The items of an open tar that another tool wrote, by number. The table of items has their texts."""

    def __init__(self, shard: ShardRef, stream: IO[bytes]) -> None:
        self._stream = stream
        self._rows = indexed_rows(shard)

    def read(self, number: int) -> Item | BadSample:
        """The item with a number from 0 to `num_items` - 1, unless its photo is not where it was indexed."""
        row = self._rows[number]
        photo = read_indexed_photo(self._stream, row)
        if photo is None:
            where = f"its photo is not at byte {row[IMAGE_OFFSET]} any more"
            detail = f"{where}: the tar has changed since it was indexed; run `raysys pack` again"
            return BadSample(row[ITEM_ID], "changed", detail)
        return Item(
            item_id=row[ITEM_ID],
            title=row[TITLE],
            image=photo,
            attributes=json.loads(row[ATTRIBUTES]),
            group=row[GROUP],
            image_offset=row[IMAGE_OFFSET],
        )


def read_indexed_photo(stream: IO[bytes], row: Mapping[str, Any]) -> bytes | None:
    """The photo of a row of the table of items; None if its header or its first KiB is another one."""
    stream.seek(row[IMAGE_OFFSET] - tar.BLOCK_BYTES)
    data = stream.read(tar.BLOCK_BYTES + row[IMAGE_BYTES])
    photo = data[tar.BLOCK_BYTES :]
    is_same = header_hash(data) == row[HEADER_HASH] and len(photo) == row[IMAGE_BYTES]
    return photo if is_same else None


def read_item(stream: IO[bytes], sample: Sample, photo: Member) -> Item:
    """The item of a sample in an open tar.

    Raises: ValueError, TypeError, KeyError or AttributeError for a text that is damaged or without a title.
    """
    fields: dict[str, Any] = {}
    if "json" in sample.members:
        fields = json.loads(read_member(stream, sample.members["json"]))
    title = next((fields[key] for key in TITLE_KEYS if fields.get(key)), "")
    if not title and "txt" in sample.members:
        title = read_member(stream, sample.members["txt"]).decode()
    if not str(title).strip():
        raise ValueError("the sample has no title")
    return Item(
        item_id=str(fields.get(ITEM_ID, sample.key)),
        title=str(title),
        image=read_member(stream, photo),
        attributes=dict(fields.get(ATTRIBUTES, {})),
        group=str(fields.get(GROUP) or ""),
        image_offset=photo.offset,
    )


def read_member(stream: IO[bytes], member: Member) -> bytes:
    """The content of a member of an open tar."""
    stream.seek(member.offset)
    return stream.read(member.num_bytes)


@contextlib.contextmanager
def open_shard(shard: ShardRef) -> Iterator[OpenShard | IndexedShard]:
    """Open a shard, damaged or not.

    Raises: MissingError if the file is absent; DamagedData if it has more samples than its manifest
    states, or if it is damaged and the table of item hashes is absent.
    """
    with _missing_named(shard):
        if shard.is_indexed:
            with _open_photos(shard) as stream:
                yield IndexedShard(shard, stream)
        else:
            with open_tar(shard.uri) as opened:
                yield OpenShard(shard, opened)


@contextlib.contextmanager
def _open_photos(shard: ShardRef) -> Iterator[IO[bytes]]:
    """An indexed tar: a copy of it, or ranged reads of an object store if they are faster."""
    if not storage.is_local(shard.uri) and shard.num_bytes > _RANGED_ABOVE_BYTES * shard.num_items:
        with storage.open_input(shard.uri) as ranged:
            yield ranged
    else:
        with storage.readable_file(shard.uri) as path, path.open("rb") as stream:
            yield stream


def read_shard(shard: ShardRef) -> Iterator[Item]:
    """All items of a shard in order, for callers that need every item. Raises: as `read_samples`."""
    return read_samples(shard, range(shard.num_items))


def read_samples(shard: ShardRef, numbers: Iterable[int]) -> Iterator[Item]:
    """The items with these sample numbers, in the given order.

    Raises: DamagedData if the shard's bytes or its number of items differ from the manifest.
    """
    if shard.sha256 is not None:
        with _missing_named(shard):
            num_bytes, sha256 = storage.sha256_of(shard.uri)
        if sha256 != shard.sha256:
            raise DamagedData(
                f"{shard.uri}: the SHA-256 of its {num_bytes} bytes differs from the manifest; "
                f"run `raysys verify` for details; {_remedy(shard)}"
            )
    with open_shard(shard) as opened:
        for number in numbers:
            sample = opened.read(number)
            if isinstance(sample, BadSample):
                raise DamagedData(
                    f"{shard.uri}: sample '{sample.key or number}': {sample.reason}: {sample.detail}; "
                    f"run `raysys verify` for details; {_remedy(shard)}"
                )
            yield sample


def _remedy(shard: ShardRef) -> str:
    if shard.is_indexed:
        return "`raysys pack` reads its headers again"
    return "delete it, and `raysys pack` writes it again"


def shards_of(uri: str) -> list[ShardRef]:
    """The shards of the ShardSet at `uri`: the inherited ones, then its own."""
    return shards_in_manifest(uri, open_artifact(uri, ShardSetManifest))


def require_items(uris: Sequence[str]) -> None:
    """Check that one of the ShardSets at least has items.

    Raises: InputError that names all of them.
    """
    if not any(open_artifact(uri, ShardSetManifest).num_items for uri in uris):
        raise InputError(f"{', '.join(uris)}: no items; check the catalogue and pack.split, then pack again")


def shards_in_manifest(uri: str, manifest: ShardSetManifest) -> list[ShardRef]:
    """The shards that the manifest of the ShardSet at `uri` names, in order."""
    folder = files_uri(uri, manifest)
    items_uri = storage.join(folder, ITEMS)
    inherited = [
        ShardRef(
            entry.uri,
            manifest.split,
            entry.num_live,
            entry.bytes,
            entry.sha256,
            items_uri,
            entry.num_items - entry.num_live,
        )
        for entry in manifest.inherited
    ]
    return inherited + [
        ShardRef(storage.join(folder, entry.name), manifest.split, entry.num_items, entry.bytes, entry.sha256)
        for entry in manifest.shards
    ]


@contextlib.contextmanager
def _missing_named(shard: ShardRef) -> Iterator[None]:
    """Say what may have happened to a tar that was there when its manifest was read."""
    try:
        yield
    except MissingError as error:
        if not shard.has_manifest:
            raise
        raise MissingError(
            f"{shard.uri}: no such file any more; if its ShardSet was packed again meanwhile, run the "
            "command again, otherwise `raysys pack` writes the file again"
        ) from error


def missing_shard(error: MissingError) -> BadSample:
    """The result for every sample of a shard whose file is absent."""
    return BadSample("", "missing_shard", str(error))


def matches_manifest(shard: ShardRef, path: Path) -> bool:
    """Whether the bytes match the manifest, or there is none; if so, items need no check one by one."""
    return shard.sha256 is None or storage.sha256_of(str(path))[1] == shard.sha256


def live_keys(shard: ShardRef) -> set[str] | None:
    """The keys of the samples that are items of the ShardSet; None if all samples are."""
    if shard.items_uri is None:
        return None
    return {key_of(item_id) for item_id in _items_of(shard, [ITEM_ID]).column(ITEM_ID).to_pylist()}


def item_ids(shard: ShardRef) -> pa.Array:
    """The ids of the items of a shard, from the table of items, in no particular order."""
    return _items_of(shard, [ITEM_ID]).column(ITEM_ID).combine_chunks()


def item_hashes(shard: ShardRef) -> dict[str, bytes]:
    """Item id -> hash of the packed item, for a damaged shard, from the table of items."""
    if not storage.exists(_items_uri(shard)[0]):
        raise DamagedData(
            f"{shard.uri}: its bytes differ from the manifest, and without {ITEMS} the damaged items cannot "
            "be identified; `raysys verify --repair` writes a clean copy"
        )
    rows = _items_of(shard, [ITEM_ID, ITEM_HASH])
    return dict(zip(rows.column(ITEM_ID).to_pylist(), rows.column(ITEM_HASH).to_pylist(), strict=True))


def indexed_rows(shard: ShardRef) -> list[dict[str, Any]]:
    """The items of an indexed tar in the order of their photos, as the table of items has them.

    Raises: DamagedData if the table has another number of items than the manifest.
    """
    columns = [ITEM_ID, TITLE, ATTRIBUTES, GROUP, IMAGE_OFFSET, IMAGE_BYTES, HEADER_HASH]
    rows: list[dict[str, Any]] = _items_of(shard, columns).to_pylist()
    if len(rows) != shard.num_items:
        raise DamagedData(
            f"{shard.items_uri}: {len(rows)} items of {shard.uri}, but its manifest states "
            f"{shard.num_items}; pack again"
        )
    return rows


def _items_uri(shard: ShardRef) -> tuple[str, str]:
    """The table of items that lists a shard, and what it has in the column `shard`."""
    folder, _, name = shard.uri.rpartition("/")
    return (shard.items_uri, shard.uri) if shard.items_uri else (storage.join(folder, ITEMS), name)


def _items_of(shard: ShardRef, columns: list[str]) -> pa.Table:
    """The rows of a shard in its table of items, which is read by its row groups."""
    uri, key = _items_uri(shard)
    folder = uri.rpartition("/")[0]
    with damage_named(folder, ShardSetManifest, [ITEMS]), storage.open_input(uri) as stream:
        return pq.read_table(
            stream, columns=columns, filters=pc.field(SHARD) == key, page_checksum_verification=True
        )


def hash_of(item: Item) -> bytes:
    """The hash of an item as the table of items has it."""
    photo_sha256 = hashlib.sha256(item.image).digest()
    return item_hash(photo_sha256, item.title, canonical_json(item.attributes))
