"""The choice of a kind from a budget: the table, the cheapest candidate, and refusals that name the nearest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from raysys.config import load_config
from raysys.config.schema import IndexConfig
from raysys.errors import ConfigError, InputError
from raysys.index import tune
from raysys.index.kinds import Recipe, recipe_of, trained_index
from raysys.index.tune import choose
from tests.unit.index.embedding_sets import clustered_vectors

NUM_ITEMS = 50_000
SLOW = {"latency_ms": 1e6}


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    return clustered_vectors(2000)


@pytest.fixture(autouse=True)
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "_QUERIES", 30)


def section_with(**budget: Any) -> IndexConfig:
    return IndexConfig.model_validate({"budget": {**SLOW, **budget}})


def test_cheapest_candidate_that_reaches_the_recall_is_chosen(sample: np.ndarray) -> None:
    choice = choose(section_with(recall_at_10=0.999), sample, NUM_ITEMS)
    *others, last = choice.candidates
    assert (choice.recipe.factory, choice.recipe.search) == (last.factory, last.search)
    assert last.recall_at_10 >= 0.999
    assert all(candidate.recall_at_10 < 0.999 for candidate in others)
    (sq8,) = (candidate for candidate in choice.candidates if candidate.kind == "ivf_sq8")
    assert sq8.factory == "IVF1024,SQ8"  # for all items: 4 * sqrt(50,000) = 894
    # 32 dimensions of 8 bits, the row and the place of the vector, and 1,024 centroids over 50,000 items.
    assert sq8.bytes_per_vector == pytest.approx(32 + 16 + 1024 * 128 / NUM_ITEMS, abs=1)
    assert 0 < last.p50_ms <= last.p99_ms


def test_lists_of_a_candidate_are_as_long_as_those_of_the_index(
    sample: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes = []

    def trained(recipe: Recipe, *arguments: Any) -> Any:
        recipes.append(recipe)
        return trained_index(recipe, *arguments)

    monkeypatch.setattr(tune, "trained_index", trained)
    choose(section_with(recall_at_10=0.5), sample, NUM_ITEMS)
    # 1,024 lists of 50,000 items; the candidates have 1,970 of the 2,000 items.
    assert {recipe.num_lists for recipe in recipes} == {round(1024 * 1970 / NUM_ITEMS)}


def test_few_items_are_exact_if_the_budget_has_the_memory(sample: np.ndarray) -> None:
    choice = choose(IndexConfig(), sample, len(sample))
    assert (choice.recipe.kind, choice.candidates) == ("exact", [])
    choice = choose(section_with(bytes_per_vector=100, recall_at_10=0.5), sample, len(sample))
    assert choice.recipe.kind != "exact"  # 32 float32 are 128 bytes


@pytest.mark.parametrize("budget", [{"bytes_per_vector": 10}, {"memory_bytes": 10 * NUM_ITEMS}])
def test_too_little_memory_is_refused_with_what_it_takes(sample: np.ndarray, budget: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        choose(section_with(recall_at_10=0.8, **budget), sample, NUM_ITEMS)
    message = str(caught.value)
    assert message.startswith(
        "index.budget: recall@10 0.8 within 1e+06 ms and 10 bytes a vector cannot be met: it needs "
    )
    assert message.endswith("; raise index.budget.memory_bytes or bytes_per_vector")


def test_too_little_time_is_refused_with_the_nearest(
    sample: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "_recipes", lambda *_: [recipe_of(IndexConfig(), "exact", NUM_ITEMS, 32)])
    with pytest.raises(InputError) as caught:
        choose(section_with(latency_ms=1e-6), sample, NUM_ITEMS)
    message = str(caught.value)
    assert message.startswith(
        "index.budget: recall@10 0.9 within 1e-06 ms cannot be met; the nearest is 1.000 with p99 "
    )
    assert message.endswith(" ms and 128.0 bytes a vector (Flat); lower recall_at_10 or raise latency_ms")


def test_two_limits_of_the_memory_are_refused() -> None:
    overrides = ["index.budget.memory_bytes=1", "index.budget.bytes_per_vector=1"]
    with pytest.raises(ConfigError, match="index.budget: memory_bytes and bytes_per_vector limit the same"):
        load_config(None, overrides)
