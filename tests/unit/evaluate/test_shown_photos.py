"""Which photos and queries a report shows: the rules, on vectors whose neighbours are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raysys.config.schema import EvaluateConfig, RecordedLog, SimulatedLog
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.items import EvaluationItems
from raysys.evaluate.shown_photos import (
    catalogue_photos,
    largest_gain,
    nearest_rows,
    query_neighbours,
    relevance_rule,
)
from tests.factories import photo

COLOURS = ["red"] * 6 + ["blue"] * 6
NUM = len(COLOURS)
BY_COLOUR = SimulatedLog(weights={"colour": 1.0})
NO_GROUPS = np.full(NUM, -1)


def items(groups: list[str] | None = None) -> EvaluationItems:
    """Items a to l; six red ones, then six blue ones."""
    item_ids = [chr(ord("a") + row) for row in range(NUM)]
    colours = np.empty(NUM, dtype=object)
    colours[:] = COLOURS
    return EvaluationItems(
        item_ids=item_ids,
        positions=list(range(NUM)),
        titles=[f"title {item_id}" for item_id in item_ids],
        photos=[photo()] * NUM,
        splits=np.array(["test"] * NUM),
        attributes={"colour": colours},
        groups=groups or item_ids,
    )


def log_of(*query_ids: str, shown: str = "b", tapped: bool = True) -> InteractionLog:
    """One impression of each query, which showed the items `shown`."""
    is_shown = np.ones((len(query_ids), len(shown)), dtype=bool)
    return InteractionLog(
        list(query_ids), [list(shown)] * len(query_ids), is_shown & tapped, is_shown, simulated=False
    )


def on_a_circle(*degrees: float) -> np.ndarray:
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


# By the start encoder red and blue alternate; by the fine-tuned one they are two clusters.
ALTERNATING = on_a_circle(*(20 * row for row in range(6)), *(20 * row + 10 for row in range(6)))
CLUSTERS = on_a_circle(*(2 * row for row in range(6)), *(90 + 2 * row for row in range(6)))


def test_largest_gain_is_the_one_among_the_queries_that_are_right_afterwards() -> None:
    before = np.array([[0.0, 0.0], [1.0, 0.2], [0.9, 0.4], [1.0, 1.0]])
    after = np.array([[1.0, 0.6], [1.0, 0.7], [0.9, 0.8], [1.0, 1.0]])
    # The first query gains 0.8, but only one of its items reaches 0.65. The others have two of two, and gain
    # (0.0 + 0.5) / 2, (0.0 + 0.4) / 2 and 0.
    assert largest_gain(before, after) == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [([[0.3, 0.3]], [[0.6, 0.6]]), ([[1.0, 0.7]], [[1.0, 0.7]]), ([[1.0, 1.0]], [[1.0, 0.9]])],
    ids=["nothing relevant", "no gain", "a loss"],
)
def test_no_query_is_the_one_with_the_largest_gain(before: Any, after: Any) -> None:
    assert largest_gain(np.array(before), np.array(after)) is None


def test_nearest_rows_exclude_the_query_and_listings_of_the_same_thing() -> None:
    scores, rows = nearest_rows(CLUSTERS, 0, NO_GROUPS)
    assert rows.tolist() == [1, 2, 3, 4, 5]
    assert scores[0] == pytest.approx(np.cos(np.deg2rad(2)))
    groups = NO_GROUPS.copy()
    groups[[0, 1, 3]] = 7
    assert nearest_rows(CLUSTERS, 0, groups)[1].tolist() == [2, 4, 5, 6, 7]


def test_nearest_rows_exclude_items_without_a_vector() -> None:
    vectors = CLUSTERS.copy()
    vectors[[2, *range(6, 12)]] = np.nan
    assert nearest_rows(vectors, 0, NO_GROUPS)[1].tolist() == [1, 3, 4, 5]


def test_first_query_has_the_largest_gain_and_the_others_are_random() -> None:
    section = EvaluateConfig(log=BY_COLOUR, neighbour_grid_queries=3)
    queries = query_neighbours(ALTERNATING, CLUSTERS, items(), log_of("c", "k"), None, section)
    assert [query.has_largest_gain for query in queries] == [True, False, False, False]
    assert queries[0].title == "title c"  # c (40 degrees) has 3 blue neighbours of 5 before, as k; c is first
    assert [neighbour.is_relevant for neighbour in queries[0].delivered] == [True] * 5
    assert sum(neighbour.is_relevant for neighbour in queries[0].start) < 5
    random_titles = [query.title for query in queries[1:]]
    assert len({"title c", *random_titles}) == 4
    others = replace_seed(section, 14)
    again, elsewhere = (
        query_neighbours(ALTERNATING, CLUSTERS, items(), log_of("c", "k"), None, each)
        for each in (section, others)
    )
    assert [query.title for query in again[1:]] == random_titles
    assert [query.title for query in elsewhere[1:]] != random_titles


def test_only_queries_of_the_log_can_have_the_largest_gain() -> None:
    section = EvaluateConfig(log=BY_COLOUR, neighbour_grid_queries=1)
    for query_id in "bhl":
        first, _ = query_neighbours(ALTERNATING, CLUSTERS, items(), log_of(query_id), None, section)
        assert first.title == f"title {query_id}"


def test_without_a_gain_all_queries_are_random() -> None:
    section = EvaluateConfig(log=BY_COLOUR, neighbour_grid_queries=2)
    queries = query_neighbours(CLUSTERS, CLUSTERS, items(), log_of("c"), None, section)
    assert [query.has_largest_gain for query in queries] == [False, False]


def test_relevant_items_of_a_recorded_log_are_those_that_were_tapped_for_the_query() -> None:
    section = EvaluateConfig(log=RecordedLog(path="log.parquet"), neighbour_grid_queries=1)
    log = log_of("a", shown="ef")  # 80 and 100 degrees away before, 8 and 10 degrees afterwards
    first, _ = query_neighbours(ALTERNATING, CLUSTERS, items(), log, None, section)
    assert first.title == "title a"
    relevant = [neighbour.title for neighbour in first.delivered if neighbour.is_relevant]
    assert relevant == ["title e", "title f"]
    assert not any(neighbour.is_relevant for neighbour in first.start)


def test_query_without_a_vector_is_not_shown() -> None:
    vectors = CLUSTERS.copy()
    vectors[:11] = np.nan
    section = EvaluateConfig(log=BY_COLOUR, neighbour_grid_queries=5)
    queries = query_neighbours(ALTERNATING, vectors, items(), log_of("c"), None, section)
    assert [(query.title, query.delivered) for query in queries] == [("title l", [])]


def test_no_queries_if_none_are_configured() -> None:
    section = EvaluateConfig(log=BY_COLOUR, neighbour_grid_queries=0)
    assert query_neighbours(ALTERNATING, CLUSTERS, items(), log_of("c"), None, section) == []


def test_photos_of_the_catalogue_depend_on_the_seed_and_are_at_most_all() -> None:
    section = EvaluateConfig(catalogue_photos=5)
    titles = [item.title for item in catalogue_photos(items(), section)]
    assert len(set(titles)) == 5
    assert [item.title for item in catalogue_photos(items(), section)] == titles
    assert [item.title for item in catalogue_photos(items(), replace_seed(section, 14))] != titles
    assert len(catalogue_photos(items(), EvaluateConfig())) == NUM  # 48 by default
    assert catalogue_photos(items(), EvaluateConfig(catalogue_photos=0)) == []


def test_rule_of_relevance_is_that_of_the_log() -> None:
    section = EvaluateConfig(log=SimulatedLog(weights={"kind": 3.0, "colour": 1.0}))
    assert relevance_rule(section) == (
        "is relevant by the simulated log: its equal attributes (kind 0.75, colour 0.25) sum to at least 0.65"
    )
    recorded = EvaluateConfig(log=RecordedLog(path="log.parquet"))
    assert relevance_rule(recorded) == "was tapped for this query in the log"


def replace_seed(section: EvaluateConfig, seed: int) -> EvaluateConfig:
    return section.model_copy(update={"seed": seed})
