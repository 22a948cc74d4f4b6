"""Factory strings and search parameters of every kind."""

from __future__ import annotations

import itertools
from typing import Any

import faiss
import numpy as np
import pytest

from raysys.config.schema import IndexConfig
from raysys.errors import InputError
from raysys.index.kinds import cost, raised, recipe_of, reduced, search_parameters, trained_index
from tests.unit.index.embedding_sets import clustered_vectors

KINDS = ("exact", "ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw", "hnsw_sq8")


@pytest.mark.parametrize(
    ("kind", "num_items", "settings", "factory", "search"),
    [
        ("exact", 1, {}, "Flat", {}),
        # 4 * sqrt(1,000,000) = 4,000; the nearest power of two is 4,096.
        ("ivf_sq8", 1_000_000, {}, "IVF4096,SQ8", {"nprobe": 32}),
        ("ivf_sq8", 2000, {}, "IVF32,SQ8", {"nprobe": 32}),  # 39 items a list
        ("ivf_sq8", 2000, {"num_lists": 50, "nprobe": 3}, "IVF50,SQ8", {"nprobe": 3}),
        ("ivf_pq", 1_000_000, {}, "IVF4096,PQ32x4fsr,Refine(SQ8)", {"nprobe": 32, "k_factor": 10}),
        ("ivf_pq", 2000, {"pq_subquantizers": 64, "refine": "sq4", "k_factor": 4},
         "IVF32,PQ64x4fsr,Refine(SQ4)", {"nprobe": 32, "k_factor": 4}),
        ("ivf_rabitq", 2000, {"refine": "fp16"}, "IVF32,RaBitQfs,Refine(SQfp16)", {"nprobe": 32, "k_factor": 10}),
        ("ivf_rabitq", 2000, {"rabitq_bits": 4}, "IVF32,RaBitQfs4,Refine(SQ8)", {"nprobe": 32, "k_factor": 10}),
        ("hnsw", 10, {"hnsw_m": 16}, "HNSW16,Flat", {"ef_search": 128}),
        ("hnsw_sq8", 2000, {"ef_search": 40}, "HNSW32,SQ8", {"ef_search": 40}),
    ],
)  # fmt: skip
def test_settings_and_size_make_a_factory_string(
    kind: str, num_items: int, settings: dict[str, Any], factory: str, search: dict[str, int]
) -> None:
    recipe = recipe_of(IndexConfig.model_validate(settings), kind, num_items, 128)
    assert (recipe.kind, recipe.factory, recipe.search) == (kind, factory, search)


def test_settings_of_the_graph_are_passed_to_faiss() -> None:
    section = IndexConfig(hnsw_m=8, ef_construction=50)
    index = trained_index(recipe_of(section, "hnsw", 20, 16), clustered_vectors(20, 16))
    assert index.hnsw.efConstruction == 50
    assert index.hnsw.nb_neighbors(1) == 8  # twice that in the lowest layer


@pytest.mark.parametrize("kind", KINDS)
def test_selector_and_settings_reach_the_search_of_every_kind(kind: str) -> None:
    vectors, queries = clustered_vectors(1500), clustered_vectors(20, seed=1)
    recipe = recipe_of(IndexConfig(), kind, len(vectors), vectors.shape[1])
    index = trained_index(recipe, vectors)
    index.add(vectors)
    selector = faiss.IDSelectorRange(100, 200)
    _, rows = index.search(queries, 5, params=search_parameters(index, recipe.search, selector))
    assert ((rows >= 100) & (rows < 200)).all()
    if recipe.search:
        least = dict.fromkeys(recipe.search, 1)
        _, few = index.search(queries, 10, params=search_parameters(index, least))
        _, many = index.search(queries, 10, params=search_parameters(index, recipe.search))
        assert (few != many).any()


def test_centroids_save_the_k_means() -> None:
    vectors = clustered_vectors(1500)
    recipe = recipe_of(IndexConfig(), "ivf_sq8", len(vectors), vectors.shape[1])
    centroids = vectors[: recipe.num_lists]
    index = trained_index(recipe, vectors, centroids)
    np.testing.assert_allclose(index.quantizer.reconstruct_n(0, recipe.num_lists), centroids)


def test_raised_settings_double_and_end_at_all_lists() -> None:
    recipe = recipe_of(IndexConfig(nprobe=8), "ivf_pq", 2000, 16)
    assert [step.search for step in raised(recipe)] == [
        {"nprobe": 8, "k_factor": 10},
        {"nprobe": 16, "k_factor": 10},
        {"nprobe": 32, "k_factor": 20},
        {"nprobe": 32, "k_factor": 40},
    ]
    assert [step.search for step in raised(recipe_of(IndexConfig(), "exact", 2000, 16))] == [{}]


def test_reduced_settings_are_a_share_and_at_least_one() -> None:
    assert reduced({"nprobe": 9, "k_factor": 4}, 0.5) == {"nprobe": 5, "k_factor": 4}
    assert reduced({"ef_search": 64}, 0.001) == {"ef_search": 1}
    assert reduced({}, 0.5) == {}


def test_cost_grows_with_the_vectors_that_a_search_compares() -> None:
    exact, ivf = (recipe_of(IndexConfig(), kind, 2000, 16) for kind in ("exact", "ivf_sq8"))
    assert cost(exact, 2000) == 2000
    assert cost(ivf, 2000) == 32 + 32 * 2000 / 32
    sizes = [cost(recipe_of(IndexConfig(), "hnsw", num, 16), num) for num in (10, 1000, 100_000)]
    assert all(small < large < 4 * small for small, large in itertools.pairwise(sizes))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_lists": 52}, "index.num_lists: 52 lists need 2,028 items (39 a list), found 2,000; "
         "set it to 51 or less, or to null"),
        ({"pq_subquantizers": 7}, "index.pq_subquantizers: 7 does not divide 16 dimensions; "
         "use one of 1, 2, 4, 8, 16, or null"),
    ],
)  # fmt: skip
def test_parameter_that_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        recipe_of(IndexConfig.model_validate(settings), "ivf_pq", 2000, 16)
    assert str(caught.value) == message
