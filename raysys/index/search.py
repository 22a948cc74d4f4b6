"""Search in an opened IndexBundle: nearest neighbours of vectors, with filters, while items change."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import IndexBundleManifest
from raysys.artifacts.embedding_set import UNIT_TOLERANCE, bad_rows, fault_of
from raysys.errors import InputError, MissingError
from raysys.index.attribute_summary import AttributeSummary, attribute_summaries
from raysys.index.device import CPU, Device
from raysys.index.filters import Filter, check_filter, require_known
from raysys.index.items import IndexedItem
from raysys.index.kinds import GPU_KINDS
from raysys.index.neighbours import Neighbours, merged
from raysys.index.partition import COMPLETE, Partition
from raysys.index.parts import num_files, open_parts
from raysys.index.state import State
from raysys.store.changes import LoggedChange, Upsert
from raysys.types import Attributes


class Neighbour(NamedTuple):
    """An item and the cosine of its vector with the query's vector."""

    item: IndexedItem
    score: float


class Searcher:
    """One index, with the changes that were applied; query vectors must belong to the space `space_id`.

    Vectors and items are opened by memory map after one reading for their checksums. The files may be deleted
    while they are open, as a build does, but not altered. A row is counted over all FAISS files, and the rows
    of items that were put later come after these; no row is used for two items. Threads may search while one
    applies changes.
    `device` compares many queries with all stored vectors; if `is_on_device`, it also searches a copy of the
    index, without filters. A copy cannot leave out the rows of changed items: it searches for more neighbours
    if at least half of the rows are left, otherwise the CPU searches.
    Of a `partition`, only its files are opened, only its items are found and changed, and a filter may name
    attributes that it does not know, because another partition may.
    Raises: MissingArtifact without an index, DamagedData if a file of it differs from its manifest,
    InputError for `is_on_device` with an index that a GPU cannot hold, and as `Partition.files`.
    """

    def __init__(
        self,
        uri: str,
        device: Device = CPU,
        *,
        is_on_device: bool = False,
        partition: Partition = COMPLETE,
    ) -> None:
        self.manifest = artifacts.open_artifact(uri, IndexBundleManifest)
        self.space_id = self.manifest.space_id
        if is_on_device:
            require_gpu_kind(uri, self.manifest)
        self.partition = partition
        base = tuple(open_parts(uri, self.manifest, device, is_on_device, partition))
        self.num_files = num_files(self.manifest)
        belongs = partial(partition.has, num_files=self.num_files)
        self._state = State.of_base(
            base, self.space_id, self.manifest.dimensions, self.manifest.last_change, belongs
        )
        self._applying = threading.Lock()

    @property
    def last_change(self) -> int:
        """The sequence number of the last change that was applied, also before the index was built."""
        return self._state.last_change

    @property
    def num_without_vector(self) -> int:
        """The number of items that were put without a vector of `space_id`: no search finds them yet."""
        return len(self._state.delta.without_vector)

    @property
    def version(self) -> str:
        """A short string that changes with the content of the index."""
        return f"{self.manifest.fingerprint[:12]}.{self.last_change}"

    def apply(self, changes: Sequence[LoggedChange]) -> None:
        """Put and delete items; a search sees all of these changes or none.

        Changes up to `last_change` are ignored, so a batch may be sent again. An item that is put without a
        vector of `space_id` can no longer be found, until a later change has one, or `apply_late_vectors`.
        Raises: DamagedData for a vector that does not fit the index; then no change is applied.
        """
        with self._applying:
            self._state = self._state.applied(changes)

    def apply_late_vectors(self, upserts: Sequence[Upsert]) -> None:
        """Put items of changes up to `last_change` that had no vector of `space_id` then, and have one now.

        Each must be the last change of its item. Raises: as `apply`.
        """
        with self._applying:
            self._state = self._state.with_late_vectors(upserts)

    def require_fitting(self, item_id: str, attributes: Attributes) -> None:
        """Check that the next build can index an item with these attributes.

        Their types must fit those of the index and of the items that were put since, other than this one.
        Raises: InputError that names the attribute and both types.
        """
        self._state.require_fitting(item_id, attributes)

    def with_effort(self, share: float) -> Searcher:
        """A snapshot whose searches examine this share of `nprobe` or `ef_search`: faster, with less recall.

        An exact index, and the items that were put since the index was built, are searched as before.
        """
        reduced = self.snapshot()
        base = tuple(part.with_effort(share) for part in self._state.base)
        reduced._state = replace(self._state, base=base)
        return reduced

    def snapshot(self) -> Searcher:
        """The index as it is now, for several calls that must agree; later changes do not reach it."""
        return copy.copy(self)

    @property
    def attribute_names(self) -> list[str]:
        """The attributes that at least one item has, sorted."""
        return [*self._state.attributes]

    def attribute_summaries(self) -> dict[str, AttributeSummary]:
        """The frequent values or the bounds of each attribute; it reads the attributes of all items."""
        return attribute_summaries(self._state)

    def __len__(self) -> int:
        return self._state.num_items

    def __contains__(self, item_id: object) -> bool:
        return isinstance(item_id, str) and self._state.row_of(item_id) is not None

    def search(
        self,
        vectors: Float32[ndarray, "q d"],
        k: int,
        *,
        where: Filter | None = None,
        exclude_rows: Sequence[int | None] | None = None,
        is_exact: bool = False,
    ) -> list[list[Neighbour]]:
        """The `k` nearest items of each vector, best first; fewer only where fewer exist or pass the filter.

        `vectors` have length 1 and belong to `space_id`; the caller checks the space. `where` keeps only
        items whose attributes meet its conditions. `exclude_rows[i]` is a row to leave out of the result of
        `vectors[i]`, for example the query item itself. `is_exact` compares the vectors with every stored one
        that passes, whatever the kind of index.
        Raises: InputError for an invalid `where`, and for vectors of another length or with a NaN.
        """
        now = self.snapshot()
        excluded = exclude_rows or [None] * len(vectors)
        # One more than `k`, because the excluded row may be among the nearest.
        found = now.nearest(vectors, k + 1 if exclude_rows else k, where=where, is_exact=is_exact)
        return [
            now._neighbours(*result, k) for result in zip(found.scores, found.rows, excluded, strict=True)
        ]

    def nearest(
        self,
        vectors: Float32[ndarray, "q d"],
        k: int,
        *,
        where: Filter | None = None,
        is_exact: bool = False,
    ) -> Neighbours:
        """`search` without the items: rows and scores. Raises: as `search`."""
        state = self._state
        if where is not None:
            check_filter(where)
            if self.partition.count == 1:
                require_known(where, state.attributes)
        queries = self._checked(vectors)
        return merged([part.search(queries, k, where, is_exact) for part in state.parts], k)

    def row_of(self, item_id: str) -> int:
        """The row of an item. Raises: MissingError if the index does not contain it."""
        row = self._state.row_of(item_id)
        if row is None:
            raise MissingError(f"item '{item_id}' is not in the index; check the id")
        return row

    def random_rows(self, limit: int, seed: int) -> Int64[ndarray, " n"]:
        """The rows of up to `limit` random items; equal seeds give equal rows of equal items."""
        state = self._state
        rows = [first + part.rows() for first, part in zip(state.first_rows, state.parts, strict=False)]
        return np.random.default_rng(seed).permutation(np.concatenate(rows))[:limit]

    def item(self, row: int) -> IndexedItem:
        """The item of a row; its attributes are null where it has none. Raises: MissingError as `vector`."""
        state = self._state
        part, row = state.part_of(row)
        item = part.item(row)
        if len(item.attributes) < len(state.attributes):  # no item of this part has the others
            return item._replace(attributes={**state.attributes, **item.attributes})
        return item

    def vector(self, row: int) -> Float32[ndarray, " d"]:
        """The stored vector of a row, of length 1; what the index has kept of it, if the kind compresses.

        Raises: MissingError if the item of the row was replaced or deleted.
        """
        part, row = self._state.part_of(row)
        return part.vector(row)

    def photo(self, row: int) -> bytes:
        """The encoded photo of a row: a ranged read of its shard, or the file with which the item was put.

        Raises: DamagedData if there is something else at this place since the item was embedded, MissingError
        for an item that was put without a photo, and as `vector`.
        """
        part, row = self._state.part_of(row)
        return part.photo(row)

    def _checked(self, vectors: ndarray) -> Float32[ndarray, "q d"]:
        """The queries as FAISS reads them."""
        if vectors.shape[1] != self.manifest.dimensions:
            raise InputError(
                f"vector: {self.manifest.dimensions} numbers are required, got {vectors.shape[1]}"
            )
        queries = np.ascontiguousarray(vectors, np.float32)
        # Of few queries this takes less time than numpy's comparison of all. A square is further from 1.
        if all(abs(float(np.vdot(query, query)) - 1.0) <= UNIT_TOLERANCE for query in queries):
            return queries
        bad = bad_rows(queries)
        if len(bad):
            raise InputError(
                f"vector: number {bad[0]} of {len(vectors)} {fault_of(vectors[bad[0]])}; "
                "finite vectors of length 1 are searched"
            )
        return queries

    def _neighbours(self, scores: ndarray, rows: ndarray, excluded: int | None, k: int) -> list[Neighbour]:
        pairs = zip(scores.tolist(), rows.tolist(), strict=True)
        kept = [(score, row) for score, row in pairs if row != excluded]
        return [Neighbour(self.item(row), score) for score, row in kept[:k]]


def require_gpu_kind(uri: str, manifest: IndexBundleManifest) -> None:
    """Raises: InputError for an index that a GPU cannot hold."""
    if manifest.index_kind not in GPU_KINDS:
        raise InputError(
            f"{uri}: a GPU searches an index of kind {' or '.join(GPU_KINDS)}, found {manifest.index_kind}; "
            "set index.kind and run `raysys index`, or set serve.search_on_gpu=false"
        )
