"""One shard as numbered samples: as many as its manifest promises, each whole or with the reason why not.

The number of a sample decides where it comes in the order of training, so damage may not shift the
others: what is missing stays a place in the shard, told by a `BadSample`. A shard on an object store is
copied to a local disk first; only headers and one sample at a time are in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import storage
from raysys.artifacts import ShardSetManifest, canonical_json, open_artifact
from raysys.columns import ATTRIBUTES, GROUP, ITEM_HASH, ITEM_ID, SHARD, Attributes, item_hash
from raysys.errors import DamagedData, MissingError
from raysys.shards import tar
from raysys.shards.shard_set import ITEMS, TITLE_KEYS, TOMBSTONES, dead_keys
from raysys.shards.tar import Member, Sample

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Item:
    """A listing as it stands in a shard; `image` holds the encoded photo."""

    item_id: str
    title: str
    image: bytes
    attributes: Attributes = field(default_factory=dict)
    group: str = ""  # listings of one group show the same thing; "" is a group of its own


@dataclass(frozen=True)
class ShardRef:
    """A shard and what is promised of it; `num_items` leaves out what its tombstones name."""

    uri: str
    split: str
    num_items: int
    num_bytes: int
    sha256: str | None = None  # None for a WebDataset without a manifest
    tombstones_uri: str | None = None


@dataclass(frozen=True)
class StoredItem:
    """An item and where its photo lies in its shard."""

    item: Item
    image_offset: int


@dataclass(frozen=True)
class BadSample:
    """A sample that cannot be used: a word for the ledger, and what is wrong."""

    key: str
    reason: str
    detail: str


class OpenShard:
    """The samples of an open shard, by number."""

    def __init__(self, shard: ShardRef, stream: IO[bytes]) -> None:
        self._shard, self._stream = shard, stream
        members, faults = tar.scan(stream)
        found, more_faults = tar.samples(members)
        self.faults = [*faults, *more_faults]
        self._hashes = None if _is_intact(shard, stream) else _item_hashes(shard)
        dead = dead_keys(shard.tombstones_uri, shard.uri) if shard.tombstones_uri else set()
        self.samples = [sample for sample in found if sample.key not in dead]
        if len(self.samples) > shard.num_items:
            raise DamagedData(
                f"{shard.uri}: {len(self.samples)} samples, its manifest says {shard.num_items}; pack again"
            )

    def read(self, number: int) -> StoredItem | BadSample:
        """The sample of a number from 0 to `num_items` - 1."""
        if number >= len(self.samples):
            what = self.faults[0].detail if self.faults else "no damage shows"
            detail = f"{len(self.samples)} of {self._shard.num_items} samples are there ({what})"
            return BadSample("", "missing", detail)
        sample = self.samples[number]
        photo = sample.photo()
        if photo is None:
            return BadSample(sample.key, "no_photo", f"members: {', '.join(sample.members)}")
        try:
            item = self._item(sample, photo)
            if self._hashes is not None and self._hashes.get(item.item_id) != _hash_of(item):
                return BadSample(
                    sample.key, "changed", "not what was packed: another photo, title or attribute"
                )
            return StoredItem(item, photo.offset)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return BadSample(sample.key, "bad_text", f"{type(error).__name__}: {error}"[:200])

    def _item(self, sample: Sample, photo: Member) -> Item:
        said: dict[str, Any] = {}
        if "json" in sample.members:
            said = json.loads(self._bytes(sample.members["json"]))
        title = next((said[key] for key in TITLE_KEYS if said.get(key)), "")
        if not title and "txt" in sample.members:
            title = self._bytes(sample.members["txt"]).decode()
        if not str(title).strip():
            raise ValueError("the sample has no title")
        return Item(
            item_id=str(said.get(ITEM_ID, sample.key)),
            title=str(title),
            image=self._bytes(photo),
            attributes=dict(said.get(ATTRIBUTES, {})),
            group=str(said.get(GROUP) or ""),
        )

    def _bytes(self, member: Member) -> bytes:
        self._stream.seek(member.offset)
        return self._stream.read(member.num_bytes)


@contextlib.contextmanager
def open_shard(shard: ShardRef) -> Iterator[OpenShard]:
    """The samples of a shard, damaged or not.

    Raises: MissingError if it is not there, DamagedData if it holds more than its manifest says.
    """
    with storage.readable_file(shard.uri) as path, path.open("rb") as stream:
        yield OpenShard(shard, stream)


def read_shard(shard: ShardRef) -> Iterator[StoredItem]:
    """The items of a shard, in order, strictly: for callers that cannot do with less than all.

    Raises: DamagedData if its bytes or the number of its items are not those of the manifest.
    """
    if shard.sha256 is not None:
        num_bytes, sha256 = storage.sha256_of(shard.uri)
        if sha256 != shard.sha256:
            raise DamagedData(
                f"{shard.uri}: {num_bytes} bytes with another SHA-256 than its manifest says; "
                "`raysys verify` tells more, `raysys pack` makes it anew"
            )
    with open_shard(shard) as samples:
        for number in range(shard.num_items):
            stored = samples.read(number)
            if isinstance(stored, BadSample):
                raise DamagedData(
                    f"{shard.uri}: sample '{stored.key or number}': {stored.reason}: {stored.detail}; "
                    "`raysys verify` tells more, `raysys pack` makes it anew"
                )
            yield stored


def shards_of(uri: str) -> list[ShardRef]:
    """The shards of a ShardSet, in order: those it inherited, less its tombstones, then its own."""
    manifest = open_artifact(uri, ShardSetManifest)
    tombstones = storage.join(uri, TOMBSTONES) if manifest.num_tombstones else None
    inherited = [
        ShardRef(entry.uri, manifest.split, entry.num_live, entry.bytes, entry.sha256, tombstones)
        for entry in manifest.inherited
    ]
    return inherited + [
        ShardRef(storage.join(uri, entry.name), manifest.split, entry.num_items, entry.bytes, entry.sha256)
        for entry in manifest.shards
    ]


def foreign_shards(uris: list[str], split: str = "train") -> list[ShardRef]:
    """Shards of a WebDataset without a manifest: their samples are counted once, from the headers.

    Raises: MissingError, DamagedData for a tar with a fault: without a promise nobody knows what is lost.
    """
    shards = []
    for uri in uris:
        with storage.readable_file(uri) as path, path.open("rb") as stream:
            members, faults = tar.scan(stream)
            found, more_faults = tar.samples(members)
            num_bytes = path.stat().st_size
        damage = [fault for fault in (*faults, *more_faults) if fault.kind != "unsorted"]
        if damage:
            raise DamagedData(
                f"{uri}: {damage[0].kind} at byte {damage[0].offset}: {damage[0].detail}; "
                "`raysys verify --repair` writes a clean copy"
            )
        shards.append(ShardRef(uri, split, len(found), num_bytes))
    return shards


def _is_intact(shard: ShardRef, stream: IO[bytes]) -> bool:
    """Whether the bytes are those of the manifest; then no sample has to be looked at on its own."""
    if shard.sha256 is None:
        return True
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest() == shard.sha256


def _item_hashes(shard: ShardRef) -> dict[str, bytes]:
    """What each item of a damaged shard should be, from the table that was packed beside it."""
    folder, _, name = shard.uri.rpartition("/")
    if not storage.exists(table_uri := storage.join(folder, ITEMS)):
        raise DamagedData(
            f"{shard.uri}: not the bytes that its manifest says, and no {ITEMS} tells which items they hurt; "
            "`raysys verify --repair` writes a clean copy"
        )
    with storage.open_input(table_uri) as stream:
        table = pq.read_table(stream, columns=[SHARD, ITEM_ID, ITEM_HASH])
    mine = table.filter(pc.equal(table.column(SHARD), name))
    return dict(zip(mine.column(ITEM_ID).to_pylist(), mine.column(ITEM_HASH).to_pylist(), strict=True))


def _hash_of(item: Item) -> bytes:
    photo_sha256 = hashlib.sha256(item.image).digest()
    return item_hash(photo_sha256, item.title, canonical_json(item.attributes))


def missing_shard(error: MissingError) -> BadSample:
    """What every sample is of a shard that is gone."""
    return BadSample("", "missing_shard", str(error))
