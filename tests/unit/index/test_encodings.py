"""Encodings: their scores are those of their search, whatever else the index has, and their codes have the stated size."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from raysys.index.encodings import Encoder, Encoding, encodings_of
from tests.unit.index.embedding_sets import clustered_vectors

DIMENSIONS = 64
VECTORS = clustered_vectors(640, DIMENSIONS)
QUERIES = clustered_vectors(3, DIMENSIONS, seed=1)

encodings = pytest.mark.parametrize("encoding", encodings_of(DIMENSIONS), ids=lambda encoding: encoding.name)


@encodings
def test_scores_are_those_of_a_search(encoding: Encoding) -> None:
    encoder = Encoder(encoding, VECTORS)
    scores = encoder.scores(QUERIES, VECTORS)
    found, rows = encoder.filled(VECTORS).search(QUERIES, 10)
    np.testing.assert_allclose(np.take_along_axis(scores, rows, axis=1), found, atol=1e-5)
    assert (np.sort(scores, axis=1)[:, -10:] <= found[:, :1] + 1e-5).all()


@encodings
def test_scores_do_not_depend_on_other_vectors(encoding: Encoding) -> None:
    encoder = Encoder(encoding, VECTORS)
    some = np.array([7, 500, 3])
    expected = encoder.scores(QUERIES, VECTORS)[:, some]
    np.testing.assert_allclose(encoder.scores(QUERIES, VECTORS[some]), expected, atol=1e-5)


# Root mean square of the errors; that of RaBitQ is at most 1 / sqrt(dimensions) (Gao & Long 2024).
ERRORS = {"fp32": 1e-6, "fp16": 1e-3, "sq8": 0.005, "rabitq4": 0.03, "sq4": 0.04, "pq": 0.06, "rabitq": 0.125}


@encodings
def test_scores_approximate_the_cosines(encoding: Encoding) -> None:
    errors = Encoder(encoding, VECTORS).scores(QUERIES, VECTORS) - QUERIES @ VECTORS.T
    assert np.sqrt(np.mean(errors**2)) < ERRORS[encoding.name]
    assert abs(errors.mean()) < 0.01  # unbiased


def test_bytes_are_those_of_the_index_file() -> None:
    sizes = {}
    for encoding in encodings_of(DIMENSIONS):
        encoder = Encoder(encoding, VECTORS)
        empty = faiss.serialize_index(encoder.index).nbytes
        grown = faiss.serialize_index(encoder.filled(VECTORS)).nbytes - empty
        sizes[encoding.name] = encoder.bytes_per_vector
        assert grown / len(VECTORS) == pytest.approx(encoder.bytes_per_vector, rel=0.02)
    # 4, 2 and 1 bytes a dimension, then 4 bits with the factors of RaBitQ, 4 bits, 2 bits, 1 bit with factors.
    assert sizes == {
        "fp32": 256,
        "fp16": 128,
        "sq8": 64,
        "rabitq4": 52,
        "sq4": 32,
        "pq": 16,
        "rabitq": 16,
    }


@pytest.mark.parametrize(("dimensions", "factory"), [(32, "PQ16x4fs"), (21, "PQ7x4fs"), (31, "PQ1x4fs")])
def test_subquantizers_divide_the_dimensions(dimensions: int, factory: str) -> None:
    (pq,) = (encoding for encoding in encodings_of(dimensions) if encoding.name == "pq")
    assert pq.factory == f"RR{dimensions},{factory}"


def test_too_few_vectors_to_train_are_refused() -> None:
    (pq,) = (encoding for encoding in encodings_of(DIMENSIONS) if encoding.name == "pq")
    with pytest.raises(ValueError, match="pq needs 624 vectors, got 623"):
        Encoder(pq, VECTORS[:623])
