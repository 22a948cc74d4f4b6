"""The rate of `bench stream` excludes the warm-up, and incomplete batches are errors."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator

import numpy as np
import pytest

from raysys.bench import stream
from raysys.bench.stream import ReadyBatch, StreamWork
from raysys.config.schema import RayConfig, StreamConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.text import TextPreprocessing

WORK = StreamWork(
    shards_uri="shards",
    remote_uri=None,
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


def batches_of_four(work: StreamWork) -> Iterator[ReadyBatch]:
    for _ in range(work.num_batches):
        yield np.zeros((4, 8, 8, 3), np.uint8), np.zeros((4, 3), np.int64)


def test_warm_up_is_excluded_from_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    # The start, a first batch, a burst when the second worker has begun, then two batches every second.
    clock = iter([10.0, 13.0, 14.0, 14.0, 14.0, 14.0, 14.5, 15.5, 15.5, 16.5, 16.5])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    measurement = stream.measure_rate(batches_of_four, WORK)
    assert measurement.rate == 4 * 4 / (16.5 - 14.5)
    assert measurement.metrics == {"first_batch_s": 3.0}


def test_incomplete_batch_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"\(4, 8, 8, 3\)"):
        stream.measure_rate(batches_of_four, dataclasses.replace(WORK, batch_size=5))


def test_missing_batch_is_an_error() -> None:
    with pytest.raises(AssertionError, match="10 batches of 12"):
        stream.measure_rate(lambda _: batches_of_four(WORK), dataclasses.replace(WORK, num_measured=6))
