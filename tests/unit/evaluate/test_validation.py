"""Metrics on the validation split: which items, which log, and which metric is the score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.config.schema import EvaluateConfig, RecordedLog, SimulatedLog, ValidationConfig
from raysys.encoder.bundle import open_bundle
from raysys.errors import InputError
from raysys.evaluate.interaction_log import read_log
from raysys.evaluate.validation import Validation, make_validation
from raysys.shards.reader import Item, ShardRef
from raysys.tracking import logs
from tests.factories import photo, tiny_bundle, write_shard
from tests.unit.train.small_model import plain_embeddings

COLOURS = ("red", "blue", "green", "white")
THINGS = ("cup", "hat", "sock", "shoe", "bag", "belt")
NUM_ITEMS = len(COLOURS) * len(THINGS)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    titles = [f"{colour} {thing}" for colour in COLOURS for thing in THINGS]
    return tiny_bundle(tmp_path_factory.mktemp("tiny"), titles)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> ShardRef:
    """A validation split: i0 to i23."""
    pairs = [(colour, thing) for thing in THINGS for colour in COLOURS]
    items = [
        Item(f"i{n:02d}", f"{colour} {thing}", photo(colour), {"kind": thing, "colour": colour})
        for n, (colour, thing) in enumerate(pairs)
    ]
    return write_shard(tmp_path_factory.mktemp("val"), items, split="val")


def recorded(folder: Path, impressions: list[tuple[str, list[str], list[bool]]]) -> EvaluateConfig:
    """A log of (query, shown items, whether each was tapped)."""
    rows = [
        {
            "impression_id": number,
            "query_id": query,
            "item_id": item,
            "position": position,
            "tapped": is_tapped,
        }
        for number, (query, shown, taps) in enumerate(impressions)
        for position, (item, is_tapped) in enumerate(zip(shown, taps, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "log.parquet")
    return EvaluateConfig(log=RecordedLog(path=str(folder / "log.parquet")))


def simulated(weights: dict[str, float], queries: int = 30) -> EvaluateConfig:
    return EvaluateConfig(log=SimulatedLog(queries=queries, shelf_size=5, weights=weights))


def validation_of(shard: ShardRef, evaluate: EvaluateConfig, **settings: Any) -> Validation:
    return make_validation([shard], ValidationConfig(**settings), evaluate, None)


INSIDE = ("i00", ["i01", "i02", "i03"], [True, False, False])
OUTSIDE = ("i00", ["i01", "elsewhere"], [True, False])
UNKNOWN_QUERY = ("elsewhere", ["i01", "i02"], [True, False])


def test_recorded_log_is_reduced_to_validation_items(shard: ShardRef, tmp_path: Path) -> None:
    validation = validation_of(shard, recorded(tmp_path, [INSIDE, OUTSIDE, UNKNOWN_QUERY] * 20))
    assert validation.log is not None
    assert validation.log.query_ids == ["i00"] * 20
    assert validation.log.shown_ids == [["i01", "i02", "i03"]] * 20
    assert validation.log.tapped.shape == validation.log.shown.shape == (20, 3)
    assert validation.score == "ndcg@5"


def test_items_of_the_log_are_always_among_the_pairs(shard: ShardRef, tmp_path: Path) -> None:
    late, later = ("i20", ["i21", "i22"], [True, False]), ("i10", ["i11", "i12"], [True, False])
    evaluate = recorded(tmp_path, [late] * 20 + [later])
    validation = validation_of(shard, evaluate, max_items=5)
    assert validation.item_ids == ["i00", "i01", "i20", "i21", "i22"]  # in the order of the shards
    assert validation.pairs.positions == [0, 1, 20, 21, 22]
    assert validation.log is not None
    assert validation.log.query_ids == ["i20"] * 20  # the last impression adds three items: too many


def test_too_few_impressions_are_logged_once_and_not_used(
    shard: ShardRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(logs.log, "info", lambda line, *values: logged.append(line % values))
    validation = validation_of(shard, recorded(tmp_path, [INSIDE] * 19 + [OUTSIDE] * 5), max_items=8)
    assert (validation.log, validation.score, len(validation.item_ids)) == (None, "r@5", 8)
    assert logged == [
        f"    train  validation uses retrieval metrics only: {tmp_path}/log.parquet: 19 of its 24 impressions "
        "consist of validation items (at most 8 in all), 20 are needed; raise train.validation.max_items, "
        "or record a longer log"
    ]


def test_log_is_simulated_on_the_pairs_of_the_retrieval_metrics(shard: ShardRef) -> None:
    validation = validation_of(shard, simulated({"kind": 0.7, "colour": 0.3}), max_items=16)
    assert validation.log is not None
    assert len(validation.log.query_ids) == 30
    assert validation.log.item_ids <= set(validation.item_ids) == {f"i{n:02d}" for n in range(16)}


def test_unknown_attribute_gives_no_log(shard: ShardRef) -> None:
    assert validation_of(shard, simulated({"style": 1.0})).log is None
    with pytest.raises(InputError) as caught:
        validation_of(shard, simulated({"style": 1.0}), score="ndcg@5")
    assert str(caught.value).startswith(
        "train.validation.score: ndcg@5 needs a log of validation items (evaluate.log.weights: unknown attribute "
    )
    assert str(caught.value).endswith("); set train.validation.score=r@5")


def test_split_without_pairs_gives_no_metrics_and_refuses_ndcg(shard: ShardRef) -> None:
    evaluate = simulated({"kind": 1.0})
    assert validation_of(shard, evaluate, max_items=0).item_ids == []
    with pytest.raises(InputError, match="there are no validation pairs"):
        validation_of(shard, evaluate, max_items=0, score="ndcg@5")


def test_metrics_follow_from_the_vectors(bundle: str, shard: ShardRef, tmp_path: Path) -> None:
    query, shown = "i00", ["i01", "i02", "i03"]  # red; blue, green, white
    evaluate = recorded(tmp_path, [(query, shown, [False, False, True])] * 20)
    validation = validation_of(shard, evaluate)
    metrics = validation.metrics(plain_embeddings(open_bundle(bundle), validation.pairs))
    vectors = open_bundle(bundle).embed_photos([photo(colour) for colour in COLOURS])
    rank = sorted(range(1, 4), key=lambda row: -float(vectors[0] @ vectors[row])).index(3)
    assert metrics["ndcg@5"] == pytest.approx(1 / np.log2(rank + 2))
    assert set(metrics) == {"r@1", "r@5", "r@10", "ndcg@5", "score"}
    assert metrics["score"] == metrics["ndcg@5"]
    assert metrics["r@1"] <= metrics["r@5"] <= metrics["r@10"]


def test_score_is_the_configured_metric(bundle: str, shard: ShardRef) -> None:
    validation = validation_of(shard, simulated({"kind": 1.0}), score="r@10")
    metrics = validation.metrics(plain_embeddings(open_bundle(bundle), validation.pairs))
    assert metrics["score"] == metrics["r@10"]
    assert "ndcg@5" in metrics


def test_reduced_log_keeps_its_width(tmp_path: Path) -> None:
    evaluate = recorded(tmp_path, [INSIDE, OUTSIDE])
    assert isinstance(evaluate.log, RecordedLog)
    log = read_log(evaluate.log.path)
    assert log.item_ids == {"i00", "i01", "i02", "i03", "elsewhere"}
    reduced = log.restrict_to({"i00", "i01", "elsewhere"}, max_items=10)
    assert (reduced.shown_ids, reduced.shown.tolist()) == ([["i01", "elsewhere"]], [[True, True, False]])
    assert log.restrict_to(log.item_ids, max_items=3).query_ids == ["i00"]
