"""What is measured beside the training: which items, which log, which figure decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.config.schema import EvaluateConfig, RecordedLog, SimulatedLog, ValidationConfig
from raysys.encoder.bundle import open_bundle
from raysys.encoder.siglip import load_model
from raysys.errors import InputError
from raysys.evaluate.logs import read_log
from raysys.shards.reader import Item, ShardRef
from raysys.tracking import logs
from raysys.train.validation.validation import Validation, make_validation
from tests.factories import photo, tiny_bundle, write_shard

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
    """A log of queries, what was shown for them, and what of that was tapped."""
    rows = [
        {"impression_id": number, "query_id": query, "item_id": item, "position": place, "tapped": tap}
        for number, (query, shown, taps) in enumerate(impressions)
        for place, (item, tap) in enumerate(zip(shown, taps, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "log.parquet")
    return EvaluateConfig(log=RecordedLog(path=str(folder / "log.parquet")))


def drawn(weights: dict[str, float], queries: int = 30) -> EvaluateConfig:
    return EvaluateConfig(log=SimulatedLog(queries=queries, shelf_size=5, weights=weights))


def made(shard: ShardRef, judged: EvaluateConfig, bundle: str = "", **settings: Any) -> Validation:
    return make_validation(bundle, [shard], ValidationConfig(**settings), judged, None)


INSIDE = ("i00", ["i01", "i02", "i03"], [True, False, False])
OUTSIDE = ("i00", ["i01", "elsewhere"], [True, False])
STRANGER = ("elsewhere", ["i01", "i02"], [True, False])


def test_of_a_recorded_log_what_names_validation_items_alone_is_kept(shard: ShardRef, tmp_path: Path) -> None:
    found = made(shard, recorded(tmp_path, [INSIDE, OUTSIDE, STRANGER] * 20))
    assert found.log is not None
    assert found.log.query_ids == ["i00"] * 20
    assert found.log.shown_ids == [["i01", "i02", "i03"]] * 20
    assert found.log.tapped.shape == found.log.shown.shape == (20, 3)
    assert found.score == "ndcg@5"


def test_items_of_the_log_come_first_among_the_pairs_that_are_measured(
    shard: ShardRef, tmp_path: Path
) -> None:
    late, later = ("i20", ["i21", "i22"], [True, False]), ("i10", ["i11", "i12"], [True, False])
    judged = recorded(tmp_path, [late] * 20 + [later])
    found = made(shard, judged, items=5)
    assert found.item_ids == ["i20", "i21", "i22", "i00", "i01"]
    assert found.log is not None
    assert found.log.query_ids == ["i20"] * 20  # the last impression names three more: too many


def test_too_few_impressions_are_said_once_and_done_without(
    shard: ShardRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(logs.log, "info", lambda line, *values: said.append(line % values))
    found = made(shard, recorded(tmp_path, [INSIDE] * 19 + [OUTSIDE] * 5), items=8)
    assert (found.log, found.score, len(found.item_ids)) == (None, "r@5", 8)
    assert said == [
        f"    train  measured by retrieval alone: {tmp_path}/log.parquet: 19 of its 24 impressions show 8 or fewer "
        "validation items alone, 20 are needed; raise train.validation.items, or log more"
    ]


def test_a_log_is_drawn_on_the_very_pairs_that_are_measured(shard: ShardRef) -> None:
    found = made(shard, drawn({"kind": 0.7, "colour": 0.3}), items=16)
    assert found.log is not None
    assert len(found.log.query_ids) == 30
    assert found.log.item_ids <= set(found.item_ids) == {f"i{n:02d}" for n in range(16)}


def test_what_the_catalogue_does_not_know_makes_no_log(shard: ShardRef) -> None:
    assert made(shard, drawn({"style": 1.0})).log is None
    with pytest.raises(InputError) as caught:
        made(shard, drawn({"style": 1.0}), score="ndcg@5")
    assert str(caught.value) == (
        "train.validation.score: ndcg@5 needs a log of validation items (evaluate.log.weights: unknown attribute "
        "'style' (the items have: colour, kind); name one of them); set r@5"
    )


def test_without_pairs_nothing_is_measured_and_no_log_can_be_asked_for(shard: ShardRef) -> None:
    judged = drawn({"kind": 1.0})
    assert made(shard, judged, items=0).measure(None) == {}
    with pytest.raises(InputError, match="there are no validation pairs"):
        made(shard, judged, items=0, score="ndcg@5")


def test_figures_are_those_of_the_vectors(bundle: str, shard: ShardRef, tmp_path: Path) -> None:
    query, shown = "i00", ["i01", "i02", "i03"]  # red; blue, green, white
    judged = recorded(tmp_path, [(query, shown, [False, False, True])] * 20)
    figures = made(shard, judged, bundle).measure(load_model(bundle))
    vectors = open_bundle(bundle).embed_photos([photo(colour) for colour in COLOURS])
    place = sorted(range(1, 4), key=lambda row: -float(vectors[0] @ vectors[row])).index(3)
    assert figures["ndcg@5"] == pytest.approx(1 / np.log2(place + 2))
    assert set(figures) == {"r@1", "r@5", "r@10", "ndcg@5", "score"}
    assert figures["score"] == figures["ndcg@5"]
    assert figures["r@1"] <= figures["r@5"] <= figures["r@10"]


def test_the_score_is_the_figure_that_was_asked_for(bundle: str, shard: ShardRef) -> None:
    figures = made(shard, drawn({"kind": 1.0}), bundle, score="r@10").measure(load_model(bundle))
    assert figures["score"] == figures["r@10"]
    assert "ndcg@5" in figures


def test_a_log_with_fewer_items_is_as_wide_as_before(tmp_path: Path) -> None:
    judged = recorded(tmp_path, [INSIDE, OUTSIDE])
    assert isinstance(judged.log, RecordedLog)
    log = read_log(judged.log.path)
    assert log.item_ids == {"i00", "i01", "i02", "i03", "elsewhere"}
    kept = log.among({"i00", "i01", "elsewhere"}, max_items=10)
    assert (kept.shown_ids, kept.shown.tolist()) == ([["i01", "elsewhere"]], [[True, True, False]])
    assert log.among(log.item_ids, max_items=3).query_ids == ["i00"]
