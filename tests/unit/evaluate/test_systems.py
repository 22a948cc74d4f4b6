"""The popularity baseline against values computed by hand, and on random taps."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.columns import embedding_schema
from raysys.config.schema import IndexConfig
from raysys.evaluate.interaction_log import InteractionLog, read_log
from raysys.evaluate.metrics import ndcg_at, rank_by
from raysys.evaluate.systems import index_scores, popularity_scores
from raysys.index.build import publish_index


def test_popularity_leaves_out_the_impression_that_is_ranked() -> None:
    log = read_log(
        pa.table(
            {
                "impression_id": [0, 0, 1, 1],
                "query_id": ["p", "p", "q", "q"],
                "item_id": ["a", "b", "a", "c"],
                "position": [0, 1, 0, 1],
                "tapped": [True, False, False, True],
            }
        )
    )
    # The overall rate is 2/4; the prior is 5 shows at that rate: 2.5 / 5. In impression 0, `a` has one other
    # show without a tap: 2.5 / 6. In impression 1 it has one other with a tap: 3.5 / 6. `b` and `c` have none.
    expected = np.array([[2.5 / 6, 0.5], [3.5 / 6, 0.5]])
    assert popularity_scores(log) == pytest.approx(expected)


def test_popularity_equals_a_random_order_if_taps_are_random() -> None:
    rng = np.random.default_rng(0)
    shown = np.ones((3000, 8), dtype=bool)
    tapped = rng.random(shown.shape) < 0.3
    ids = [[str(item) for item in rng.choice(40, 8, replace=False)] for _ in range(3000)]
    log = InteractionLog([""] * 3000, ids, tapped, shown, simulated=True)
    by_popularity = ndcg_at(5, rank_by(popularity_scores(log), tapped, shown, seed=0)).mean()
    random = ndcg_at(5, rank_by(np.zeros(shown.shape), tapped, shown, seed=0)).mean()
    assert by_popularity == pytest.approx(random, abs=0.02)


def test_popularity_of_padding_is_nan() -> None:
    shown = np.array([[True, True], [True, False]])
    tapped = np.array([[False, True], [True, False]])
    log = InteractionLog(["q1", "q2"], [["b", "a"], ["c"]], tapped, shown, simulated=False)
    assert np.isnan(popularity_scores(log)).tolist() == [[False, False], [False, True]]


def test_index_has_no_score_for_what_it_does_not_contain(tmp_path: Path) -> None:
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], np.float32)
    rows = [
        {"item_id": item_id, "title": "", "attributes": "{}", "split": "test", "shard": "", "image_offset": 0,
         "image_bytes": 0, "content_hash": "", "embedding": vector}
        for item_id, vector in zip("abc", vectors.tolist(), strict=True)
    ]  # fmt: skip
    spec = ArtifactSpec(str(tmp_path / "embeddings"), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    pq.write_table(pa.Table.from_pylist(rows, schema=embedding_schema(2)), f"{spec.uri}/0.parquet")
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), 3, 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="s", dimensions=2))
    index = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    publish_index(index, spec.uri, IndexConfig())
    shown = np.ones((2, 2), dtype=bool)
    log = InteractionLog(["a", "sold"], [["b", "sold"], ["b", "c"]], shown, shown, simulated=False)
    scores = index_scores(index.uri, log)
    assert scores[0, 0] == pytest.approx(0.6)
    assert np.isnan(scores).tolist() == [[False, True], [True, True]]
