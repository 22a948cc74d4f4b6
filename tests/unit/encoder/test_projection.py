"""The projection against scikit-learn's `PCA.transform`."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.decomposition import PCA

from raysys.encoder.projection import Moments, Projection, fit_projection, load_projection
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
    projected = fit_projection(Moments.of(training), 5).apply(vectors)
    assert projected.dtype == np.float32
    np.testing.assert_allclose(np.abs(projected), np.abs(expected), atol=1e-5)  # signs are a convention


def test_whitened_projection_equals_scikit_learns() -> None:
    training, vectors = unit_vectors(100, 16), unit_vectors(20, 16, seed=1)
    expected = PCA(n_components=5, whiten=True, random_state=0).fit(training).transform(vectors)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    projected = fit_projection(Moments.of(training), 5, whiten=True).apply(vectors)
    np.testing.assert_allclose(np.abs(projected), np.abs(expected), atol=1e-5)


@pytest.mark.parametrize("whiten", [False, True])
def test_first_components_are_the_pca_of_fewer_dimensions(whiten: bool) -> None:
    moments, vectors = Moments.of(unit_vectors(100, 16)), unit_vectors(20, 16, seed=1)
    first = fit_projection(moments, 9, whiten=whiten).first(5)
    expected = fit_projection(moments, 5, whiten=whiten)
    assert first.dimensions == 5
    np.testing.assert_array_equal(first.apply(vectors), expected.apply(vectors))


def test_moments_of_parts_add_up() -> None:
    vectors = unit_vectors(100, 16)
    parts = Moments.of(vectors[:30]) + Moments.of(vectors[30:30]) + Moments.of(vectors[30:])
    whole = Moments.of(vectors)
    assert parts.num == 100
    np.testing.assert_allclose(parts.covariance(), np.cov(vectors.T, bias=True), atol=1e-9)
    np.testing.assert_allclose(parts.products, whole.products, rtol=1e-12)


def test_equal_vectors_have_no_variance() -> None:
    vectors = unit_vectors(3, 16)
    assert not Moments.of(np.repeat(vectors[:1], 1000, axis=0)).has_variance
    assert not Moments.of(vectors[:0]).has_variance
    assert Moments.of(vectors).has_variance


def test_directions_without_variance_are_not_blown_up() -> None:
    vectors = unit_vectors(6, 8)  # they vary in five directions
    projected = fit_projection(Moments.of(vectors), 6, whiten=True).apply(vectors)
    assert np.isfinite(projected).all()
    assert (np.abs(projected[:, 5]) < 0.1).all()


def test_vector_at_the_mean_is_projected_to_zero() -> None:
    projection = Projection(mean=np.ones(2, np.float32), components=np.eye(1, 2, dtype=np.float32))
    assert projection.apply(np.ones((1, 2), np.float32)).tolist() == [[0.0]]


def test_saved_projection_is_loaded_unchanged(tmp_path: Path) -> None:
    projection = fit_projection(Moments.of(unit_vectors(20, 8)), 3)
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
    assert fit_projection(Moments.of(unit_vectors(num, dimensions)), limit).dimensions == limit
    with pytest.raises(InputError) as caught:
        fit_projection(Moments.of(unit_vectors(num, dimensions)), limit + 1)
    assert str(caught.value) == (
        f"projection.dimensions: {limit + 1} components cannot be fitted to {num} vectors "
        f"of {dimensions} dimensions; set it to {limit} or less, or to null"
    )
