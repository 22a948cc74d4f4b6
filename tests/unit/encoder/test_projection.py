"""The projection against scikit-learn's `PCA.transform`."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from raysys.encoder.projection import Projection, fit_projection, load_projection
from raysys.errors import InputError


def unit_vectors(num: int, dimensions: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(num, dimensions)) * np.linspace(2, 0.5, dimensions)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def test_projection_equals_values_worked_out_by_hand() -> None:
    projection = Projection(
        mean=np.array([1, 0, 0], np.float32), components=np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    )
    # (4, 3, 4) - mean = (3, 3, 4); onto the components: (3, 4), of length 5.
    vectors = np.array([[4, 3, 4]], np.float32)
    np.testing.assert_allclose(projection.apply(vectors), [[0.6, 0.8]], atol=1e-7)


def test_projection_equals_normalised_scikit_learn_transform() -> None:
    training, vectors = unit_vectors(100, 16), unit_vectors(20, 16, seed=1)
    expected = PCA(n_components=5, random_state=0).fit(training).transform(vectors)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    projected = fit_projection(training, 5, seed=0).apply(vectors)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(projected, expected, atol=1e-5)


def test_vector_at_the_mean_is_projected_to_zero() -> None:
    projection = Projection(mean=np.ones(2, np.float32), components=np.eye(1, 2, dtype=np.float32))
    assert projection.apply(np.ones((1, 2), np.float32)).tolist() == [[0.0]]


def test_saved_projection_is_loaded_unchanged(tmp_path: Path) -> None:
    projection = fit_projection(unit_vectors(20, 8), 3, seed=0)
    projection.save(tmp_path)
    loaded = load_projection(tmp_path)
    assert loaded is not None
    assert loaded.dimensions == 3
    assert (loaded.mean == projection.mean).all()
    assert (loaded.components == projection.components).all()


def test_folder_without_projection_gives_none(tmp_path: Path) -> None:
    assert load_projection(tmp_path) is None


@pytest.mark.parametrize(("num", "dimensions", "limit"), [(10, 8, 8), (5, 8, 5)])
def test_too_many_components_are_an_error(num: int, dimensions: int, limit: int) -> None:
    assert fit_projection(unit_vectors(num, dimensions), limit, seed=0).dimensions == limit
    with pytest.raises(InputError) as caught:
        fit_projection(unit_vectors(num, dimensions), limit + 1, seed=0)
    assert str(caught.value) == (
        f"projection.dimensions: {limit + 1} components cannot be fitted to {num} vectors "
        f"of {dimensions} dimensions; set it to {limit} or less, or to null"
    )
