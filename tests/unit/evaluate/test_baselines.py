"""Baselines by vectors: all systems are compared, in pairs, on the items that every baseline has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.config.schema import EvaluateConfig
from raysys.errors import InputError
from raysys.evaluate.baselines import read_baselines
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.items import EvaluationItems
from raysys.evaluate.reranking import SystemScores, cosine_scores, evaluate_systems

ITEM_IDS = ["p", "q", "a", "b", "c"]
ITEMS = EvaluationItems(
    item_ids=ITEM_IDS,
    positions=list(range(5)),
    titles=ITEM_IDS,
    photos=[b""] * 5,
    splits=np.array(["test"] * 5),
    attributes={"colour": np.array(["red", "red", "blue", "red", None], dtype=object)},
    groups=ITEM_IDS,
)
# p was shown a, b, c (b and c tapped); q was shown a, c (c tapped).
LOG = InteractionLog(
    query_ids=["p", "q"],
    shown_ids=[["a", "b", "c"], ["a", "c"]],
    tapped=np.array([[False, True, True], [False, True, False]]),
    shown=np.array([[True, True, True], [True, True, False]]),
    simulated=False,
)


def write(path: Path, item_ids: list[str]) -> str:
    """Vectors (number + 1, 1) of length other than 1, in reverse order."""
    vectors = [[float(ITEM_IDS.index(item_id) + 1), 1.0] for item_id in reversed(item_ids)]
    pq.write_table(pa.table({"item_id": [*reversed(item_ids)], "embedding": vectors}), path)
    return str(path)


def section(max_missing_fraction: float = 0.5, **uris: str) -> EvaluateConfig:
    baselines = [{"name": name, "embeddings": uri} for name, uri in uris.items()]
    return EvaluateConfig.model_validate(
        {"baselines": baselines, "max_missing_fraction": max_missing_fraction}
    )


def test_vectors_are_unit_vectors_in_the_order_of_the_items(tmp_path: Path) -> None:
    baselines = read_baselines(section(production=write(tmp_path / "v.parquet", [*ITEM_IDS])), ITEMS)
    expected = np.array([[number + 1, 1] for number in range(5)], dtype=np.float64)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(baselines.vectors["production"], expected, atol=1e-6)
    assert baselines.items is ITEMS
    assert baselines.warnings == []
    assert baselines.restrict(LOG) == (LOG, [])


def test_items_that_one_baseline_lacks_are_left_out_for_all(tmp_path: Path) -> None:
    uri = write(tmp_path / "1.parquet", ["p", "q", "a", "b"])  # without c
    other = write(tmp_path / "2.parquet", [*ITEM_IDS])
    baselines = read_baselines(section(production=uri, other=other), ITEMS)
    assert baselines.items.item_ids == ["p", "q", "a", "b"]
    assert baselines.items.attributes["colour"].tolist() == ["red", "red", "blue", "red"]
    assert {name: len(vectors) for name, vectors in baselines.vectors.items()} == {
        "production": 4,
        "other": 4,
    }
    assert baselines.warnings == [
        "production has no vectors of 1 of 5 items of the evaluation (first 'c'); "
        "all systems are compared without them."
    ]


def test_log_is_restricted_to_the_items_that_every_baseline_has(tmp_path: Path) -> None:
    uri = write(tmp_path / "v.parquet", ["p", "q", "a", "b"])  # without c, the only tap of q
    log, (warning,) = read_baselines(section(production=uri), ITEMS).restrict(LOG)
    assert (log.query_ids, log.shown_ids) == (["p"], [["a", "b"]])
    assert (log.tapped.tolist(), log.shown.tolist()) == ([[False, True]], [[True, True]])
    assert warning == (
        "of 2 impressions with a tap, 1 are left out for all systems, and of 5 shown items 3: "
        "a baseline lacks their vectors."
    )


def test_query_without_a_vector_leaves_out_its_impression(tmp_path: Path) -> None:
    uri = write(tmp_path / "v.parquet", ["q", "a", "b", "c"])
    log, _ = read_baselines(section(production=uri), ITEMS).restrict(LOG)
    assert (log.query_ids, log.shown_ids) == (["q"], [["a", "c"]])


def test_log_of_missing_items_alone_is_an_error(tmp_path: Path) -> None:
    baselines = read_baselines(section(production=write(tmp_path / "v.parquet", ["a", "b", "c"])), ITEMS)
    with pytest.raises(
        InputError, match="none of 2 impressions has a tap on an item that every baseline has"
    ):
        baselines.restrict(LOG)


@pytest.mark.parametrize(
    ("item_ids", "limit", "counts"),
    [
        (["p", "q", "a"], 0.3, "no vectors of 2 of 5 items of the evaluation (first 'b'), above .* 0.3; add"),
        (["x"], 1.0, "no vectors of 5 of 5 items"),
    ],
)
def test_too_many_missing_items_are_an_error(
    tmp_path: Path, item_ids: list[str], limit: float, counts: str
) -> None:
    pq.write_table(
        pa.table({"item_id": item_ids, "embedding": [[1.0]] * len(item_ids)}), tmp_path / "v.parquet"
    )
    pattern = counts.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(InputError, match=rf"^evaluate.baselines: production: .*{pattern}") as caught:
        read_baselines(section(limit, production=f"{tmp_path}/v.parquet"), ITEMS)
    assert "\n" not in str(caught.value)


def test_two_baselines_without_a_common_item_are_an_error(tmp_path: Path) -> None:
    first, second = (
        write(tmp_path / f"{name}.parquet", item_ids)
        for name, item_ids in (("1", ["p", "q", "a"]), ("2", ["b", "c"]))
    )
    with pytest.raises(InputError, match="no item has vectors of all baselines"):
        read_baselines(section(0.6, first=first, second=second), ITEMS)


def test_lift_against_a_baseline_is_paired() -> None:
    # `production` ranks a first, then b, c (nDCG of p: taps at ranks 2 and 3); `fine_tuned` ranks it last.
    production = np.array([[3.0, 2.0, 1.0], [2.0, 1.0, np.nan]])
    systems = [
        SystemScores("production", production, None),
        SystemScores("zero_shot", production, None),
        SystemScores("fine_tuned", -production, None),
    ]
    results = evaluate_systems(systems, LOG, bootstrap_samples=200, seed=0, compare_to="production")
    assert results[0].lift is None
    assert results[1].lift is not None
    assert (results[1].lift.value, results[1].lift.low, results[1].lift.high) == (0.0, 0.0, 0.0)
    assert results[2].lift is not None
    ndcg_of_p = (1 / np.log2(3) + 1 / 2) / (1 + 1 / np.log2(3))
    ndcg_of_q = 1 / np.log2(3)
    assert results[2].lift.value == pytest.approx(2 / (ndcg_of_p + ndcg_of_q) - 1)
    # Paired, a resample has p twice, q twice or both: the lift is that of p, of q or of the two.
    assert results[2].lift.low == pytest.approx(1 / ndcg_of_p - 1)
    assert results[2].lift.high == pytest.approx(1 / ndcg_of_q - 1)


def test_without_the_system_to_compare_to_there_is_no_lift() -> None:
    scores = cosine_scores(ITEM_IDS, np.eye(5, dtype=np.float32), LOG)
    systems = [
        SystemScores("wise_ft", None, None, "train.method is full"),
        SystemScores("fine_tuned", scores, None),
    ]
    results = evaluate_systems(systems, LOG, bootstrap_samples=20, seed=0, compare_to="wise_ft")
    assert [result.lift for result in results] == [None, None]
