"""Queries beside the stored vectors, and the interval of a recall."""

import numpy as np
import pytest

from raysys.index.queries import perturbed, wilson_interval
from tests.unit.index.embedding_sets import clustered_vectors, unit_vectors


def test_query_is_as_far_from_its_item_as_the_nearest_neighbour() -> None:
    sample = clustered_vectors(500)
    cosines = sample @ sample.T
    np.fill_diagonal(cosines, -1)
    queries = perturbed(sample, sample, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-5)
    own = np.einsum("nd,nd->n", queries, sample)
    np.testing.assert_allclose(own, np.median(cosines.max(axis=1)), atol=1e-4)


def test_queries_vary_only_where_the_data_do() -> None:
    sample = unit_vectors(200)
    sample[:, 8:] = 0
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    assert not perturbed(sample[:20], sample, np.random.default_rng(0))[:, 8:].any()


def test_copies_and_a_single_item_are_their_own_queries() -> None:
    copies = np.repeat(unit_vectors(10), 2, axis=0)
    np.testing.assert_allclose(perturbed(copies, copies, np.random.default_rng(0)), copies, atol=1e-3)
    single = unit_vectors(1)
    np.testing.assert_allclose(perturbed(single, single, np.random.default_rng(0)), single, atol=1e-6)


@pytest.mark.parametrize(
    ("share", "num", "expected"),
    [  # by the formula of Wilson, with z = 1.96
        (0.5, 100, (0.4038, 0.5962)),
        (1.0, 1000, (0.9962, 1.0)),
        (0.0, 10, (0.0, 0.2775)),
    ],
)
def test_wilson_interval(share: float, num: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(share, num) == pytest.approx(expected, abs=1e-4)
