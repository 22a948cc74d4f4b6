"""Partitions that are asked together answer as the complete index does, also while items change."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.artifacts.served import ServedPair
from raysys.config.schema import IndexConfig
from raysys.errors import GenerationGone, InputError, MissingError, RaysysError, SpaceMismatch
from raysys.index.attribute_summary import AttributeSummary, ValueCount
from raysys.index.build import publish_index
from raysys.index.partition import Partition
from raysys.index.shelf import ShelfOptions
from raysys.serve.index_service import IndexInfo, IndexService, IndexSettings
from raysys.serve.partitioned_index import PartitionedIndex, merged_summary
from raysys.store.changes import Change, Delete, LoggedChange
from tests.unit.index.changes import SPACE, Log, upsert
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors
from tests.unit.serve.conftest import Handle

NUM, DIMENSIONS, NUM_FILES, NUM_PARTITIONS = 400, 8, 3, 2
VECTORS = unit_vectors(NUM, DIMENSIONS)
QUERIES = unit_vectors(20, DIMENSIONS, seed=1)
FAR = 1e12  # a deadline


def pair_of(uri: str) -> ServedPair:
    return ServedPair(generation=1, encoder_uri=None, index_uri=uri, space_id=SPACE, index_version="v")


class Both(NamedTuple):
    """The same index, complete and in partitions."""

    complete: IndexService
    parts: list[IndexService]
    partitioned: PartitionedIndex

    @classmethod
    def of(cls, uri: str, place: str) -> Both:
        def service(partition: Partition) -> IndexService:
            return IndexService(pair_of(uri), place, IndexSettings(None, 4, 256, partition=partition))

        parts = [service(Partition(number, NUM_PARTITIONS)) for number in range(NUM_PARTITIONS)]
        return cls(service(Partition()), parts, PartitionedIndex([*map(Handle, parts)]))

    def same(self, method: str, *arguments: Any) -> Any:
        """What both return."""
        found = [
            asyncio.run(_outcome(getattr(one, method), *arguments))
            for one in (self.complete, self.partitioned)
        ]
        assert found[0] == found[1]
        return found[0]

    def apply(self, changes: list[LoggedChange]) -> None:
        for service in (self.complete, *self.parts):
            asyncio.run(service._generations.get(1)).searcher.apply(changes)


async def _outcome(method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    try:
        return await method(*arguments)
    except RaysysError as error:
        return type(error), str(error)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("partitions")
    attributes = [
        json.dumps({"seller": f"s{row % 7}", "price": row} | ({"rare": True} if row == 5 else {}))
        for row in range(NUM)
    ]
    groups = [f"g{row // 4}" if row < 200 else "" for row in range(NUM)]
    embeddings = publish_embeddings(folder / "set", VECTORS, attributes=attributes, groups=groups)
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, embeddings, IndexConfig(kind="exact", shards=NUM_FILES))
    return spec.uri


@pytest.fixture
def both(uri: str, tmp_path: Path) -> Both:
    return Both.of(uri, str(tmp_path / "served.json"))


OPTIONS = [
    ShelfOptions(),
    ShelfOptions({"seller": {"in": ["s1", "s2"]}, "price": {"lte": 300}}, None, True),
    ShelfOptions(None, {"seller": 2}),
    ShelfOptions({"rare": {"in": [True]}}),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_shelves_are_those_of_the_complete_index(both: Both, options: ShelfOptions) -> None:
    for number, query in enumerate(QUERIES):
        result = both.same("nearest", 1, query, SPACE, 10, options, FAR)
        assert result.neighbours[0].score <= 1
        assert both.same("similar", 1, f"m{number}", 10, options, FAR).query.item_id == f"m{number}"


def test_partitions_share_the_items(both: Both) -> None:
    sizes = [asyncio.run(part.info(1)).num_items for part in both.parts]
    assert sum(sizes) == NUM
    assert min(sizes) > 0
    assert both.same("info", 1).num_items == NUM
    _, summaries = both.same("attributes", 1)
    assert summaries["price"] == AttributeSummary("number", min=0, max=NUM - 1)
    assert summaries["seller"].values[0] == ValueCount("s0", 58)


def test_changes_are_those_of_the_complete_index(both: Both) -> None:
    log = Log()
    new: list[Change] = [
        upsert(f"n{number}", QUERIES[number], {"price": number, "size": 4}) for number in range(8)
    ]
    for change in [
        *new,
        Delete("m3"),
        upsert("m4", QUERIES[8], {"seller": "s9"}),
        Delete("n1"),
        Delete("m4"),
    ]:
        both.apply(log.batch(change))
        assert both.same("info", 1).last_change == len(log.changes)
        for query in QUERIES[:10]:
            both.same("nearest", 1, query, SPACE, 5, ShelfOptions(), FAR)
    both.same("nearest", 1, QUERIES[0], SPACE, 5, ShelfOptions({"size": {"gte": 2}}), FAR)
    assert both.same("similar", 1, "n0", 5, ShelfOptions(), FAR).query.attributes == {
        "price": 0, "rare": None, "seller": None, "size": 4,
    }  # fmt: skip
    assert both.same("similar", 1, "n1", 5, ShelfOptions(), FAR)[0] is MissingError


def test_errors_are_those_of_the_complete_index(both: Both) -> None:
    def nearest(options: ShelfOptions) -> Any:
        return both.same("nearest", 1, QUERIES[0], SPACE, 5, options, FAR)

    kind, message = nearest(ShelfOptions({"sellr": {"in": ["s1"]}}))
    assert (kind, "did you mean 'seller'" in message) == (InputError, True)
    assert nearest(ShelfOptions({"seller": {"gte": 3}}))[0] is InputError
    assert nearest(ShelfOptions({"seller": 3}))[0] is InputError
    assert nearest(ShelfOptions(None, {"sellr": 3}))[0] is InputError
    assert nearest(ShelfOptions(None, {"seller": 0}))[0] is InputError
    assert both.same("nearest", 1, QUERIES[0], "o" * 64, 5, ShelfOptions(), FAR)[0] is SpaceMismatch
    assert both.same("info", 7)[0] is GenerationGone
    assert both.same("info_for", 1, "new", {"price": "cheap"})[0] is InputError
    assert isinstance(both.same("info_for", 1, "new", {"price": 3}), IndexInfo)
    assert both.same("photo", 1, "unknown", FAR)[0] is MissingError


def test_equal_seeds_give_equal_samples(both: Both) -> None:
    def ids(limit: int, seed: int) -> list[str]:
        return [item.item_id for item in asyncio.run(both.partitioned.sample(1, limit, seed))]

    assert ids(20, 1) == ids(20, 1) != ids(20, 2)
    assert len({*ids(NUM + 5, 1)}) == NUM
    number = [np.mean([int(item_id[1:]) for item_id in ids(40, seed)]) for seed in range(20)]
    assert abs(np.mean(number) - NUM / 2) < 20  # standard error: 3.9


def test_version_tells_which_partition_has_more_changes(both: Both) -> None:
    same = asyncio.run(both.partitioned.info(1)).index_version
    [logged] = Log().batch(Delete("m1"))
    asyncio.run(both.parts[1]._generations.get(1)).searcher.apply([logged])
    ahead = asyncio.run(both.partitioned.info(1))
    assert (ahead.last_change, ahead.index_version) == (0, same + "-1")
    asyncio.run(both.parts[0]._generations.get(1)).searcher.apply([logged])
    assert asyncio.run(both.partitioned.info(1)).index_version == same.removesuffix("0") + "1"


def test_page_opens_with_an_item_of_the_index(both: Both) -> None:
    item = asyncio.run(both.partitioned.opening_item(1))
    assert item is not None
    assert item.item_id.startswith("m")


def test_index_with_too_few_files_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"4 search partitions need as many FAISS files, found 3; set index.shards=4"
    ):
        IndexService(
            pair_of(uri),
            str(tmp_path / "served.json"),
            IndexSettings(None, 4, 256, partition=Partition(0, 4)),
        )


def test_summaries_of_partitions_are_added() -> None:
    def texts(*pairs: tuple[str, int]) -> AttributeSummary:
        return AttributeSummary("text", [ValueCount(*pair) for pair in pairs], len(pairs))

    assert merged_summary([texts(("a", 3), ("b", 2)), texts(("b", 2))]) == texts(("b", 4), ("a", 3))
    assert merged_summary([texts(("a", 3)), AttributeSummary("text")]) == AttributeSummary("text")
    low, high = AttributeSummary("number", min=1, max=2), AttributeSummary("number", min=0.5, max=1)
    assert merged_summary([low, high]) == AttributeSummary("number", min=0.5, max=2)
    assert merged_summary([low, texts(("a", 1))]) == low
