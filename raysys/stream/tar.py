"""A shard as items, strictly: damage is an error that names the shard, never a shorter shard.

`tarfile` ends quietly at a damaged header or a missing end; so the bytes are checked against the
manifest's SHA-256 before, and the number of items after.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from raysys import storage
from raysys.artifacts import ShardEntry, ShardSetManifest, open_artifact
from raysys.errors import DamagedData
from raysys.records import ATTRIBUTES, ITEM_ID, TITLE, Item


@dataclass(frozen=True)
class ShardRef:
    """A shard and what its manifest promises."""

    uri: str
    split: str
    num_items: int
    sha256: str


@dataclass(frozen=True)
class StoredItem:
    """An item and where its photo lies in its shard."""

    item: Item
    image_offset: int


def shards_of(uri: str) -> list[ShardRef]:
    """The shards of a ShardSet, in order."""
    manifest = open_artifact(uri, ShardSetManifest)
    return [_ref(uri, manifest.split, entry) for entry in manifest.shards]


def read_shard(shard: ShardRef) -> Iterator[StoredItem]:
    """The items of a shard, in order.

    Raises: DamagedData if its bytes or the number of its items are not those of the manifest.
    """
    data = storage.read_bytes(shard.uri)
    if storage.sha256_of_bytes(data) != shard.sha256:
        raise DamagedData(
            f"{shard.uri}: {len(data)} bytes with another SHA-256 than its manifest says; pack again"
        )
    num_items = 0
    for stored in _items(data, shard.uri):
        num_items += 1
        yield stored
    if num_items != shard.num_items:
        raise DamagedData(f"{shard.uri}: {num_items} items, its manifest says {shard.num_items}; pack again")


def _items(data: bytes, uri: str) -> Iterator[StoredItem]:
    photos: dict[str, tuple[int, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            key, _, suffix = member.name.partition(".")
            content = data[member.offset_data : member.offset_data + member.size]
            if suffix == "jpg":
                photos[key] = (member.offset_data, content)
            elif suffix == "json":
                if key not in photos:
                    raise DamagedData(f"{uri}: sample '{key}' has no photo before its json; pack again")
                offset, photo = photos.pop(key)
                said = json.loads(content)
                yield StoredItem(Item(said[ITEM_ID], said[TITLE], photo, said[ATTRIBUTES]), offset)


def _ref(uri: str, split: str, entry: ShardEntry) -> ShardRef:
    return ShardRef(storage.join(uri, entry.name), split, entry.num_items, entry.sha256)
