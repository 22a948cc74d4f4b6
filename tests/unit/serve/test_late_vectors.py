"""A follower finds vectors that come after their change, also of changes that are older than the index."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.index.build import publish_index
from raysys.index.changes import ChangeSource
from raysys.index.search import Searcher
from raysys.serve.follower import ChangeFollower, FollowerConfig
from raysys.store.change_log import ChangeLog
from raysys.store.changes import Delete
from tests.unit.index.changes import SPACE, upsert
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors

WAIT_S = 10.0
VECTORS = unit_vectors(30, 8)


@pytest.fixture
def log(tmp_path: Path) -> ChangeLog:
    return ChangeLog(f"sqlite:///{tmp_path}/store.db")


def index_with_changes(folder: Path, log: ChangeLog) -> Searcher:
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    source = ChangeSource(f"sqlite:///{folder}/store.db", 5.0, log.last())
    embeddings = publish_embeddings(folder / "e", VECTORS)
    publish_index(spec, embeddings, IndexConfig(kind="exact"), changes=source)
    return Searcher(spec.uri)


def test_vectors_come_before_and_after_the_follower_starts(tmp_path: Path, log: ChangeLog) -> None:
    log.append([upsert("m0", None), upsert("n0", None), upsert("n1", None), upsert("n2", None), Delete("n2")])
    searcher = index_with_changes(tmp_path, log)
    assert (searcher.manifest.num_without_vector, "m0" in searcher, "n0" in searcher) == (3, False, False)
    log.append([upsert("n3", None)])
    log.add_vectors(SPACE, {1: VECTORS[0], 2: VECTORS[1], 4: VECTORS[2]})
    follower = ChangeFollower(
        searcher, FollowerConfig(url=f"sqlite:///{tmp_path}/store.db", timeout_s=5.0, poll_s=0.01)
    )
    try:
        assert [name in searcher for name in ("m0", "n0", "n1", "n2", "n3")] == [
            True,
            True,
            False,
            False,
            False,
        ]
        np.testing.assert_array_equal(searcher.vector(searcher.row_of("n0")), VECTORS[1])
        log.add_vectors(SPACE, {6: VECTORS[3]})
        deadline = time.monotonic() + WAIT_S
        while "n3" not in searcher:
            assert time.monotonic() < deadline
            log.last()
        assert searcher.last_change == log.last() == 6
    finally:
        follower.stop()
        log.close()
