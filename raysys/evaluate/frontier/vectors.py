"""The vectors that are compared: a sample of an EmbeddingSet, those of given items, and the PCA's moments.

The set passes by once, file by file.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import EmbeddingSetManifest
from raysys.artifacts.embedding_set import read_part, vector_files, vectors_of
from raysys.columns import ITEM_ID, SPLIT
from raysys.encoder.projection import Moments
from raysys.errors import InputError


@dataclass(frozen=True)
class StoredVectors:
    """Vectors of length 1 in the full space."""

    base: Float32[ndarray, "n d"]
    """The items that are searched."""
    query_rows: Int64[ndarray, " q"]
    """Rows of `base` whose items are the queries: of val and test, or of all splits without these."""
    moments: Moments
    """Of the training split, for the PCA."""
    item_ids: list[str]
    """The given items that the set has."""
    vectors: Float32[ndarray, "items d"]
    """Their vectors, in the same order."""
    num_items: int
    """The items of the set."""

    def vectors_of(self, item_ids: Sequence[str]) -> Float32[ndarray, "n d"]:
        """The vectors of these, in their order."""
        item_id_to_row = {item_id: row for row, item_id in enumerate(self.item_ids)}
        return self.vectors[[item_id_to_row[item_id] for item_id in item_ids]]


def read_stored_vectors(
    uri: str, item_ids: Set[str], *, max_items: int, num_queries: int, seed: int
) -> StoredVectors:
    """Read an EmbeddingSet; `base` is a random sample if it has more than `max_items` items.

    Raises: InputError for a set of one item; DamagedData for a damaged one.
    """
    manifest = artifacts.open_artifact(uri, EmbeddingSetManifest)
    if manifest.num_items < 2:
        raise InputError(f"{uri}: {manifest.num_items} item has no neighbours; embed more items")
    rng = np.random.default_rng(seed)
    is_sampled = np.zeros(manifest.num_items, dtype=bool)
    is_sampled[rng.permutation(manifest.num_items)[:max_items]] = True
    moments, first = Moments.of(np.empty((0, manifest.dimensions), np.float32)), 0
    base, held_out, found_ids, found = [], [], [], []
    wanted = pa.array(sorted(item_ids), pa.string())
    for name in vector_files(manifest):
        table = read_part(uri, manifest, name)
        vectors, is_training = vectors_of(table), pc.equal(table[SPLIT], "train").to_numpy()
        moments += Moments.of(vectors[is_training])
        is_here = is_sampled[first : first + len(table)]
        base.append(vectors[is_here])
        held_out.append(~is_training[is_here])
        is_wanted = pc.is_in(table[ITEM_ID], wanted).to_numpy()
        found_ids += table[ITEM_ID].filter(pa.array(is_wanted)).to_pylist()
        found.append(vectors[is_wanted])
        first += len(table)
    is_held_out = np.concatenate(held_out)
    query_rows = np.flatnonzero(is_held_out) if is_held_out.any() else np.arange(len(is_held_out))
    return StoredVectors(
        base=np.concatenate(base),
        query_rows=np.sort(rng.permutation(query_rows)[:num_queries]),
        moments=moments,
        item_ids=found_ids,
        vectors=np.concatenate(found),
        num_items=manifest.num_items,
    )
