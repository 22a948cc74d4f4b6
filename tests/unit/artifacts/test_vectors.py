"""Vectors of items from an EmbeddingSet and from plain Parquet, and the error for each kind of bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest
from raysys.artifacts.vectors import iter_vectors, read_vectors, require_vectors, vectors_input
from raysys.columns import embedding_schema
from raysys.errors import InputError, MissingError


def write(path: Path, item_ids: list[Any], vectors: list[Any], dtype: pa.DataType | None = None) -> str:
    embedding = pa.array(vectors, dtype or pa.list_(pa.float32()))
    pq.write_table(pa.table({"item_id": item_ids, "embedding": embedding}), path)
    return str(path)


def write_embedding_set(folder: Path) -> str:
    """An EmbeddingSet of `a` and `b` in two files."""
    spec = ArtifactSpec(str(folder), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    for item_id, vector in (("a", [1.0, 0.0]), ("b", [0.6, 0.8])):
        row = {"item_id": item_id, "title": "", "attributes": "{}", "split": "test", "shard": "",
               "image_offset": 0, "image_bytes": 0, "content_hash": "", "embedding": vector}  # fmt: skip
        pq.write_table(
            pa.Table.from_pylist([row], schema=embedding_schema(2)), folder / f"test-{item_id}.parquet"
        )
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), 2, 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="s", dimensions=2))
    return str(folder)


@pytest.mark.parametrize(
    "dtype",
    [
        pa.list_(pa.float16()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.float16(), 2),
        pa.large_list(pa.float64()),
        pa.list_(pa.int8()),
    ],
    ids=str,
)
def test_vectors_of_every_number_type_are_unit_vectors_in_float32(tmp_path: Path, dtype: pa.DataType) -> None:
    numbers = [[np.float16(value) for value in row] for row in ([3, 4], [0, 2])]
    if pa.types.is_integer(dtype.value_type):
        numbers = [[3, 4], [0, 2]]  # type: ignore[list-item]
    uri = write(tmp_path / "v.parquet", [7, 8], numbers, dtype)
    item_ids, vectors = read_vectors(uri)
    assert item_ids == ["7", "8"]
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [0.0, 1.0]], atol=1e-7)


def test_only_wanted_items_are_read_and_checked(tmp_path: Path) -> None:
    uri = write(tmp_path / "v.parquet", ["bad", "b", "a"], [[np.nan, 1.0], [0.0, 1.0], [1.0, 0.0]])
    item_ids, vectors = read_vectors(uri, {"a", "b", "sold"})
    assert item_ids == ["b", "a"]
    assert vectors.tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert read_vectors(uri, {"sold"})[0] == []


def test_folder_of_files_is_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path / "2.parquet", ["a"], [[1.0]])
    write(tmp_path / "1.parquet", ["b"], [[1.0]])
    (tmp_path / "_SUCCESS").write_text("")
    assert read_vectors(str(tmp_path))[0] == ["b", "a"]


def test_embedding_set_is_read_by_its_manifest(tmp_path: Path) -> None:
    uri = write_embedding_set(tmp_path / "embeddings")
    assert read_vectors(uri)[0] == ["a", "b"]
    assert read_vectors(uri, ["b"])[1].tolist() == [[np.float32(0.6), np.float32(0.8)]]
    manifest = artifacts.open_artifact(uri, EmbeddingSetManifest)
    assert vectors_input(uri).fingerprint == manifest.fingerprint


def test_fingerprint_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    first, same, other = (
        write(tmp_path / f"{number}.parquet", ["a"], [[value]])
        for number, value in enumerate((1.0, 1.0, 2.0))
    )
    assert vectors_input(first).fingerprint == vectors_input(same).fingerprint
    assert vectors_input(first).fingerprint != vectors_input(other).fingerprint


@pytest.mark.parametrize(
    ("item_ids", "vectors", "message"),
    [
        (["a", "b", "a"], [[1.0], [1.0], [1.0]], "1 item ids occur more than once (first 'a')"),
        (["a", "b"], [[1.0], [np.nan]], "1 vectors are not usable (first: that of item 'b' has a NaN)"),
        (["a", "b"], [[np.inf], [1.0]], "(first: that of item 'a' has an infinite value)"),
        (["a", "b"], [[1.0, 0.0], [0.0, 0.0]], "(first: that of item 'b' has only zeros)"),
        (["a", "b"], [[1.0], None], "(first: that of item 'b' has none)"),
        (["a", "b"], [[1.0], [None]], "(first: that of item 'b' has a NaN)"),
        (["a", "b"], [[], []], "(first: that of item 'a' has no numbers)"),
        (["a", "b"], [[1.0], [1.0, 2.0]], "the vector of item 'b' has 2 numbers, others have 1"),
        (["a", None], [[1.0], [1.0]], "1 rows have no item_id"),
    ],
)
def test_bad_row_is_one_line_that_names_the_first(
    tmp_path: Path, item_ids: list[Any], vectors: list[Any], message: str
) -> None:
    uri = write(tmp_path / "v.parquet", item_ids, vectors)
    with pytest.raises(InputError) as caught:
        read_vectors(uri)
    assert str(caught.value).startswith(f"{uri}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": ["a"], "embedding": [[1.0]]}, "no column 'item_id' (found: id, embedding)"),
        ({"item_id": ["a"], "vector": [[1.0]]}, "no column 'embedding' (found: item_id, vector)"),
        ({"item_id": ["a"], "embeding": [[1.0]]}, "did you mean 'embeding'?"),
        (
            {"item_id": [1.5], "embedding": [[1.0]]},
            "column 'item_id' is double, should be text or an integer",
        ),
        (
            {"item_id": ["a"], "embedding": ["[1]"]},
            "column 'embedding' is string, should be a list of numbers",
        ),
    ],
)
def test_columns_are_checked_before_vectors_are_read(
    tmp_path: Path, table: dict[str, Any], message: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "v.parquet")
    for check in (require_vectors, vectors_input, read_vectors):
        with pytest.raises(InputError) as caught:
            check(str(tmp_path / "v.parquet"))
        assert message in str(caught.value)


def test_file_of_another_format_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        require_vectors(str(tmp_path / "v.npy"))


def test_source_that_does_not_exist_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        require_vectors(f"{tmp_path}/none.parquet")
    assert str(caught.value) == (
        f"{tmp_path}/none.parquet: no such vectors; an EmbeddingSet, or a Parquet file or folder with item_id "
        "and embedding is needed"
    )
    with pytest.raises(MissingError, match="no Parquet file in this folder"):
        require_vectors(str(tmp_path))


def test_file_without_rows_is_an_error(tmp_path: Path) -> None:
    table = pa.table(
        {"item_id": pa.array([], pa.string()), "embedding": pa.array([], pa.list_(pa.float32()))}
    )
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(InputError, match="no rows"):
        read_vectors(str(tmp_path / "v.parquet"))


def test_memory_holds_a_part_of_a_file_and_not_all_of_it(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(80_000, 128)).astype(np.float32)  # 41 MB in one row group
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 128)
    pq.write_table(
        pa.table({"item_id": np.arange(len(vectors)), "embedding": embedding}), tmp_path / "v.parquet"
    )
    before = pa.total_allocated_bytes()
    allocated = [pa.total_allocated_bytes() - before for _ in iter_vectors(str(tmp_path / "v.parquet"))]
    assert len(allocated) == 10  # parts of 8,192 vectors, 4 MB
    assert max(allocated) < 30e6
