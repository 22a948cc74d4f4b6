"""Read a shard by sample number: exactly as many samples as its manifest states, each an item or an error.

The number of a sample determines its position in the training order, so damage must not shift the other
samples: a missing sample keeps its number and is returned as a `BadSample`. A shard on an object store is
first copied to a local disk. Memory holds the headers and one sample at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import storage
from raysys.artifacts import ShardSetManifest, canonical_json, open_artifact
from raysys.artifacts.intact import damage_named
from raysys.columns import ATTRIBUTES, GROUP, ITEM_HASH, ITEM_ID, SHARD, Attributes, item_hash
from raysys.errors import DamagedData, InputError, MissingError
from raysys.shards import tar
from raysys.shards.shard_set import ITEMS, TITLE_KEYS, TOMBSTONES, tombstoned_keys
from raysys.shards.tar import Member, Sample

_CHUNK_BYTES = 1 << 20


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

    A WebDataset tar without a manifest has `sha256=None`; its counts may be 0, which means unknown.
    """

    uri: str
    split: str = ""
    num_items: int = 0  # without the samples that tombstones remove
    num_bytes: int = 0
    sha256: str | None = None
    tombstones_uri: str | None = None
    num_tombstones: int = 0  # samples in the tar that the tombstones remove

    @property
    def has_manifest(self) -> bool:
        """Whether a manifest describes this shard, that is, whether raysys wrote it."""
        return self.sha256 is not None


@dataclass(frozen=True)
class BadSample:
    """An unusable sample; `reason` is one of a fixed set of words, `detail` is a sentence for people."""

    key: str
    reason: str
    detail: str


class OpenShard:
    """The samples of an open shard, by number."""

    def __init__(self, shard: ShardRef, stream: IO[bytes]) -> None:
        self._shard, self._stream = shard, stream
        members, tar_faults = tar.scan(stream)
        samples, sample_faults = tar.group_samples(members)
        self._faults = [*tar_faults, *sample_faults]
        self._hashes = None if _is_intact(shard, stream) else _item_hashes(shard)
        removed = tombstoned_keys(shard.tombstones_uri, shard.uri) if shard.tombstones_uri else set()
        self._samples = [sample for sample in samples if sample.key not in removed]
        if len(self._samples) > shard.num_items:
            raise DamagedData(
                f"{shard.uri}: {len(self._samples)} samples, but its manifest states {shard.num_items}; "
                "pack again"
            )

    def read(self, number: int) -> Item | BadSample:
        """The sample with a number from 0 to `num_items` - 1."""
        if number >= len(self._samples):
            fault = self._faults[0].detail if self._faults else "no fault found in the tar"
            detail = f"the shard has {len(self._samples)} of {self._shard.num_items} samples ({fault})"
            return BadSample("", "missing", detail)
        sample = self._samples[number]
        photo = sample.photo()
        if photo is None:
            return BadSample(sample.key, "no_photo", f"members: {', '.join(sample.members)}")
        try:
            item = self._item(sample, photo)
            if self._hashes is not None and self._hashes.get(item.item_id) != _hash_of(item):
                return BadSample(
                    sample.key, "changed", "photo, title or attributes differ from the packed item"
                )
            return item
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return BadSample(sample.key, "bad_text", f"{type(error).__name__}: {error}"[:200])

    def _item(self, sample: Sample, photo: Member) -> Item:
        fields: dict[str, Any] = {}
        if "json" in sample.members:
            fields = json.loads(self._bytes(sample.members["json"]))
        title = next((fields[key] for key in TITLE_KEYS if fields.get(key)), "")
        if not title and "txt" in sample.members:
            title = self._bytes(sample.members["txt"]).decode()
        if not str(title).strip():
            raise ValueError("the sample has no title")
        return Item(
            item_id=str(fields.get(ITEM_ID, sample.key)),
            title=str(title),
            image=self._bytes(photo),
            attributes=dict(fields.get(ATTRIBUTES, {})),
            group=str(fields.get(GROUP) or ""),
            image_offset=photo.offset,
        )

    def _bytes(self, member: Member) -> bytes:
        self._stream.seek(member.offset)
        return self._stream.read(member.num_bytes)


@contextlib.contextmanager
def open_shard(shard: ShardRef) -> Iterator[OpenShard]:
    """Open a shard, damaged or not.

    Raises: MissingError if the file is absent; DamagedData if it has more samples than its manifest
    states, or if it is damaged and the table of item hashes is absent.
    """
    with storage.readable_file(shard.uri) as path, path.open("rb") as stream:
        yield OpenShard(shard, stream)


def read_shard(shard: ShardRef) -> Iterator[Item]:
    """All items of a shard in order, for callers that need every item.

    Raises: DamagedData if its bytes or its number of items differ from the manifest.
    """
    if shard.sha256 is not None:
        num_bytes, sha256 = storage.sha256_of(shard.uri)
        if sha256 != shard.sha256:
            raise DamagedData(
                f"{shard.uri}: the SHA-256 of its {num_bytes} bytes differs from the manifest; "
                "run `raysys verify` for details; delete it, and `raysys pack` writes it again"
            )
    with open_shard(shard) as opened:
        for number in range(shard.num_items):
            sample = opened.read(number)
            if isinstance(sample, BadSample):
                raise DamagedData(
                    f"{shard.uri}: sample '{sample.key or number}': {sample.reason}: {sample.detail}; "
                    "run `raysys verify` for details; delete it, and `raysys pack` writes it again"
                )
            yield sample


def shards_of(uri: str) -> list[ShardRef]:
    """The shards of the ShardSet at `uri`: the inherited ones without tombstoned items, then its own."""
    return shards_in_manifest(uri, open_artifact(uri, ShardSetManifest))


def require_items(uris: Sequence[str]) -> None:
    """Check that one of the ShardSets at least has items.

    Raises: InputError that names all of them.
    """
    if not any(open_artifact(uri, ShardSetManifest).num_items for uri in uris):
        raise InputError(f"{', '.join(uris)}: no items; check the catalogue and pack.split, then pack again")


def shards_in_manifest(uri: str, manifest: ShardSetManifest) -> list[ShardRef]:
    """The shards that the manifest of the ShardSet at `uri` names, in order."""
    tombstones_uri = storage.join(uri, TOMBSTONES) if manifest.num_tombstones else None
    inherited = [
        ShardRef(
            entry.uri,
            manifest.split,
            entry.num_live,
            entry.bytes,
            entry.sha256,
            tombstones_uri,
            entry.num_items - entry.num_live,
        )
        for entry in manifest.inherited
    ]
    return inherited + [
        ShardRef(storage.join(uri, entry.name), manifest.split, entry.num_items, entry.bytes, entry.sha256)
        for entry in manifest.shards
    ]


def missing_shard(error: MissingError) -> BadSample:
    """The result for every sample of a shard whose file is absent."""
    return BadSample("", "missing_shard", str(error))


def _is_intact(shard: ShardRef, stream: IO[bytes]) -> bool:
    """Whether the bytes match the manifest; if so, items need no check one by one."""
    if shard.sha256 is None:
        return True
    digest = hashlib.sha256()
    stream.seek(0)
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest() == shard.sha256


def _item_hashes(shard: ShardRef) -> dict[str, bytes]:
    """Item id -> hash of the packed item, for a damaged shard, from the table beside it."""
    folder, _, name = shard.uri.rpartition("/")
    if not storage.exists(table_uri := storage.join(folder, ITEMS)):
        raise DamagedData(
            f"{shard.uri}: its bytes differ from the manifest, and without {ITEMS} the damaged items cannot "
            "be identified; `raysys verify --repair` writes a clean copy"
        )
    with damage_named(folder, ShardSetManifest, [ITEMS]), storage.open_input(table_uri) as stream:
        table = pq.read_table(stream, columns=[SHARD, ITEM_ID, ITEM_HASH])
    rows = table.filter(pc.equal(table.column(SHARD), name))
    return dict(zip(rows.column(ITEM_ID).to_pylist(), rows.column(ITEM_HASH).to_pylist(), strict=True))


def _hash_of(item: Item) -> bytes:
    photo_sha256 = hashlib.sha256(item.image).digest()
    return item_hash(photo_sha256, item.title, canonical_json(item.attributes))
