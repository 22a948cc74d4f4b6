"""The vectors of `raysys bench index`: their spectrum, filters, and the exact neighbours of its queries."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from raysys.artifacts.embedding_set import read_embeddings, vectors_of
from raysys.bench import index_data
from raysys.bench.config import BenchConfig, BenchRunConfig
from raysys.bench.index import _build_with_autofaiss
from raysys.bench.index_data import BenchFilter, draw_vectors, write_work
from raysys.errors import ClusterError
from raysys.index.exact import exact_search


def test_spectrum_falls_as_stated() -> None:
    vectors = draw_vectors(4000, 128, 1000, seed=1)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    variances = np.linalg.eigvalsh(np.cov(vectors.T))
    # (sum of i ** -0.95) ** 2 / sum of i ** -1.9 over 128 dimensions is 21.0; unit length flattens it.
    assert 19 < variances.sum() ** 2 / (variances**2).sum() < 28


def test_exact_neighbours_are_those_of_the_oracle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_data, "_ROWS_PER_FILE", 64)
    work = write_work(tmp_path, 200, dimensions=8, num_queries=5, shares=(0.5, 0.01), region_shares=(0.3,))
    # 1 % of the rows are fewer than the neighbours asked for
    assert [(one.attribute, one.share) for one in work.kept] == [("bucket", 0.5), ("region", 0.3)]
    assert [*work.exact] == [None, *work.kept]
    table = read_embeddings(work.embeddings_uri)
    assert table.column("item_id").to_pylist() == [str(row) for row in range(200)]
    vectors = vectors_of(table)
    attributes = [json.loads(text) for text in table.column("attributes").to_pylist()]
    for one, exact in work.exact.items():
        kept = [
            row for row, values in enumerate(attributes) if one is None or values[one.attribute] <= one.limit
        ]
        _, places = exact_search(work.queries, vectors[kept], 10)
        assert (exact.rows[:, :10] == np.array(kept)[places]).all()
        if one is not None:
            assert work.kept[one].rows().tolist() == kept
            assert one.where == {one.attribute: {"lte": one.limit}}
            assert len(kept) / 200 == pytest.approx(one.share, abs=0.12)


@pytest.mark.parametrize("share", [0.1, 0.001])
def test_random_filters_keep_their_share_of_the_rows(share: float) -> None:
    rows = np.arange(100_000)
    kept = BenchFilter("bucket", share, round(share * 10_000) - 1).is_kept(
        rows, np.ones((len(rows), 1), np.float32)
    )
    assert kept.mean() == pytest.approx(share, rel=0.2)


def test_autofaiss_that_fails_is_reported_by_its_last_line(tmp_path: Path) -> None:
    work = write_work(tmp_path, 200, dimensions=8, num_queries=5, shares=())
    config = BenchRunConfig(bench=BenchConfig(index_autofaiss_python=sys.executable))
    with pytest.raises(
        ClusterError, match=r"^autofaiss: exit status 1: ModuleNotFoundError: No module named"
    ):
        _build_with_autofaiss(work, config)
