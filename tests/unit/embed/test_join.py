"""Vectors that were made elsewhere, joined with the items of shards."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts, pipeline, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, specs
from raysys.artifacts.embedding_set import LEDGER, read_embeddings, vector_files, vectors_of
from raysys.artifacts.intact import read_table
from raysys.artifacts.vectors import vectors_input
from raysys.columns import content_hash
from raysys.config import Config
from raysys.config.schema import StreamConfig
from raysys.embed.join import publish_joined
from raysys.errors import DamagedData, InputError
from raysys.shards.reader import Item, ShardRef
from tests.embedding_sets import publish_set
from tests.factories import photo, write_shards
from tests.unit.embed.test_stage import publish_shards

COLOURS = ["red", "blue", "green", "black", "white"]
IDS = [f"i{number}" for number in range(5)]
ITEMS = [
    Item(item_id, f"{colour} cup", photo(colour), {"price": number, "colour": colour})
    for number, (item_id, colour) in enumerate(zip(IDS, COLOURS, strict=True))
]
# Of the items in order, not of length 1.
VECTORS = [[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0], [8.0, 6.0], [0.0, -0.5]]


@pytest.fixture
def shards(tmp_path: Path) -> list[ShardRef]:
    return write_shards(tmp_path / "shards", ITEMS, items_per_shard=2)


def write_vectors(
    path: Path, vectors: dict[str, list[float]], names: tuple[str, str] = ("item_id", "embedding")
) -> str:
    column = pa.array([*vectors.values()], pa.list_(pa.float32()))
    pq.write_table(pa.table({names[0]: pa.array([*vectors], pa.string()), names[1]: column}), path)
    return str(path)


def join(
    root: Path, source_uri: str, shards: list[ShardRef], max_bad_fraction: float = 0.0
) -> EmbeddingSetManifest:
    source = vectors_input(source_uri)
    spec = ArtifactSpec(str(root / "embeddings"), EmbeddingSetManifest, {}, {"vectors": source})
    stream = StreamConfig(max_bad_fraction=max_bad_fraction)
    return publish_joined(spec, source, shards, stream, map)


def test_every_item_has_its_columns_and_its_unit_vector(
    tmp_path: Path, shards: list[ShardRef], caplog: pytest.LogCaptureFixture
) -> None:
    order = ["i3", "other", "i0", "i4", "i2", "i1"]
    by_id = {**dict(zip(IDS, VECTORS, strict=True)), "other": [1.0, 1.0]}
    uri = write_vectors(tmp_path / "v.parquet", {item_id: by_id[item_id] for item_id in order})
    with caplog.at_level(logging.INFO, logger="raysys"):
        manifest = join(tmp_path, uri, shards)
    table = read_embeddings(str(tmp_path / "embeddings"))
    rows = table.to_pylist()
    assert [row["item_id"] for row in rows] == IDS
    expected = np.array([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0], [0.8, 0.6], [0.0, -1.0]])
    np.testing.assert_allclose(vectors_of(table), expected, atol=1e-6)
    for row, item in zip(rows, ITEMS, strict=True):
        assert (row["title"], row["split"]) == (item.title, "train")
        assert json.loads(row["attributes"]) == item.attributes
        assert storage.read_range(row["shard"], row["image_offset"], row["image_bytes"]) == item.image
        assert row["content_hash"] == content_hash(item.image, item.title)
    assert (manifest.num_items, manifest.dimensions, manifest.num_refused) == (5, 2, 0)
    assert (
        "5 items have a vector of 2 dimensions, 0 have none; 1 vectors of other items are left out"
        in caplog.text
    )


def test_item_without_a_vector_is_in_the_ledger(tmp_path: Path, shards: list[ShardRef]) -> None:
    uri = write_vectors(
        tmp_path / "v.parquet", dict(zip(IDS[:4], VECTORS, strict=False))
    )  # not i4, alone in its shard
    manifest = join(tmp_path, uri, shards, max_bad_fraction=0.2)
    assert (manifest.num_items, manifest.num_refused) == (4, 1)
    (row,) = read_table(str(tmp_path / "embeddings"), LEDGER, manifest).to_pylist()
    assert row == {
        "item_id": "i4",
        "reason": "no_vector",
        "detail": f"{uri} has no vector of it",
        "source": shards[2].uri,
    }


def test_damaged_sample_is_in_the_ledger_with_its_own_reason(tmp_path: Path, shards: list[ShardRef]) -> None:
    path = Path(shards[0].uri)
    path.write_bytes(path.read_bytes().replace(b"red cup", b"rex cup"))
    uri = write_vectors(tmp_path / "v.parquet", dict(zip(IDS, VECTORS, strict=True)))
    manifest = join(tmp_path, uri, shards, max_bad_fraction=0.2)
    (row,) = read_table(str(tmp_path / "embeddings"), LEDGER, manifest).to_pylist()
    assert (row["item_id"], row["reason"]) == ("i0", "changed")
    with pytest.raises(
        DamagedData, match="has 1 of the 1 items .of 5. that cannot be embedded .first i0: changed"
    ):
        join(tmp_path, uri, shards)


def test_equal_content_is_one_space_and_other_content_another(tmp_path: Path, shards: list[ShardRef]) -> None:
    vectors = dict(zip(IDS, VECTORS, strict=True))
    first = join(tmp_path / "1", write_vectors(tmp_path / "1.parquet", vectors), shards)
    copy = join(tmp_path / "2", write_vectors(tmp_path / "2.parquet", vectors), shards)
    other = join(tmp_path / "3", write_vectors(tmp_path / "3.parquet", {**vectors, "i0": [1.0, 1.0]}), shards)
    assert first.space_id == copy.space_id != other.space_id
    assert first.fingerprint == copy.fingerprint


def test_embedding_set_keeps_its_space(tmp_path: Path, shards: list[ShardRef]) -> None:
    uri, rows = str(tmp_path / "set"), [(item.item_id, item.image) for item in ITEMS]
    publish_set(uri, {"a.parquet": rows}, np.eye(5, dtype=np.float32), space_id="e" * 64, title="old")
    assert join(tmp_path, uri, shards).space_id == "e" * 64
    assert read_embeddings(str(tmp_path / "embeddings")).column("title").to_pylist()[0] == "red cup"


def test_after_a_crash_only_incomplete_shards_are_read(tmp_path: Path, shards: list[ShardRef]) -> None:
    uri = write_vectors(tmp_path / "v.parquet", dict(zip(IDS, VECTORS, strict=True)))
    first = join(tmp_path, uri, shards)
    set_uri = tmp_path / "embeddings"
    (set_uri / "manifest.json").unlink()
    (set_uri / first.folder / vector_files(first)[1]).unlink()
    Path(shards[0].uri).unlink()  # complete: it is not opened
    assert join(tmp_path, uri, shards).files == first.files


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ({"7": [1.0, 0.0], "8": [1.0, 0.0]},
         "embed.vectors: {uri}: no item in common: it has 2 vectors (first of '7'), the shards have 5 items (first 'i0'); "
         "write the item ids of the catalogue"),
        (dict(zip(IDS[1:4], VECTORS[1:4], strict=True)),
         "embed.vectors: {uri}: 2 of 5 items have no vector (first 'i0', 'i4'), above stream.max_bad_fraction 0.2; "
         "add them, or raise the fraction"),
        (dict(zip(IDS, [*VECTORS[:4], [1.0, float("nan")]], strict=True)),
         "{uri}: 1 vectors are not usable (first: that of item 'i4' has a NaN); drop or replace them"),
        ({}, "{uri}: no rows; vectors of items are needed"),
    ],
    ids=["no item in common", "too many without", "NaN", "empty"],
)  # fmt: skip
def test_bad_vectors_are_refused_in_one_line_and_nothing_is_published(
    tmp_path: Path, shards: list[ShardRef], vectors: dict[str, list[float]], message: str
) -> None:
    uri = write_vectors(tmp_path / "v.parquet", vectors)
    with pytest.raises(InputError) as caught:
        join(tmp_path, uri, shards, max_bad_fraction=0.2)
    assert str(caught.value) == message.format(uri=uri)
    assert not (tmp_path / "embeddings" / "manifest.json").exists()


def test_repeated_ids_are_refused(tmp_path: Path, shards: list[ShardRef]) -> None:
    column = pa.array(VECTORS, pa.list_(pa.float32()))
    pq.write_table(pa.table({"item_id": [*IDS[:4], "i0"], "embedding": column}), tmp_path / "v.parquet")
    with pytest.raises(InputError, match=r"v\.parquet: 1 item ids occur more than once .first 'i0'"):
        join(tmp_path, str(tmp_path / "v.parquet"), shards)


def test_stage_refuses_other_columns_before_it_reads_a_shard(tmp_path: Path) -> None:
    uri = write_vectors(tmp_path / "v.parquet", {"i0": [1.0]}, ("item_id", "vector"))
    config = Config.model_validate({"root": str(tmp_path), "embed": {"vectors": uri, "to": "production"}})
    with pytest.raises(InputError, match=r"no column 'embedding' .found: item_id, vector.; "):
        pipeline.run_stage("embed", config)


@pytest.mark.parametrize("place", ["production", "production/v.parquet"])
def test_stage_refuses_a_source_that_it_would_replace(tmp_path: Path, place: str) -> None:
    settings = {"vectors": f"{tmp_path}/embeddings/{place}", "to": "production"}
    config = Config.model_validate({"root": str(tmp_path), "embed": settings})
    with pytest.raises(
        InputError, match=f"{place} is in the folder of the set that is made from it; move it"
    ):
        pipeline.run_stage("embed", config)


def test_stage_names_its_set_and_follows_the_content_of_the_vectors(tmp_path: Path) -> None:
    settings = {"vectors": str(tmp_path / "v.parquet"), "to": "production", "splits": ["val"]}
    config = Config.model_validate({"root": str(tmp_path), "embed": settings})
    publish_shards(specs.layout_of(config).shards("val"), "val", 2)

    def spec_of(vectors: dict[str, list[float]]) -> ArtifactSpec:
        write_vectors(tmp_path / "v.parquet", vectors)
        (spec,) = pipeline.stage_steps("embed", config)[0].specs()
        return spec

    first, again, other = spec_of({"val0": [1.0]}), spec_of({"val0": [1.0]}), spec_of({"val0": [2.0]})
    assert first.uri == str(tmp_path / "embeddings" / "production")
    assert first.spec_hash == again.spec_hash != other.spec_hash
    assert artifacts.find_up_to_date(first) is None
