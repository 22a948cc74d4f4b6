"""Protocols without data are absent, with the reason; scores of an index replace the exact ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysys.config.schema import AttributePrecisionConfig, EvaluateConfig
from raysys.errors import InputError
from raysys.evaluate.frontier.judgement import Judgement, read_judgement
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.items import EvaluationItems
from raysys.evaluate.metrics import inner_products
from tests.shards_by_hand import write_shard_set

IDS = ["a", "b", "c"]
VECTORS = np.array([[1, 0], [0.8, 0.6], [0, 1]], np.float32)


def judgement(query_id: str = "a") -> Judgement:
    """For `a`, b (tapped) and c were shown; b has the colour of a."""
    colours = np.array(["red", "red", "blue"], dtype=object)
    items = EvaluationItems(
        IDS, [0, 1, 2], [""] * 3, [b""] * 3, np.array(["test"] * 3), {"colour": colours}, IDS
    )
    shown = np.ones((1, 2), dtype=bool)
    log = InteractionLog([query_id], [["b", "c"]], np.array([[True, False]]), shown, simulated=False)
    protocol = AttributePrecisionConfig(match=("colour",), exclude_same=(), gallery_splits=("test",), k=1)
    return Judgement(items, items.attributes, log, protocol, {}, seed=0)


def test_metrics_follow_the_scores_of_the_index() -> None:
    exact = judgement().metrics(VECTORS, inner_products)
    # a and b are each other's nearest and both red; c's nearest, b, is not blue.
    assert (exact["ndcg@5"].tolist(), exact["p@1"].tolist()) == ([1.0], [1.0, 1.0, 0.0])
    reverse = judgement().metrics(VECTORS, lambda queries, vectors: -inner_products(queries, vectors))
    assert reverse["ndcg@5"].tolist() == pytest.approx([1 / np.log2(3)])  # the tapped item is second
    assert reverse["p@1"].tolist() == [0.0, 0.0, 0.0]


def test_items_without_vectors_are_left_out() -> None:
    restricted = judgement().restrict_to(["a", "b"])
    assert restricted.items.item_ids == ["a", "b"]
    assert restricted.attributes["colour"].tolist() == ["red", "red"]
    measured = restricted.metrics(VECTORS[:2], inner_products)
    assert (measured["ndcg@5"].tolist(), measured["p@1"].tolist()) == ([1.0], [1.0, 1.0])


def test_protocols_without_data_are_absent_with_the_reason() -> None:
    unknown = AttributePrecisionConfig(match=("color",), exclude_same=(), k=1)
    restricted = replace(judgement("sold"), protocol=unknown).restrict_to(IDS)
    assert (restricted.log, restricted.protocol) == (None, None)
    assert restricted.absent["ndcg@5"] == "no query item of the log has a vector; check embed.splits"
    assert "unknown attribute 'color'" in restricted.absent["p@1"]
    assert restricted.metrics(VECTORS, inner_products) == {}


def section(**changes: Any) -> EvaluateConfig:
    return EvaluateConfig.model_validate(changes)


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, str]:
    """A ShardSet of two items without attributes."""
    uri = str(tmp_path / "shards")
    write_shard_set(Path(uri), ["a", "b"])
    return dict.fromkeys(("train", "val", "test"), uri)


def test_log_that_cannot_be_simulated_is_absent(shards: dict[str, str]) -> None:
    read = read_judgement(shards, None, section())
    assert (read.items.item_ids, read.log, read.protocol) == (["a", "b"], None, None)
    assert "kind" in read.absent["ndcg@5"]
    assert read.absent["p@k"] == "evaluate.attribute_precision is null"


def test_recorded_log_that_does_not_exist_is_an_error(shards: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"none\.parquet: no such interaction log"):
        read_judgement(shards, None, section(log={"kind": "recorded", "path": "none.parquet"}))
