"""The teacher's vectors from any table to the rows of a block, and a run's head in steps and checkpoints."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy import ndarray
from pydantic import ValidationError
from torch import Tensor

from raysys import artifacts
from raysys.artifacts import EmbeddingSetManifest, InputEntry
from raysys.artifacts.vectors import vectors_input
from raysys.config.schema import TeacherConfig, TrainConfig
from raysys.encoder.projection import Moments, fit_projection
from raysys.errors import InputError, MissingError, RaysysError
from raysys.shards.reader import Item, ShardRef
from raysys.train.model import TrainState, make_train_state
from raysys.train.step import backward, train_step
from raysys.train.teacher import prepare_teacher
from tests.factories import photo, write_shards
from tests.unit.artifacts.test_embedding_set import publish
from tests.unit.train.small_model import (
    IMAGE,
    build_small_model,
    exported_weights,
    small_batch,
    small_section,
    small_state,
)

IDS = [f"i{number}" for number in range(6)]
ITEMS = [Item(item_id, f"title {item_id}", photo()) for item_id in IDS]
DIMENSIONS = 3
TEACHER = TeacherConfig(embeddings="unused", weight=2.0, head_learning_rate=0.05)


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


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parallel": "fsdp"}, "teacher cannot be combined with parallel 'fsdp'"),
        ({"frozen_image_layers": "all"}, "teacher trains the image tower"),
        (
            {"teacher": {"embeddings": "t", "regression_weight": 0, "relational_weight": 0}},
            "both 0; raise one",
        ),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate({"teacher": {"embeddings": "t"}, **changes})


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def taught_section(**changes: Any) -> TrainConfig:
    return small_section(teacher=TEACHER, **changes)


def taught_state(start: Path, section: TrainConfig) -> TrainState:
    accelerator = small_state(start, small_section()).accelerator
    return make_train_state(str(start), IMAGE, section, 8, accelerator, teacher_dimensions=DIMENSIONS)


def taught_batch(seed: int = 3) -> dict[str, Tensor]:
    """The fourth sample was skipped, and the teacher lacks the second item."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(6, DIMENSIONS, generator=generator), dim=-1)
    vectors[[1, 3]] = 0.0
    return {**small_batch(seed), "teacher": vectors.half()}


def test_loss_and_gradients_are_the_sums_of_both_losses(start: Path) -> None:
    state, plain = taught_state(start, taught_section()), small_state(start, small_section())
    assert state.teacher_head is not None
    losses = backward(state.towers, taught_batch(), taught_section(), None, state.teacher_head)
    plain_loss = backward(plain.towers, small_batch(), small_section())["loss"]
    assert float(losses["loss"]) == pytest.approx(float(plain_loss + 2.0 * losses["teacher_loss"]))

    batch, present = taught_batch(), [0, 2, 4, 5]
    plain_images = plain.towers(batch["pixels"], batch["tokens"]).images[present]
    head = state.teacher_head.weight.detach().requires_grad_()
    teacher = torch.nn.functional.normalize(batch["teacher"].float()[present], dim=-1)
    cosines = torch.nn.functional.cosine_similarity(plain_images @ head.T, teacher)
    difference = plain_images @ plain_images.T - teacher @ teacher.T
    loss = (1 - cosines).mean() + difference.square().mean()
    (2.0 * loss).backward()
    assert float(losses["teacher_loss"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    torch.testing.assert_close(state.teacher_head.weight.grad, head.grad)
    for (name, got), expected in zip(state.model.named_parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 3])
def test_micro_batches_have_the_update_of_the_full_batch(start: Path, micro_batch_size: int) -> None:
    full, small = taught_state(start, taught_section()), taught_state(start, taught_section())
    expected = train_step(full, taught_batch(), taught_section()).metrics()
    got = train_step(small, taught_batch(), taught_section(micro_batch_size=micro_batch_size)).metrics()
    assert got == pytest.approx(expected, rel=1e-5)
    assert full.teacher_head is not None
    assert small.teacher_head is not None
    torch.testing.assert_close(small.teacher_head.weight, full.teacher_head.weight)


def test_restored_head_continues_bit_for_bit_and_is_not_exported(start: Path) -> None:
    section = taught_section(ema_decay=0.5)
    uninterrupted, saved, restored = (taught_state(start, section) for _ in range(3))
    losses = [train_step(uninterrupted, taught_batch(seed), section).metrics() for seed in range(4)]
    for seed in range(2):
        train_step(saved, taught_batch(seed), section)
    state = saved.state_dict()
    train_step(saved, taught_batch(9), section)  # must not change the copy in `state`
    restored.load_state_dict(state)
    assert [train_step(restored, taught_batch(seed), section).metrics() for seed in (2, 3)] == losses[2:]
    first, second = uninterrupted.state_dict(), restored.state_dict()
    assert torch.equal(first["teacher_head"]["weight"], second["teacher_head"]["weight"])
    weights = exported_weights(second)
    assert all(torch.equal(weights[name], value) for name, value in exported_weights(first).items())
    assert weights.keys() == small_state(start, small_section()).model.state_dict().keys()


def test_head_learns_the_teacher(start: Path) -> None:
    section = taught_section(learning_rate=1e-6)
    state = taught_state(start, section)
    losses = [train_step(state, taught_batch(), section).metrics()["teacher_loss"] for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]
