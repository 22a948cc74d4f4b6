"""An index whose partitions have deployments of their own: they are asked together, their results merged."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.index.attribute_summary import MAX_VALUES, AttributeSummary, ValueCount
from raysys.index.filters import require_known
from raysys.index.items import IndexedItem
from raysys.index.partition import Partition
from raysys.index.search import Neighbour
from raysys.index.shelf import ShelfOptions, require_known_limits, shelf_steps
from raysys.serve.index_service import FoundInPart, IndexInfo, SearchResult, StoredItem
from raysys.types import Attributes


class PartitionedIndex:
    """As an `IndexService` of the complete index; `handles` are those of the services of its partitions.

    What is about one item is asked of its partition, everything else of all of them. Each partition applies
    changes by itself, so for an instant one may be a change ahead of another.
    """

    def __init__(self, handles: Sequence[Any]) -> None:
        self._handles = handles
        self._num_files: dict[int, int] = {}
        """FAISS files of the index of each generation: they decide which partition has an item."""

    async def info(self, generation: int) -> IndexInfo:
        """The complete index of a generation; this and all below raise GenerationGone."""
        return _together(await self._all("info", generation))

    async def info_for(self, generation: int, item_id: str, attributes: Attributes) -> IndexInfo:
        """As that of `IndexService`: the types of an attribute agree over all partitions."""
        return _together(await self._all("info_for", generation, item_id, attributes))

    async def similar(
        self, generation: int, item_id: str, k: int, options: ShelfOptions, deadline: float
    ) -> SearchResult:
        """As that of `IndexService`."""
        partition = await self._partition_of(generation, item_id)
        own: StoredItem = await partition.stored_item.remote(generation, item_id)
        return await self._shelf(generation, own.vector, None, k, options, deadline, own.item)

    async def nearest(
        self,
        generation: int,
        vector: ndarray,
        space_id: str,
        k: int,
        options: ShelfOptions,
        deadline: float,
    ) -> SearchResult:
        """As that of `IndexService`."""
        return await self._shelf(generation, vector, space_id, k, options, deadline, None)

    async def sample(self, generation: int, limit: int, seed: int) -> list[IndexedItem]:
        """Random items; equal seeds give equal items."""
        sizes = [info.num_items for info in await self._all("info", generation)]
        rng = np.random.default_rng(seed)
        numbers = rng.multivariate_hypergeometric(sizes, min(limit, sum(sizes)))
        asked = zip(self._handles, numbers.tolist(), strict=True)
        found = await asyncio.gather(*(each.sample.remote(generation, num, seed) for each, num in asked))
        items = [*itertools.chain.from_iterable(found)]
        return [items[place] for place in rng.permutation(len(items))]

    async def opening_item(self, generation: int) -> IndexedItem | None:
        """The item with which the page opens: that of the first partition that has one."""
        for handle in self._handles:
            item: IndexedItem | None = await handle.opening_item.remote(generation)
            if item is not None:
                return item
        return None

    async def attributes(self, generation: int) -> tuple[str, dict[str, AttributeSummary]]:
        """The attributes of all items; a value that is rare in a partition may be counted too low."""
        infos, found = await asyncio.gather(
            self._all("info", generation), self._all("attributes", generation)
        )
        names = sorted({name for _, summaries in found for name in summaries})
        return _together(infos).index_version, {
            name: merged_summary([summaries[name] for _, summaries in found if name in summaries])
            for name in names
        }

    async def photo(self, generation: int, item_id: str, deadline: float) -> bytes:
        """As that of `IndexService`."""
        partition = await self._partition_of(generation, item_id)
        photo: bytes = await partition.photo.remote(generation, item_id, deadline)
        return photo

    async def _shelf(
        self,
        generation: int,
        vector: Float32[ndarray, " d"],
        space_id: str | None,
        k: int,
        options: ShelfOptions,
        deadline: float,
        own: IndexedItem | None,
    ) -> SearchResult:
        steps = shelf_steps(k, options, own)
        wanted, is_degraded = next(steps), False
        while True:
            found: list[FoundInPart] = await self._all(
                "search", generation, vector, space_id, wanted, deadline
            )
            is_degraded = is_degraded or any(part.is_degraded for part in found)
            names = sorted({name for part in found for name in part.attribute_names})
            require_known(options.where or {}, names)
            require_known_limits(options, names)
            complete: Attributes = dict.fromkeys(names)
            neighbours = [
                Neighbour(_with(complete, neighbour.item), neighbour.score)
                for part in found
                for neighbour in part.neighbours
            ]
            neighbours.sort(key=lambda one: (-one.score, one.item.item_id))
            try:
                wanted = steps.send(neighbours[: wanted.k])
            except StopIteration as end:
                info = _together([part.info for part in found])
                query = None if own is None else _with(complete, own)
                return SearchResult(info, end.value, query, is_degraded)

    async def _all(self, method: str, *arguments: Any) -> list[Any]:
        """The answers of all partitions."""
        return await asyncio.gather(*(getattr(each, method).remote(*arguments) for each in self._handles))

    async def _partition_of(self, generation: int, item_id: str) -> Any:
        if generation not in self._num_files:
            info: IndexInfo = await self._handles[0].info.remote(generation)
            self._num_files[generation] = info.num_files
        num_files, count = self._num_files[generation], len(self._handles)
        numbers = (number for number in range(count) if Partition(number, count).has(item_id, num_files))
        return self._handles[next(numbers)]


def merged_summary(summaries: Sequence[AttributeSummary]) -> AttributeSummary:
    """The summary of an attribute from those of the partitions that have it."""
    first = summaries[0]
    same = [summary for summary in summaries if summary.kind == first.kind]
    if first.kind == "number":
        return replace(
            first, min=min(_known(one.min for one in same)), max=max(_known(one.max for one in same))
        )
    counts: Counter[Any] = Counter()
    for summary in same:
        if summary.values is None:
            return AttributeSummary(first.kind)
        counts.update({value.value: value.count for value in summary.values})
    frequent = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_VALUES]
    num_values = max(len(counts), *(summary.num_values or 0 for summary in same))
    return AttributeSummary(first.kind, [ValueCount(*pair) for pair in frequent], num_values)


def _known(bounds: Iterable[float | int | None]) -> list[float | int]:
    return [bound for bound in bounds if bound is not None]


def _with(complete: Attributes, item: IndexedItem) -> IndexedItem:
    """The item with every attribute of the index."""
    if len(item.attributes) == len(complete):
        return item
    return item._replace(attributes={**complete, **item.attributes})


def _together(infos: Sequence[IndexInfo]) -> IndexInfo:
    """The complete index. Its version tells partitions of different changes from those of equal ones."""
    first, changes = infos[0], [info.last_change for info in infos]
    if len(set(changes)) == 1:
        version = first.index_version
    else:
        fingerprint = first.index_version.rpartition(".")[0]
        version = f"{fingerprint}.{'-'.join(map(str, changes))}"
    return replace(
        first,
        index_version=version,
        num_items=sum(info.num_items for info in infos),
        last_change=min(changes),
    )
