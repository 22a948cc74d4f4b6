"""A build folds the changes of a log in, and then equals an index of the items that exist after them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData, MissingError
from raysys.index.build import publish_index
from raysys.index.changes import ChangeSource
from raysys.index.search import Searcher
from raysys.store.change_log import ChangeLog
from raysys.store.changes import Change, Delete, PhotoFile, Upsert
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors

NUM, DIMENSIONS, SPACE = 60, 8, "s" * 64
VECTORS = unit_vectors(NUM, DIMENSIONS)


def upsert(item_id: str, vector: np.ndarray, title: str = "put", space: str = SPACE, **fields: Any) -> Upsert:
    values: dict[str, Any] = {"attributes": {"price": 3}, "photo": None, "group": "g", **fields}
    return Upsert(item_id, title, content_hash="h", vectors={space: vector}, **values)


def build(
    folder: Path, changes: list[Change], num_shards: int | None = None, attributes: list[str] | None = None
) -> Searcher:
    url = f"sqlite:///{folder}/store.db"
    log = ChangeLog(url)
    log.append(changes)
    source = ChangeSource(url, 5.0, log.last())
    log.close()
    embeddings = publish_embeddings(folder / "set", VECTORS, num_files=3, attributes=attributes)
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, embeddings, IndexConfig(kind="exact", shards=num_shards), changes=source)
    return Searcher(spec.uri)


@pytest.mark.parametrize("num_shards", [1, 3])
@pytest.mark.parametrize("seed", range(3))
def test_index_has_exactly_what_the_changes_leave(tmp_path: Path, seed: int, num_shards: int) -> None:
    rng, draws = random.Random(seed), np.random.default_rng(seed)
    expected = {f"m{row}": (VECTORS[row], "title") for row in range(NUM)}
    changes: list[Change] = []
    for _ in range(80):
        item_id = rng.choice([f"m{rng.randrange(NUM)}", f"n{rng.randrange(20)}"])
        if rng.random() < 0.4:
            changes.append(Delete(item_id))
            expected.pop(item_id, None)
        else:
            vector = draws.normal(size=DIMENSIONS)
            vector = np.asarray(vector / np.linalg.norm(vector), np.float32)
            changes.append(upsert(item_id, vector, f"title {len(changes)}"))
            expected[item_id] = vector, f"title {len(changes) - 1}"
    searcher = build(tmp_path, changes, num_shards)
    assert 0 < searcher.last_change <= len(changes)  # an item that is deleted twice is one change
    found = {
        searcher.item(row).item_id: (searcher.vector(row), searcher.item(row).title)
        for row in range(len(searcher))
    }
    assert found.keys() == expected.keys()
    for item_id, (vector, title) in expected.items():
        np.testing.assert_allclose(found[item_id][0], vector, atol=1e-6)
        assert found[item_id][1] == title
    assert not [*(tmp_path / "index").rglob("*.parquet")]


def test_put_item_has_its_columns(tmp_path: Path) -> None:
    (tmp_path / "photo").write_bytes(b"photo")
    photo = PhotoFile(str(tmp_path / "photo"), 5)
    kept = upsert("kept", VECTORS[0], photo=photo)
    searcher = build(tmp_path, [kept, upsert("none", VECTORS[1])])
    row = searcher.row_of("kept")
    assert searcher.item(row) == ("kept", "put", {"price": 3}, "g")
    with pytest.raises(DamagedData):
        searcher.photo(row)  # its hash is another one
    with pytest.raises(MissingError) as raised:
        searcher.photo(searcher.row_of("none"))
    assert str(raised.value) == "item 'none' was put without a photo; put it again with one"


def test_item_without_a_vector_of_the_space_is_not_in_the_index(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    searcher = build(tmp_path, [upsert("m1", VECTORS[0], space="other"), upsert("n", VECTORS[0])])
    assert len(searcher) == NUM
    assert "m1" not in searcher
    assert "1 items were put without a vector of this space" in caplog.text


@pytest.mark.parametrize("num_shards", [1, 3])
def test_values_of_another_type_than_before_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, num_shards: int
) -> None:
    attributes = ['{"price": 7}'] * (NUM - 1) + ['{"price": null, "code": 1152921504606846976}']
    puts: list[dict[str, Any]] = [
        {"price": "cheap", "size": 42},
        {"price": 9.5, "size": "M", "code": 0.5},
        {"price": True, "size": 43.5, "code": 3},
        {"price": 2**63, "size": None},
    ]
    changes: list[Change] = [
        upsert(f"n{number}", VECTORS[number], attributes=put) for number, put in enumerate(puts)
    ]
    searcher = build(tmp_path, changes, num_shards, attributes)
    assert [searcher.item(searcher.row_of(f"n{number}")).attributes for number in range(4)] == [
        {"code": None, "price": None, "size": 42},
        {"code": None, "price": 9.5, "size": None},
        {"code": 3, "price": None, "size": 43.5},
        {"code": None, "price": None, "size": None},
    ]
    assert [record.message for record in caplog.records if "left out" in record.message] == [
        f"index: attribute '{name}' of {count} items that were put has another type than in the catalogue or "
        f"in an item that was put before, and is left out (the first is item '{first}'); put these items again"
        for name, count, first in (("price", 3, "n0"), ("code", 1, "n1"), ("size", 1, "n1"))
    ]


def test_catalogue_that_was_deleted_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(DamagedData, match="without items cannot be indexed"):
        build(tmp_path, [Delete(f"m{row}") for row in range(NUM)])
    assert not (tmp_path / "index").exists()
