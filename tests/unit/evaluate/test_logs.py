"""Logs: the drawn one behaves as it says, a recorded one is read whole or refused in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.columns import LOG_SCHEMA
from raysys.config.schema import SimulatedLog
from raysys.errors import InputError, MissingError
from raysys.evaluate import logs
from raysys.evaluate.logs import InteractionLog, popularity_scores, read_log, simulate_log
from raysys.evaluate.metrics import ndcg_at, rank_by

WEIGHTS = SimulatedLog().weights
FOUND = "impression_id, query_id, item_id, position"
ITEM_IDS = [f"m{item}" for item in range(600)]


def attributes(num_items: int = 600) -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    sizes = {"kind": 20, "colour": 10, "pattern": 5}
    return {name: [f"{name}{v}" for v in rng.integers(size, size=num_items)] for name, size in sizes.items()}


def relevance(log: InteractionLog) -> np.ndarray:
    known = attributes()
    number = {item_id: item for item, item_id in enumerate(ITEM_IDS)}
    scores = np.zeros(log.shown.shape)
    for row, (query_id, shelf) in enumerate(zip(log.query_ids, log.shown_ids, strict=True)):
        for column, item_id in enumerate(shelf):
            scores[row, column] = sum(
                weight * (known[name][number[query_id]] == known[name][number[item_id]])
                for name, weight in WEIGHTS.items()
            )
    return scores


@pytest.fixture(scope="module")
def drawn() -> pa.Table:
    return simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=600))


@pytest.fixture(scope="module")
def log(drawn: pa.Table) -> InteractionLog:
    return read_log(drawn)


def recorded(**columns: Any) -> pa.Table:
    """Two impressions, rows out of order: q1 showed b, a (a tapped); q2 showed c (tapped)."""
    rows = {
        "impression_id": [7, 3, 7],
        "query_id": ["q1", "q2", "q1"],
        "item_id": ["a", "c", "b"],
        "position": [1, 0, 0],
        "tapped": [True, True, False],
    }
    return pa.table({name: value for name, value in {**rows, **columns}.items() if value is not None})


def test_a_seed_draws_the_same_log_twice(drawn: pa.Table) -> None:
    assert drawn.schema == LOG_SCHEMA
    assert simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=600)).equals(drawn)
    assert not simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=600, seed=12)).equals(drawn)


def test_every_drawn_impression_has_a_tap_and_is_marked_simulated(log: InteractionLog) -> None:
    assert (len(log.query_ids), log.num_untapped, log.simulated) == (600, 0, True)
    assert log.tapped.any(axis=1).all()
    assert log.shown.shape == (600, 12)
    assert log.shown.all()


def test_a_perfect_order_beats_a_random_one_by_far(log: InteractionLog) -> None:
    oracle = ndcg_at(5, rank_by(relevance(log), log.tapped, log.shown, seed=0)).mean()
    random = ndcg_at(5, rank_by(np.zeros(log.shown.shape), log.tapped, log.shown, seed=0)).mean()
    assert oracle > 0.75
    assert 0.3 < random < 0.42


def test_the_order_of_the_shelf_is_loosely_tied_to_relevance(log: InteractionLog) -> None:
    by_place = relevance(log)
    assert by_place[:, :4].mean() > by_place[:, -4:].mean()
    places = np.broadcast_to(-np.arange(12.0), by_place.shape)
    assert 0.1 < np.corrcoef(places.ravel(), by_place.ravel())[0, 1] < 0.5


def test_equal_items_are_tapped_less_further_down(log: InteractionLog) -> None:
    close = relevance(log) > 0.7
    rates = [log.tapped[:, part][close[:, part]].mean() for part in (slice(0, 4), slice(8, 12))]
    assert rates[0] > 1.3 * rates[1]  # (1 + p) ** -0.35: 0.73 at places 0 to 3, 0.44 at 8 to 11


def test_irrelevant_items_are_tapped_a_few_times_in_a_hundred(log: InteractionLog) -> None:
    assert 0.002 < log.tapped[relevance(log) == 0].mean() < 0.06


def test_a_shelf_mixes_close_kin_and_strangers(log: InteractionLog) -> None:
    scores = relevance(log)
    assert (scores > 0.65).mean() > 0.15
    assert (scores == 0).mean() > 0.2


def test_nothing_of_the_querys_own_group_is_shown() -> None:
    groups = [f"g{item // 4}" for item in range(600)]
    grouped = read_log(simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=200), groups))
    for query_id, shelf in zip(grouped.query_ids, grouped.shown_ids, strict=True):
        assert int(query_id[1:]) // 4 not in {int(item_id[1:]) // 4 for item_id in shelf}
        assert len(set(shelf)) == len(shelf)


def test_without_groups_or_with_empty_ones_only_the_item_itself_is_left_out(drawn: pa.Table) -> None:
    assert drawn["query_id"].to_pylist() != drawn["item_id"].to_pylist()
    assert simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=600), [""] * 600).equals(drawn)


def test_few_items_repeat_as_queries_on_shorter_shelves() -> None:
    few = {name: values[:8] for name, values in attributes().items()}
    small = read_log(simulate_log(ITEM_IDS[:8], few, SimulatedLog(queries=50)))
    assert len(small.query_ids) == 50
    assert {len(shelf) for shelf in small.shown_ids} == {7}


def test_a_large_catalogue_takes_part_as_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_MAX_SIMULATED_ITEMS", 30)
    sampled = simulate_log(ITEM_IDS, attributes(), SimulatedLog(queries=60))
    seen = {*sampled["query_id"].to_pylist(), *sampled["item_id"].to_pylist()}
    assert len(seen) == 30
    assert max(int(item_id[1:]) for item_id in seen) > 300


def test_a_weight_of_an_unknown_attribute_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        simulate_log(ITEM_IDS, attributes(), SimulatedLog(weights={"color": 1.0}))
    assert str(caught.value) == (
        "evaluate.log.weights: unknown attribute 'color' (the items have: colour, kind, pattern); "
        "did you mean 'colour'?"
    )


def test_items_that_are_all_one_group_are_refused() -> None:
    one_group = {name: values[:3] for name, values in attributes().items()}
    with pytest.raises(InputError, match="evaluate.log: 3 items, but no query has two others to show"):
        simulate_log(ITEM_IDS[:3], one_group, SimulatedLog(), ["same"] * 3)
    with pytest.raises(InputError, match="evaluate.log: 0 items"):
        simulate_log([], {name: [] for name in WEIGHTS}, SimulatedLog())


def test_rows_are_gathered_by_impression_and_put_in_order_of_the_shelf() -> None:
    log = read_log(recorded())
    assert log.query_ids == ["q1", "q2"]
    assert log.shown_ids == [["b", "a"], ["c"]]
    assert log.tapped.tolist() == [[False, True], [True, False]]
    assert log.shown.tolist() == [[True, True], [True, False]]
    assert not log.simulated


def test_a_parquet_file_or_folder_is_read(tmp_path: Path, drawn: pa.Table) -> None:
    pq.write_table(recorded(session=["x", "y", "z"]), tmp_path / "log.parquet")
    assert read_log(str(tmp_path / "log.parquet")).shown_ids == [["b", "a"], ["c"]]
    (tmp_path / "parts").mkdir()
    pq.write_table(drawn.slice(0, 1000), tmp_path / "parts" / "0.parquet")
    pq.write_table(drawn.slice(1000), tmp_path / "parts" / "1.parquet")
    assert read_log(str(tmp_path / "parts")).shown_ids == read_log(drawn).shown_ids


def test_numbers_serve_as_ids_and_as_counts_of_taps() -> None:
    log = read_log(recorded(query_id=[1, 2, 1], item_id=[10, 30, 20], tapped=[2, 1, 0]))
    assert log.query_ids == ["1", "2"]
    assert log.shown_ids == [["20", "10"], ["30"]]
    assert log.tapped.tolist() == [[False, True], [True, False]]


def test_impressions_without_a_tap_are_left_out_and_counted() -> None:
    log = read_log(recorded(tapped=[False, True, False]))
    assert (log.query_ids, log.num_untapped, log.shown.shape) == (["q2"], 1, (1, 1))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            recorded(tapped=None, taped=[True, True, False]),
            f"the interaction log: no column 'tapped' (found: {FOUND}, taped); did you mean 'taped'?",
        ),
        (
            recorded(position=["1", "0", "0"]),
            "the interaction log: column 'position' is string, should be an integer; cast it",
        ),
        (
            recorded(item_id=["a", None, "b"]),
            "the interaction log: column 'item_id' is empty in 1 rows; drop or fill them",
        ),
        (
            recorded(query_id=["q1", "q2", "q3"]),
            "the interaction log: an impression_id has two queries ('q3' and 'q1'); number impressions uniquely",
        ),
        (
            recorded(tapped=[False, False, False]),
            "the interaction log: none of 2 impressions has a tap; log taps, or choose a longer time",
        ),
        (
            recorded().slice(0, 0),
            f"the interaction log: no rows (columns: {FOUND}, tapped); an interaction log needs impressions",
        ),
    ],
)
def test_an_unusable_log_is_refused_in_words(table: pa.Table, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_log(table)
    assert str(caught.value) == message


def test_errors_name_the_file(tmp_path: Path) -> None:
    missing, text, wrong = (str(tmp_path / name) for name in ("none.parquet", "log.csv", "wrong.parquet"))
    with pytest.raises(MissingError, match="none.parquet: no such interaction log; check evaluate.log.path"):
        read_log(missing)
    Path(text).write_text("impression_id,query_id\n1,a\n")
    with pytest.raises(
        InputError, match=r"log.csv: not a Parquet file .*; write the interaction log as Parquet"
    ):
        read_log(text)
    pq.write_table(pa.table({"clicked": [True]}), wrong)
    with pytest.raises(InputError, match=r"wrong.parquet: no column 'impression_id' \(found: clicked\)"):
        read_log(wrong)


def test_popularity_leaves_out_the_impression_that_is_ranked() -> None:
    log = read_log(
        pa.table(
            {
                "impression_id": [0, 0, 1, 1],
                "query_id": ["p", "p", "q", "q"],
                "item_id": ["a", "b", "a", "c"],
                "position": [0, 1, 0, 1],
                "tapped": [True, False, False, True],
            }
        )
    )
    # The overall rate is 2/4, worth 5 shows: 2.5 / 5. In impression 0, `a` has one other show without a tap:
    # 2.5 / 6. In impression 1 it has one other with a tap: 3.5 / 6. `b` and `c` are shown nowhere else.
    expected = np.array([[2.5 / 6, 0.5], [3.5 / 6, 0.5]])
    assert popularity_scores(log) == pytest.approx(expected)


def test_popularity_tells_nothing_where_taps_are_random() -> None:
    rng = np.random.default_rng(0)
    shown = np.ones((3000, 8), dtype=bool)
    tapped = rng.random(shown.shape) < 0.3
    ids = [[str(item) for item in rng.choice(40, 8, replace=False)] for _ in range(3000)]
    log = InteractionLog([""] * 3000, ids, tapped, shown, simulated=True)
    by_popularity = ndcg_at(5, rank_by(popularity_scores(log), tapped, shown, seed=0)).mean()
    by_chance = ndcg_at(5, rank_by(np.zeros(shown.shape), tapped, shown, seed=0)).mean()
    assert by_popularity == pytest.approx(by_chance, abs=0.02)


def test_popularity_of_padding_is_unknown() -> None:
    scores = popularity_scores(read_log(recorded()))
    assert np.isnan(scores).tolist() == [[False, False], [False, True]]
