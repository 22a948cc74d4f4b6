"""Photos are decoded in a fixed number of threads, and a limited number of them waits."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable

import numpy as np
import pytest

from raysys.encoder.preprocess import ImagePreprocessing
from raysys.errors import DeadlineExceeded, ServiceUnavailable
from raysys.serve import photo_decoder
from raysys.serve.photo_decoder import PhotoDecoder
from tests.factories import photo
from tests.unit.serve.conftest import Service

PREPROCESSING = ImagePreprocessing(16)


def test_photo_beyond_threads_and_queue_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    may_continue = threading.Event()

    def held(*_: object) -> np.ndarray:
        assert may_continue.wait(10)
        return np.zeros(1)

    monkeypatch.setattr(photo_decoder, "photo_pixels", held)

    async def run() -> None:
        decoder = PhotoDecoder(num_threads=1, queue_length=1)
        accepted = [asyncio.create_task(decoder.pixels(b"", PREPROCESSING, math.inf)) for _ in range(2)]
        await asyncio.sleep(0)  # the tasks start
        with pytest.raises(ServiceUnavailable):
            await decoder.pixels(b"", PREPROCESSING, math.inf)
        accepted[1].cancel()  # it waits: its place is free at once
        with pytest.raises(asyncio.CancelledError):
            await accepted[1]
        last = asyncio.create_task(decoder.pixels(b"", PREPROCESSING, math.inf))
        await asyncio.sleep(0)
        may_continue.set()
        await asyncio.gather(accepted[0], last)

    asyncio.run(run())


def test_photo_whose_deadline_has_passed_is_not_decoded() -> None:
    with pytest.raises(DeadlineExceeded):
        asyncio.run(PhotoDecoder(1, 1).pixels(photo((1, 2, 3)), PREPROCESSING, 0.0))


def test_search_with_a_photo_uses_it(serve_with: Callable[..., Service]) -> None:
    response = serve_with(decode_threads=1, queue_length=1).post(
        "/v1/search", files={"image": photo((1, 2, 3))}
    )
    assert response.status_code == 200
