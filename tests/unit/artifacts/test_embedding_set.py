"""Reading an EmbeddingSet: usable vectors, or an error that names the file, the item and the fault."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest
from raysys.artifacts.embedding_set import (
    UNIT_TOLERANCE,
    bad_rows,
    read_embeddings,
    refused_ids,
    require_unique_ids,
    vectors_of,
)
from raysys.columns import LEDGER_SCHEMA, embedding_schema
from raysys.errors import DamagedData

UNIT = [0.6, 0.8]


def publish(folder: Path, vectors: list[list[float] | None], dimensions: int = 2, stated: int = 2) -> str:
    """An EmbeddingSet of the items i0, i1, .. in one file."""
    rows = [
        {"item_id": f"i{number}", "title": "", "attributes": "{}", "split": "train", "shard": "a.tar",
         "image_offset": 0, "image_bytes": 0, "content_hash": "", "embedding": vector}
        for number, vector in enumerate(vectors)
    ]  # fmt: skip
    spec = ArtifactSpec(str(folder), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=embedding_schema(dimensions)), folder / "train-0.parquet"
    )
    ledger = [{"item_id": "lost", "reason": "bad_vector", "detail": "", "source": "a.tar"}]
    pq.write_table(pa.Table.from_pylist(ledger, schema=LEDGER_SCHEMA), folder / "ledger.parquet")
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), len(rows), 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="s" * 64, dimensions=stated))
    return str(folder)


@pytest.mark.parametrize(
    ("vector", "fault"),
    [
        ([np.nan, 1.0], "has a NaN"),
        ([np.nan, np.inf], "has a NaN"),
        ([0.0, np.inf], "has an infinite value"),
        ([-np.inf, 0.0], "has an infinite value"),
        ([0.0, 0.0], "has only zeros"),
        ([3.0, 4.0], "has length 5 instead of 1"),
        ([0.0, 1.01], "has length 1.01 instead of 1"),
        ([3e38, 3e38], "has length 4.24264e+38 instead of 1"),  # its square is no float32
        ([1e-30, 0.0], "has length 1e-30 instead of 1"),
        (None, "has none"),
    ],
)
def test_vector_that_is_not_usable_is_named(tmp_path: Path, vector: list[float] | None, fault: str) -> None:
    uri = publish(tmp_path / "set", [UNIT, vector, UNIT])
    with pytest.raises(DamagedData) as caught:
        read_embeddings(uri)
    assert str(caught.value) == (
        f"{uri}/train-0.parquet: 1 of 3 vectors are not usable (first: that of item 'i1' {fault}); "
        f"delete {uri}, then run `raysys embed` again"
    )


def test_lengths_within_the_tolerance_are_usable() -> None:
    just_inside, just_outside = 1 + 0.9 * UNIT_TOLERANCE, 1 + 1.1 * UNIT_TOLERANCE
    vectors = np.array([[1, 0], [just_inside, 0], [just_outside, 0], [0, 2 - just_outside]], np.float32)
    assert bad_rows(vectors).tolist() == [2, 3]


def test_vectors_of_other_dimensions_than_the_manifest_are_refused(tmp_path: Path) -> None:
    uri = publish(tmp_path / "set", [[1.0, 0.0, 0.0]], dimensions=3, stated=2)
    with pytest.raises(DamagedData, match="not those of an EmbeddingSet of 2 dimensions .found: item_id"):
        read_embeddings(uri)


def test_usable_vectors_are_returned_unchanged(tmp_path: Path) -> None:
    table = read_embeddings(publish(tmp_path / "set", [UNIT, [1.0, 0.0]]))
    assert vectors_of(table).tolist() == np.array([UNIT, [1.0, 0.0]], np.float32).tolist()


def test_set_without_items_has_no_vectors(tmp_path: Path) -> None:
    assert vectors_of(read_embeddings(publish(tmp_path / "set", []))).shape == (0, 2)


def test_ledger_names_the_refused_items(tmp_path: Path) -> None:
    assert refused_ids(publish(tmp_path / "set", [UNIT])) == {"lost"}


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        (["a 1", "b 1", "a 2"], "1 item ids occur more than once (first 'a' in 1, 2); pack"),
        (["b 3", "a 1", "b 2", "c 1", "a 1", "b 3"], "2 item ids .. (first 'b' in 3, 2; 'a' in 1); pack"),
        (
            [f"{n} 1" for n in [*range(9), *range(9)]],
            "9 item ids .. (first '0' in 1; '1' in 1; '2' in 1); pack",
        ),
        ([f"a {n}" for n in range(9)], "1 item ids .. (first 'a' in 0, 1, 2); pack"),
    ],
)
def test_repeated_ids_are_named_with_their_shards(rows: list[str], named: str) -> None:
    ids, shards = zip(*(row.split() for row in rows), strict=True)
    with pytest.raises(DamagedData) as caught:
        require_unique_ids("set", pa.table({"item_id": ids, "shard": shards}), "pack")
    assert str(caught.value) == "set: " + named.replace("..", "occur more than once")


@pytest.mark.parametrize("ids", [[], ["a"], ["a", "A", "a ", "赤"]])
def test_unique_ids_are_accepted(ids: list[str]) -> None:
    column = pa.array(ids, pa.string())
    require_unique_ids("set", pa.table({"item_id": column, "shard": column}), "pack")
