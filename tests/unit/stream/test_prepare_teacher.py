"""The teacher's vectors from any table to the rows of a block."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import EmbeddingSetManifest, InputEntry
from raysys.artifacts.vectors import vectors_input
from raysys.encoder.projection import Moments, fit_projection
from raysys.errors import InputError, MissingError, RaysysError
from raysys.shards.reader import Item, ShardRef
from raysys.stream.prepare_teacher import prepare_teacher
from tests.factories import photo, write_shards
from tests.unit.artifacts.test_embedding_set import publish

IDS = [f"i{number}" for number in range(6)]
ITEMS = [Item(item_id, f"title {item_id}", photo()) for item_id in IDS]


@pytest.fixture
def shards(tmp_path: Path) -> list[ShardRef]:
    return write_shards(tmp_path / "shards", ITEMS, items_per_shard=4)


def raw_vectors() -> ndarray:
    return np.random.default_rng(2).normal(size=(7, 5)).astype(np.float16)


def write_table(path: Path, ids: list[Any], vectors: Any, kind: pa.DataType | None = None) -> str:
    path.parent.mkdir(exist_ok=True)
    column = pa.array([list(vector) for vector in vectors], kind or pa.list_(pa.float16()))
    pq.write_table(pa.table({"item_id": ids, "embedding": column}), path)
    return str(path)


def block_of(rows: list[tuple[int, str, str]]) -> pa.Table:
    numbers, ids, reasons = zip(*rows, strict=True)
    return pa.table({"shard_number": list(numbers), "item_id": list(ids), "reason": list(reasons)})


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float16()),
        pa.list_(pa.float32(), 5),
        pa.large_list(pa.float64()),
        pa.list_(pa.float16(), 5),
    ],
    ids=str,
)
def test_rows_of_a_block_have_the_projected_vectors_of_their_items(
    tmp_path: Path, shards: list[ShardRef], kind: pa.DataType
) -> None:
    vectors = raw_vectors()
    write_table(tmp_path / "teacher" / "a.parquet", ["other", "i5", "i4"], vectors[[6, 5, 4]], kind)
    write_table(tmp_path / "teacher" / "b.parquet", IDS[:4], vectors[:4], kind)
    teacher = prepare_teacher(str(tmp_path / "teacher"), str(tmp_path / "run"), shards, max_bad_fraction=0.0)
    got = teacher.of_block(block_of([(1, "i4", ""), (0, "i2", ""), (0, "i1", "unreadable_photo")]))

    units = vectors[[5, 4, 0, 1, 2, 3]].astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    projected = fit_projection(Moments.of(units), 5).apply(units)
    assert got.dtype == np.float16
    np.testing.assert_allclose(got[:2], projected[[1, 4]], atol=2e-3)
    assert not got[2].any()


def test_embedding_set_is_a_teacher(tmp_path: Path, shards: list[ShardRef]) -> None:
    uri = publish(
        tmp_path / "set", [[0.6, 0.8], [1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [-1.0, 0.0], [0.0, -1.0]]
    )
    fingerprint = artifacts.open_artifact(uri, EmbeddingSetManifest).fingerprint
    assert vectors_input(uri) == InputEntry(uri=uri, fingerprint=fingerprint)
    teacher = prepare_teacher(uri, str(tmp_path / "run"), shards, max_bad_fraction=0.0)
    got = teacher.of_block(block_of([(0, "i1", ""), (1, "i5", "")]))
    assert teacher.dimensions == 2
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-3)


def test_second_start_reads_what_the_first_wrote(tmp_path: Path, shards: list[ShardRef]) -> None:
    uri = write_table(tmp_path / "t.parquet", IDS, raw_vectors()[:6])
    first = prepare_teacher(uri, str(tmp_path / "run"), shards, max_bad_fraction=0.0)
    Path(uri).unlink()
    assert prepare_teacher(uri, str(tmp_path / "run"), shards, max_bad_fraction=0.0) == first


def test_missing_items_have_zeros_and_are_counted(
    tmp_path: Path, shards: list[ShardRef], caplog: pytest.LogCaptureFixture
) -> None:
    uri = write_table(tmp_path / "t.parquet", IDS[:5], raw_vectors()[:5])
    with caplog.at_level(logging.WARNING, logger="raysys"):
        teacher = prepare_teacher(uri, str(tmp_path / "run"), shards, max_bad_fraction=0.2)
    assert "1 of 6 training items have no vector (first 'i5'); they train without it" in caplog.text
    got = teacher.of_block(block_of([(1, "i4", ""), (1, "i5", "")]))
    assert got.any(axis=1).tolist() == [True, False]


def test_too_many_missing_items_are_refused(tmp_path: Path, shards: list[ShardRef]) -> None:
    uri = write_table(tmp_path / "t.parquet", IDS[:4], raw_vectors()[:4])
    with pytest.raises(InputError) as caught:
        prepare_teacher(uri, str(tmp_path / "run"), shards, max_bad_fraction=0.2)
    assert str(caught.value) == (
        f"train.teacher.embeddings: {uri}: 2 of 6 training items have no vector (first 'i4', 'i5'), above "
        "stream.max_bad_fraction 0.2; embed them with the teacher, or raise the fraction"
    )


NAN, INFINITE, ZERO, OTHER_SIZE = [np.nan] * 5, [np.inf] * 5, [0.0] * 5, [1.0] * 4


@pytest.mark.parametrize(
    ("ids", "last", "message"),
    [
        (IDS, NAN, "1 vectors are not usable (first: that of item 'i5' has a NaN)"),
        (IDS, INFINITE, "'i5' has an infinite value"),
        (IDS, ZERO, "'i5' has only zeros"),
        (IDS, OTHER_SIZE, "the vector of item 'i5' has 4 numbers, others have 5"),
        (IDS, [1.0, None, 1.0, 1.0, 1.0], "'i5' has a NaN"),
        ([*IDS[:5], "i4"], [1.0] * 5, "1 item ids occur more than once (first 'i4'); keep one row of each"),
        ([*IDS[:5], None], [1.0] * 5, "1 rows have no item_id"),
    ],
)
def test_bad_rows_are_named(
    tmp_path: Path, shards: list[ShardRef], ids: list[Any], last: list[Any], message: str
) -> None:
    uri = write_table(tmp_path / "t.parquet", ids, [*raw_vectors()[:5].tolist(), last])
    with pytest.raises(InputError) as caught:
        prepare_teacher(uri, str(tmp_path / "run"), shards, max_bad_fraction=0.5)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"id": ["a"]}), "no column 'item_id' (found: id); rename or add it"),
        (
            pa.table({"item_id": ["a"], "embedding": [1.0]}),
            "column 'embedding' is double, should be a list of numbers; cast it",
        ),
    ],
)
def test_other_columns_are_refused(
    tmp_path: Path, shards: list[ShardRef], table: pa.Table, message: str
) -> None:
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(InputError) as caught:
        prepare_teacher(str(tmp_path / "t.parquet"), str(tmp_path / "run"), shards, max_bad_fraction=0.0)
    assert str(caught.value) == f"{tmp_path}/t.parquet: {message}"


def test_absent_and_damaged_files_are_errors_of_one_line(tmp_path: Path, shards: list[ShardRef]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.parquet").write_text("no table")
    expected: dict[str, tuple[type[RaysysError], str]] = {
        "absent": (
            MissingError,
            "no such vectors; an EmbeddingSet, or a Parquet file or folder with item_id and embedding is needed",
        ),
        "empty": (MissingError, "no Parquet file in this folder; check the path"),
        "text.parquet": (InputError, "not a readable Parquet file"),
    }
    for name, (kind, message) in expected.items():
        with pytest.raises(kind) as caught:
            prepare_teacher(str(tmp_path / name), str(tmp_path / "run"), shards, max_bad_fraction=0.0)
        assert str(caught.value).startswith(f"{tmp_path}/{name}: {message}")


def test_equal_vectors_are_refused(tmp_path: Path, shards: list[ShardRef]) -> None:
    uri = write_table(tmp_path / "t.parquet", IDS, [[1.0, 2.0]] * 6)
    with pytest.raises(InputError, match="the vectors of 6 training items are all equal"):
        prepare_teacher(uri, str(tmp_path / "run"), shards, max_bad_fraction=0.0)
