"""What is read of an EmbeddingSet: a sample, the queries in it, given items, the moments of the training split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raysys.errors import InputError
from raysys.evaluate.frontier.vectors import read_stored_vectors
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors

VECTORS = unit_vectors(30, 8)


def test_whole_set_is_read_in_order(tmp_path: Path) -> None:
    uri = publish_embeddings(tmp_path / "set", VECTORS, num_files=3)
    stored = read_stored_vectors(uri, {"m4", "m29", "sold"}, max_items=100, num_queries=5, seed=0)
    np.testing.assert_array_equal(stored.base, VECTORS)
    assert (stored.num_items, len(stored.query_rows), stored.moments.num) == (30, 5, 30)
    np.testing.assert_array_equal(stored.vectors_of(["m29", "m4"]), VECTORS[[29, 4]])


def test_sample_of_a_large_set_is_random_and_without_repeats(tmp_path: Path) -> None:
    uri = publish_embeddings(tmp_path / "set", VECTORS, num_files=3, split="test")
    stored = read_stored_vectors(uri, set(), max_items=10, num_queries=100, seed=0)
    rows = np.argmax(stored.base @ VECTORS.T, axis=1)
    assert len(set(rows.tolist())) == 10
    assert rows.tolist() != list(range(10))
    assert stored.query_rows.tolist() == list(range(10))
    assert (stored.num_items, stored.moments.num) == (30, 0)  # no vector of train
    np.testing.assert_array_equal(
        stored.base, read_stored_vectors(uri, set(), max_items=10, num_queries=1, seed=0).base
    )


def test_single_item_is_refused(tmp_path: Path) -> None:
    uri = publish_embeddings(tmp_path / "set", VECTORS[:1])
    with pytest.raises(InputError, match="1 item has no neighbours; embed more items"):
        read_stored_vectors(uri, set(), max_items=10, num_queries=1, seed=0)
