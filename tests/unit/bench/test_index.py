"""The vectors of `raysys bench index`: their spectrum, and the exact neighbours of its queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raysys.artifacts.embedding_set import read_embeddings, vectors_of
from raysys.bench import index
from raysys.bench.config import BenchRunConfig
from raysys.bench.index import draw_vectors
from raysys.index.exact import exact_search


def test_spectrum_falls_as_stated() -> None:
    vectors = draw_vectors(4000, 128, 1000, seed=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    variances = np.linalg.eigvalsh(np.cov(vectors.T))
    # (sum of i ** -0.95) ** 2 / sum of i ** -1.9 over 128 dimensions is 21.0; unit length flattens it.
    assert 19 < variances.sum() ** 2 / (variances**2).sum() < 28


def test_exact_neighbours_are_those_of_the_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_ROWS_PER_FILE", 64)
    settings = {"index_vectors": [200], "index_dimensions": 8, "index_queries": 5}
    work = index._write_vectors(tmp_path, BenchRunConfig.model_validate({"bench": settings}), 200)
    table = read_embeddings(str(tmp_path / "embeddings"))
    assert table.column("item_id").to_pylist() == [str(row) for row in range(200)]
    _, rows = exact_search(work.queries, vectors_of(table), 10)
    assert (work.exact.rows[:, :10] == rows).all()
