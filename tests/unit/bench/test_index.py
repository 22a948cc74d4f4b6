"""The vectors of `raysys bench index`: their spectrum, filters, and the exact neighbours of its queries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from raysys.artifacts.embedding_set import read_embeddings, vectors_of
from raysys.bench import index_data
from raysys.bench.index_data import ALL, bucket_filter, draw_vectors, is_kept, write_work
from raysys.index.exact import exact_search


def test_spectrum_falls_as_stated() -> None:
    vectors = draw_vectors(4000, 128, 1000, seed=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    variances = np.linalg.eigvalsh(np.cov(vectors.T))
    # (sum of i ** -0.95) ** 2 / sum of i ** -1.9 over 128 dimensions is 21.0; unit length flattens it.
    assert 19 < variances.sum() ** 2 / (variances**2).sum() < 28


def test_exact_neighbours_are_those_of_the_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_data, "_ROWS_PER_FILE", 64)
    work = write_work(tmp_path, 200, dimensions=8, num_queries=5, shares=(0.5, 0.01))
    assert [*work.exact] == [ALL, 0.5]  # 1 % of the rows are fewer than the neighbours asked for
    table = read_embeddings(work.embeddings_uri)
    assert table.column("item_id").to_pylist() == [str(row) for row in range(200)]
    vectors = vectors_of(table)
    _, rows = exact_search(work.queries, vectors, 10)
    assert (work.exact[ALL].rows[:, :10] == rows).all()
    kept = np.flatnonzero(is_kept(np.arange(200), 0.5))
    _, places = exact_search(work.queries, vectors[kept], 10)
    assert (work.exact[0.5].rows[:, :10] == kept[places]).all()


@pytest.mark.parametrize("share", [0.1, 0.001])
def test_filters_keep_their_share_of_the_rows(share: float) -> None:
    kept = is_kept(np.arange(100_000), share)
    assert kept.mean() == pytest.approx(share, rel=0.2)
    [limit] = bucket_filter(share)["bucket"].values()
    table = index_data._table(np.arange(1000), np.ones((1000, 2), np.float32))
    buckets = [json.loads(text)["bucket"] for text in table.column("attributes").to_pylist()]
    assert [bucket <= limit for bucket in buckets] == kept[:1000].tolist()
