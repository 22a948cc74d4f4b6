"""Simulated logs: their relevance, position bias and tap rates, and which items they show."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.columns import LOG_SCHEMA
from raysys.config.schema import SimulatedLog
from raysys.errors import InputError
from raysys.evaluate import simulation
from raysys.evaluate.interaction_log import InteractionLog, read_log
from raysys.evaluate.items import EvaluationItems
from raysys.evaluate.metrics import ndcg_at, rank_by
from raysys.evaluate.simulation import simulate_log, simulate_log_for_items

WEIGHTS = SimulatedLog().weights
ITEM_IDS = [f"m{item}" for item in range(600)]


def attributes(num_items: int = 600) -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    sizes = {"kind": 20, "colour": 10, "pattern": 5}
    return {name: [f"{name}{v}" for v in rng.integers(size, size=num_items)] for name, size in sizes.items()}


def relevance(log: InteractionLog) -> np.ndarray:
    known = attributes()
    item_id_to_row = {item_id: row for row, item_id in enumerate(ITEM_IDS)}
    scores = np.zeros(log.shown.shape)
    for row, (query_id, shown_ids) in enumerate(zip(log.query_ids, log.shown_ids, strict=True)):
        for column, item_id in enumerate(shown_ids):
            scores[row, column] = sum(
                weight * (known[name][item_id_to_row[query_id]] == known[name][item_id_to_row[item_id]])
                for name, weight in WEIGHTS.items()
            )
    return scores


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=600))


@pytest.fixture(scope="module")
def log(table: pa.Table) -> InteractionLog:
    return read_log(table)


def test_same_seed_gives_the_same_log(table: pa.Table) -> None:
    assert table.schema == LOG_SCHEMA
    assert simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=600)).equals(table)
    assert not simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=600, seed=12)).equals(table)


def test_every_impression_has_a_tap_and_is_marked_simulated(log: InteractionLog) -> None:
    assert (len(log.query_ids), log.num_untapped, log.simulated) == (600, 0, True)
    assert log.tapped.any(axis=1).all()
    assert log.shown.shape == (600, 12)
    assert log.shown.all()


def test_order_by_relevance_scores_much_higher_than_a_random_order(log: InteractionLog) -> None:
    by_relevance = ndcg_at(5, rank_by(relevance(log), log.tapped, log.shown, seed=0)).mean()
    random = ndcg_at(5, rank_by(np.zeros(log.shown.shape), log.tapped, log.shown, seed=0)).mean()
    assert by_relevance > 0.75
    assert 0.3 < random < 0.42


def test_shelf_order_is_weakly_correlated_with_relevance(log: InteractionLog) -> None:
    by_position = relevance(log)
    assert by_position[:, :4].mean() > by_position[:, -4:].mean()
    negative_positions = np.broadcast_to(-np.arange(12.0), by_position.shape)
    assert 0.1 < np.corrcoef(negative_positions.ravel(), by_position.ravel())[0, 1] < 0.5


def test_equally_relevant_items_have_fewer_taps_at_later_positions(log: InteractionLog) -> None:
    is_relevant = relevance(log) > 0.7
    rates = [log.tapped[:, part][is_relevant[:, part]].mean() for part in (slice(0, 4), slice(8, 12))]
    assert rates[0] > 1.3 * rates[1]  # (1 + p) ** -0.35: 0.73 at positions 0 to 3, 0.44 at 8 to 11


def test_tap_rate_of_irrelevant_items_is_a_few_percent(log: InteractionLog) -> None:
    assert 0.002 < log.tapped[relevance(log) == 0].mean() < 0.06


def test_shelf_has_relevant_and_irrelevant_items(log: InteractionLog) -> None:
    scores = relevance(log)
    assert (scores > 0.65).mean() > 0.15
    assert (scores == 0).mean() > 0.2


def test_items_of_the_querys_own_group_are_not_shown() -> None:
    groups = [f"g{item // 4}" for item in range(600)]
    grouped = read_log(simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=200), groups))
    for query_id, shown_ids in zip(grouped.query_ids, grouped.shown_ids, strict=True):
        assert int(query_id[1:]) // 4 not in {int(item_id[1:]) // 4 for item_id in shown_ids}
        assert len(set(shown_ids)) == len(shown_ids)


def test_empty_groups_equal_no_groups(table: pa.Table) -> None:
    assert all(row["query_id"] != row["item_id"] for row in table.to_pylist())
    assert simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=600), [""] * 600).equals(table)


def test_small_catalogue_repeats_queries_and_has_shorter_shelves() -> None:
    small = {name: values[:8] for name, values in attributes().items()}
    log = read_log(simulate_log(ITEM_IDS[:8], small, SimulatedLog(queries=50)))
    assert len(log.query_ids) == 50
    assert {len(shown_ids) for shown_ids in log.shown_ids} == {7}


def test_large_catalogue_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "_MAX_SIMULATED_ITEMS", 30)
    table = simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=60))
    item_ids = {*table["query_id"].to_pylist(), *table["item_id"].to_pylist()}
    assert len(item_ids) == 30
    assert max(int(item_id[1:]) for item_id in item_ids) > 300


def test_weight_of_an_unknown_attribute_is_an_input_error() -> None:
    with pytest.raises(InputError) as caught:
        simulate_log(ITEM_IDS, attributes(), SimulatedLog(weights={"color": 1.0}))
    assert str(caught.value) == (
        "evaluate.log.weights: unknown attribute 'color' (the items have: colour, kind, pattern); "
        "did you mean 'colour'?"
    )


def test_items_of_a_single_group_are_an_input_error() -> None:
    three_items = {name: values[:3] for name, values in attributes().items()}
    with pytest.raises(InputError, match="evaluate.log: 3 items, but no query has two items of other groups"):
        simulate_log(ITEM_IDS[:3], three_items, SimulatedLog(), ["same"] * 3)
    with pytest.raises(InputError, match="evaluate.log: 0 items"):
        simulate_log([], {name: [] for name in WEIGHTS}, SimulatedLog())


def test_latent_attributes_are_used_and_relisted_items_form_a_group(tmp_path: object) -> None:
    item_ids = ["a", "b", "c", "d"]
    items = EvaluationItems(
        item_ids=item_ids,
        positions=[0, 1, 2, 3],
        titles=[""] * 4,
        photos=[b""] * 4,
        splits=np.array(["test"] * 4),
        attributes={},
        groups=item_ids,
    )
    # In another order than the items; b is a relisted a.
    latent = {"item_id": item_ids[::-1], "kind": ["cup"] * 4, "relisted_from": [None, None, "a", None]}
    pq.write_table(pa.table(latent), f"{tmp_path}/latent.parquet")
    section = SimulatedLog(queries=40, shelf_size=5, weights={"kind": 1.0})
    log = read_log(simulate_log_for_items(items, f"{tmp_path}/latent.parquet", section))
    shown = {
        query_id: set(shown_ids) for query_id, shown_ids in zip(log.query_ids, log.shown_ids, strict=True)
    }
    assert shown == {"a": {"c", "d"}, "b": {"c", "d"}, "c": {"a", "b", "d"}, "d": {"a", "b", "c"}}
