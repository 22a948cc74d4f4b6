"""The recall that the searcher measures on a sample of its queries."""

from __future__ import annotations

import random
import threading
from typing import Any

import numpy as np
import pytest

from raysys.index.neighbours import Neighbours
from raysys.serve import metrics
from raysys.serve.live_recall import LiveRecall, recall_of

QUERY = np.array([1.0, 0.0], np.float32)
EXACT_SCORES = np.linspace(1.0, 0.0, 100, dtype=np.float32)


class HalfBlindIndex:
    """An index whose approximate search misses every second row."""

    def nearest(self, vectors: np.ndarray, k: int, *, where: Any, is_exact: bool = False) -> Neighbours:
        rows = np.arange(100)[: k if is_exact else 2 * k : 1 if is_exact else 2]
        return Neighbours(EXACT_SCORES[rows][None], rows[None])


class HeldIndex(HalfBlindIndex):
    """An index whose searches wait for `may_continue`."""

    def __init__(self) -> None:
        self.may_continue = threading.Event()

    def nearest(self, *arguments: Any, **options: Any) -> Neighbours:
        self.may_continue.wait(10)
        return super().nearest(*arguments, **options)


class BrokenIndex:
    """An index whose searches fail."""

    def nearest(self, *_: Any, **__: Any) -> Neighbours:
        raise ZeroDivisionError


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    values: list[tuple[str, float]] = []
    monkeypatch.setattr(metrics, "record", lambda name, value: values.append((name, value)))
    return values


def test_recall_is_the_share_of_the_nearest_that_were_found() -> None:
    index: Any = HalfBlindIndex()
    assert recall_of(index, QUERY) == 0.5  # rows 0, 2, 4, 6, 8 of 0 .. 9


def test_one_query_is_measured_at_a_time(recorded: list[tuple[str, float]]) -> None:
    index: Any = HeldIndex()
    recall = LiveRecall(1.0, random.Random(0))
    for _ in range(3):
        recall.sample(index, QUERY, None)
    index.may_continue.set()
    recall.close()
    assert recorded == [("raysys_recall", 0.5)]


def test_thread_works_a_fiftieth_of_the_time(recorded: list[tuple[str, float]]) -> None:
    now = [1000.0]

    class SlowIndex(HalfBlindIndex):
        """An index whose searches take two seconds."""

        def nearest(self, *arguments: Any, **options: Any) -> Neighbours:
            now[0] += 2.0
            return super().nearest(*arguments, **options)

    slow: Any = SlowIndex()
    recall = LiveRecall(1.0, random.Random(0), clock=lambda: now[0])
    recall.sample(slow, QUERY, None)
    recall.wait()
    assert now[0] == 1004.0  # the search and the exact one
    now[0] += 195.0
    recall.sample(slow, QUERY, None)
    recall.wait()
    assert len(recorded) == 1
    now[0] += 2.0
    recall.sample(slow, QUERY, None)
    recall.close()
    assert len(recorded) == 2


@pytest.mark.parametrize(("share", "num_values"), [(0.0, 1), (1.0, 101)])
def test_no_query_is_measured_without_a_sample_or_with_a_large_filter(
    recorded: list[tuple[str, float]], share: float, num_values: int
) -> None:
    index: Any = HalfBlindIndex()
    recall = LiveRecall(share, random.Random(0))
    recall.sample(index, QUERY, {"seller": {"in": ["s"] * num_values}})
    recall.close()
    assert recorded == []


def test_failed_comparison_is_logged_and_the_next_one_runs(
    recorded: list[tuple[str, float]], caplog: pytest.LogCaptureFixture
) -> None:
    broken: Any = BrokenIndex()
    recall = LiveRecall(1.0, random.Random(0))
    recall.sample(broken, QUERY, None)
    while not recorded:  # the first comparison may still run
        recall.sample(HalfBlindIndex(), QUERY, None)  # type: ignore[arg-type]
    recall.close()
    assert "could not be measured" in caplog.text
