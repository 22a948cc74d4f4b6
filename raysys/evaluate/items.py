"""The items of an evaluation, read once from the shards: ids, titles, photos and attributes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy import ndarray

from raysys import storage
from raysys.artifacts import CatalogManifest
from raysys.artifacts.intact import damage_named
from raysys.columns import ITEM_ID
from raysys.errors import InputError
from raysys.shards.reader import ShardRef, read_shard


@dataclass(frozen=True)
class EvaluationItems:
    """Items in columns; row i of every field is one item."""

    item_ids: list[str]
    titles: list[str]
    photos: list[bytes]
    splits: ndarray
    attributes: dict[str, ndarray]
    """Name -> values of dtype object; None where an item lacks the attribute."""
    groups: list[str]
    """Equal for listings of the same thing."""

    def select_splits(self, splits: Collection[str]) -> EvaluationItems:
        """The items of these splits, in the same order."""
        rows = [row for row, split in enumerate(self.splits) if split in splits]
        return EvaluationItems(
            item_ids=[self.item_ids[row] for row in rows],
            titles=[self.titles[row] for row in rows],
            photos=[self.photos[row] for row in rows],
            splits=self.splits[rows],
            attributes={name: values[rows] for name, values in self.attributes.items()},
            groups=[self.groups[row] for row in rows],
        )


def read_items(
    shards: Iterable[ShardRef], item_ids: Container[str] | None = None, *, max_items: int | None = None
) -> EvaluationItems:
    """The first `max_items` items of the shards; with `item_ids` only those.

    Raises: InputError if there are none.
    """
    matching = (
        (shard.split, item)
        for shard in shards
        for item in read_shard(shard)
        if item_ids is None or item.item_id in item_ids
    )
    splits_and_items = list(itertools.islice(matching, max_items))
    if not splits_and_items:
        raise InputError(
            "evaluate: no item to evaluate: the splits are empty, or the log names none of their items; "
            "check evaluate.splits"
        )
    items = [item for _, item in splits_and_items]
    names = sorted({name for item in items for name in item.attributes})
    return EvaluationItems(
        item_ids=[item.item_id for item in items],
        titles=[item.title for item in items],
        photos=[item.image for item in items],
        splits=np.array([split for split, _ in splits_and_items]),
        attributes={name: _object_array(item.attributes.get(name) for item in items) for name in names},
        groups=[item.group or item.item_id for item in items],
    )


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
