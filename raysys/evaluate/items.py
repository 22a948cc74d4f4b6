"""The items of an evaluation, read once from the shards: ids, titles, photos and attributes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy import ndarray

from raysys import storage
from raysys.artifacts import CatalogManifest
from raysys.artifacts.intact import damage_named
from raysys.columns import ITEM_ID
from raysys.config.schema import EvaluateConfig
from raysys.encoder.preprocess import decode_image
from raysys.errors import InputError, UnreadableImage
from raysys.shards.reader import BadSample, Item, ShardRef, open_shard, read_shard
from raysys.tracking.logs import log


@dataclass(frozen=True)
class EvaluationItems:
    """Items in columns; row i of every field is one item."""

    item_ids: list[str]
    positions: list[int]
    """Counted over all shards that were read, with the items that were left out."""
    titles: list[str]
    photos: list[bytes]
    splits: ndarray
    attributes: dict[str, ndarray]
    """Name -> values of dtype object; None where an item lacks the attribute."""
    groups: list[str]
    """Equal for listings of the same thing."""

    def select_splits(self, splits: Collection[str]) -> EvaluationItems:
        """The items of these splits, in the same order."""
        return self.select_rows([row for row, split in enumerate(self.splits) if split in splits])

    def select_rows(self, rows: Sequence[int]) -> EvaluationItems:
        """The items of these rows, in their order."""
        return EvaluationItems(
            item_ids=[self.item_ids[row] for row in rows],
            positions=[self.positions[row] for row in rows],
            titles=[self.titles[row] for row in rows],
            photos=[self.photos[row] for row in rows],
            splits=self.splits[[*rows]],
            attributes={name: values[[*rows]] for name, values in self.attributes.items()},
            groups=[self.groups[row] for row in rows],
        )


def read_items(
    shards: Iterable[ShardRef], item_ids: Container[str] | None = None, *, max_items: int | None = None
) -> EvaluationItems:
    """The first `max_items` items of the shards; with `item_ids` only those.

    Raises: InputError if there are none.
    """
    matching = (
        usable for usable in usable_items(shards) if item_ids is None or usable.item.item_id in item_ids
    )
    selected = list(itertools.islice(matching, max_items))
    if not selected:
        raise InputError(
            "evaluate: no item to evaluate: the splits are empty, or the log names none of their items; "
            "check evaluate.splits"
        )
    items = [usable.item for usable in selected]
    names = sorted({name for item in items for name in item.attributes})
    return EvaluationItems(
        item_ids=[item.item_id for item in items],
        positions=[usable.position for usable in selected],
        titles=[item.title for item in items],
        photos=[item.image for item in items],
        splits=np.array([usable.split for usable in selected]),
        attributes={name: _object_array(item.attributes.get(name) for item in items) for name in names},
        groups=[item.group or item.item_id for item in items],
    )


def splits_to_read(section: EvaluateConfig) -> list[str]:
    """The splits of a simulated log and of attribute precision."""
    protocol = section.attribute_precision
    return sorted({*section.splits, *((protocol.query_split, *protocol.gallery_splits) if protocol else ())})


class UsableItem(NamedTuple):
    """An item whose photo can be decoded."""

    split: str
    position: int
    """Counted over all shards, with the items that are left out."""
    item: Item


def usable_items(shards: Iterable[ShardRef]) -> Iterator[UsableItem]:
    """Every item whose photo can be decoded.

    `raysys pack` has decoded the photos in its own tars, so each of them must be intact. It has not read
    those in tars of another tool: samples there that changed or cannot be decoded are left out, and the log
    counts them.
    Raises: DamagedData for a damaged tar of raysys.
    """
    left_out: list[str] = []
    first = 0
    try:
        for shard in shards:
            numbered = _decodable_items(shard, left_out) if shard.is_indexed else enumerate(read_shard(shard))
            yield from (UsableItem(shard.split, first + number, item) for number, item in numbered)
            first += shard.num_items
    finally:
        if left_out:
            log.warning(" evaluate  %d items are left out (first: %s)", len(left_out), left_out[0])


def _decodable_items(shard: ShardRef, left_out: list[str]) -> Iterator[tuple[int, Item]]:
    """Number and item of the samples whose photos can be decoded."""
    with open_shard(shard) as opened:
        for number in range(shard.num_items):
            sample = opened.read(number)
            try:
                if isinstance(sample, BadSample):
                    raise UnreadableImage(sample.detail)
                decode_image(sample.image)
            except UnreadableImage as error:
                key = sample.key if isinstance(sample, BadSample) else sample.item_id
                left_out.append(f"{shard.uri}: '{key}': {error}")
            else:
                yield number, sample


def known_attributes(items: EvaluationItems, latent_uri: str | None) -> dict[str, ndarray]:
    """The attributes of the items, and the latent ones if they are of a drawn catalogue."""
    latent = read_latent(latent_uri, items.item_ids) if latent_uri else {}
    return {**items.attributes, **latent}


def read_latent(uri: str, item_ids: list[str]) -> dict[str, ndarray]:
    """The latent attributes of a drawn catalogue's items, in the order of `item_ids`."""
    folder, _, name = uri.rpartition("/")
    with damage_named(folder, CatalogManifest, [name]), storage.open_input(uri) as stream:
        table = pq.read_table(stream)
    item_id_to_row = {item_id: row for row, item_id in enumerate(table.column(ITEM_ID).to_pylist())}
    rows = [item_id_to_row[item_id] for item_id in item_ids]
    names = [name for name in table.schema.names if name != ITEM_ID]
    return {name: _object_array(table.column(name).to_pylist())[rows] for name in names}


def _object_array(values: Iterable[object]) -> ndarray:
    listed = list(values)
    column = np.empty(len(listed), dtype=object)
    column[:] = listed
    return column
