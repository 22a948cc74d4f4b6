"""The rate leaves out the warm-up."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import pytest

from raysys.bench import stream
from raysys.bench.stream import Feed, Ready
from raysys.config.schema import RayConfig, StreamConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.text import TextPreprocessing

FEED = Feed(
    shards_uri="shards",
    encoder_uri="encoder",
    image=ImagePreprocessing(size_px=8),
    text=TextPreprocessing(max_length=3),
    workers=2,
    batch_size=4,
    num_warm_up=6,
    num_measured=4,
    stream=StreamConfig(),
    ray=RayConfig(),
)


def whole_batches(feed: Feed) -> Iterator[Ready]:
    for _ in range(feed.num_batches):
        yield np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 3), np.int64)


def test_the_warm_up_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # The start, a first batch, a burst when the second worker has begun, then a pair every second.
    clock = iter([10.0, 13.0, 14.0, 14.0, 14.0, 14.0, 14.5, 15.5, 15.5, 16.5, 16.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    trial = stream._time(whole_batches, FEED)
    assert trial.rate == 4 * 4 / (16.5 - 14.5)
    assert trial.figures == {"first_batch_s": 3.0}


def test_a_batch_that_is_not_whole_stops_the_bench() -> None:
    with pytest.raises(AssertionError, match=r"\(4, 8, 8, 3\)"):
        stream._time(whole_batches, dataclasses.replace(FEED, batch_size=5))


def test_a_missing_batch_stops_the_bench() -> None:
    with pytest.raises(AssertionError, match="10 batches of 12"):
        stream._time(lambda _: whole_batches(FEED), dataclasses.replace(FEED, num_measured=6))
