"""The attributes of an index, as filters offer them, over several files and after changes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.index.attribute_summary import AttributeSummary, ValueCount
from raysys.index.build import publish_index
from raysys.index.search import Searcher
from raysys.store.changes import Delete
from raysys.types import Attributes
from tests.unit.index.changes import Log, upsert
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors


def searcher_of(folder: Path, attributes: Sequence[Attributes], shards: int = 1) -> Searcher:
    """An index of items m0, m1, .. with these attributes."""
    texts = [json.dumps(each) for each in attributes]
    uri = publish_embeddings(folder / "e", unit_vectors(len(texts), 8), attributes=texts)
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, uri, IndexConfig(kind="exact", shards=shards))
    return Searcher(spec.uri)


def of_row(row: int) -> Attributes:
    category = None if row == 0 else ["shoes", "shoes", "bags"][row % 3]
    return {"category": category, "price": 10 * row, "weight": row / 2, "is_new": row == 1, "code": f"c{row}"}


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_every_kind_of_attribute_is_summarized_over_all_files(tmp_path: Path, shards: int) -> None:
    # Categories of rows 1 to 6: shoes, bags, shoes, shoes, bags, shoes; row 0 has none.
    assert searcher_of(tmp_path, [of_row(row) for row in range(7)], shards).attribute_summaries() == {
        "category": AttributeSummary("text", [ValueCount("shoes", 4), ValueCount("bags", 2)], 2),
        "code": AttributeSummary("text"),
        "is_new": AttributeSummary("boolean", [ValueCount(False, 6), ValueCount(True, 1)], 2),
        "price": AttributeSummary("number", min=0, max=60),
        "weight": AttributeSummary("number", min=0.0, max=3.0),
    }


def test_only_the_most_frequent_values_are_listed(tmp_path: Path) -> None:
    attributes: list[Attributes] = [{"seller": f"s{row % 51:02}"} for row in range(3 * 51)]
    summary = searcher_of(tmp_path, [*attributes, {"seller": "s50"}]).attribute_summaries()["seller"]
    assert summary.num_values == 51
    assert summary.values is not None
    assert summary.values[:2] == [ValueCount("s50", 4), ValueCount("s00", 3)]
    assert len(summary.values) == 50  # without s49, the last of equally frequent ones


def test_changes_count_and_replaced_and_deleted_items_do_not(tmp_path: Path) -> None:
    searcher = searcher_of(tmp_path, [of_row(row) for row in range(7)], shards=2)
    vector = unit_vectors(1, 8, seed=1)[0]
    searcher.apply(
        Log().batch(
            Delete("m6"),
            upsert("m1", vector, {"category": "shoes", "price": 99, "size": "L"}),
            upsert(
                "n1", vector, {"category": 5, "price": "low", "size": "L"}
            ),  # of other kinds than the index
        )
    )
    summaries = searcher.attribute_summaries()
    # Left of the index: m0, m2, m3, m4, m5: no category, bags, shoes, shoes, bags.
    assert summaries["category"].values == [ValueCount("shoes", 3), ValueCount("bags", 2)]
    assert summaries["price"] == AttributeSummary("number", min=0, max=99)
    assert summaries["size"] == AttributeSummary("text", [ValueCount("L", 2)], 1)
    assert summaries["is_new"].values == [ValueCount(False, 5)]


def test_attribute_that_no_item_has_is_left_out(tmp_path: Path) -> None:
    searcher = searcher_of(tmp_path, [{"size": None}, {"size": "L"}])
    searcher.apply(Log().batch(Delete("m1")))
    assert searcher.attribute_summaries() == {}
