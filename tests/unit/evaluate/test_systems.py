"""The popularity baseline against values computed by hand, and on random taps."""

import numpy as np
import pyarrow as pa
import pytest

from raysys.evaluate.interaction_log import InteractionLog, read_log
from raysys.evaluate.metrics import ndcg_at, rank_by
from raysys.evaluate.systems import popularity_scores


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
