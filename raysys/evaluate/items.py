"""The items that an evaluation needs: read once from the shards, photos and all."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from numpy import ndarray

from raysys import storage
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
    """Name -> values as objects; None where an item has none."""
    groups: list[str]
    """Equal for listings of the same thing."""

    @functools.cached_property
    def row_of(self) -> dict[str, int]:
        """Item id -> row."""
        return {item_id: row for row, item_id in enumerate(self.item_ids)}

    def of_splits(self, splits: Collection[str]) -> EvaluationItems:
        """Those of these splits alone."""
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
    shards: Iterable[ShardRef], wanted: Container[str] | None = None, *, at_most: int | None = None
) -> EvaluationItems:
    """Items of these shards, all or the wanted ones; the first `at_most` of them.

    Raises: InputError if there are none.
    """
    stored = (
        (shard.split, stored.item)
        for shard in shards
        for stored in read_shard(shard)
        if wanted is None or stored.item.item_id in wanted
    )
    found = list(itertools.islice(stored, at_most))
    if not found:
        raise InputError(
            "evaluate: no item to judge: the splits are empty, or share none with the log; "
            "check evaluate.splits"
        )
    items = [item for _, item in found]
    names = sorted({name for item in items for name in item.attributes})
    return EvaluationItems(
        item_ids=[item.item_id for item in items],
        titles=[item.title for item in items],
        photos=[item.image for item in items],
        splits=np.array([split for split, _ in found]),
        attributes={name: _objects(item.attributes.get(name) for item in items) for name in names},
        groups=[item.group or item.item_id for item in items],
    )


def read_latent(uri: str, item_ids: list[str]) -> dict[str, ndarray]:
    """What a drawn catalogue knows of its items, in the order of `item_ids`."""
    with storage.open_input(uri) as stream:
        table = pq.read_table(stream)
    row_of = {item_id: row for row, item_id in enumerate(table.column(ITEM_ID).to_pylist())}
    rows = [row_of[item_id] for item_id in item_ids]
    names = [name for name in table.schema.names if name != ITEM_ID]
    return {name: _objects(table.column(name).to_pylist())[rows] for name in names}


def _objects(values: Iterable[object]) -> ndarray:
    listed = list(values)
    column = np.empty(len(listed), dtype=object)
    column[:] = listed
    return column
