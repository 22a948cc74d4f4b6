"""Photos of several threads become batches: of one block on a CPU, of one size and filled across blocks on a GPU."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy import ndarray

from raysys.embed.options import EncoderOptions
from raysys.embed.shared_encoder import SharedEncoder
from raysys.encoder.forward import Forward, PendingVectors
from raysys.errors import OutOfMemory


class FakeEncoder:
    """The vector of a photo is its value. Starts no batch before `go`, and notes what happens."""

    dimensions, space_id, image = 1, "space", None

    def __init__(self, bad: int | None = None) -> None:
        self.go = threading.Event()
        self.batches: list[list[int]] = []
        self.events: list[str] = []
        self.num_threads = 0
        self._bad = bad

    def start_pixels(self, pixels: ndarray) -> PendingVectors:
        assert self.go.wait(60)
        self.num_threads = torch.get_num_threads()
        self.batches.append(pixels[:, 0].tolist())
        self.events.append(f"start {pixels[0, 0]}")
        if self._bad in self.batches[-1]:
            raise RuntimeError("out of memory")

        def wait() -> ndarray:
            self.events.append(f"await {pixels[0, 0]}")
            return pixels.astype(np.float32)

        return wait


def shared(encoder: FakeEncoder, *, fixed: bool, num_threads: int | None = None) -> SharedEncoder:
    options = EncoderOptions("cuda" if fixed else "cpu", "fp32", 4, num_threads=num_threads)
    return SharedEncoder(cast(Any, encoder), options)


def photos(*values: int) -> list[ndarray]:
    return [np.array([value], np.uint8) for value in values]


def embed_blocks(encoder: FakeEncoder, *blocks: list[ndarray], fixed: bool) -> list[list[float]]:
    """The vectors of blocks that are there before the first batch is computed."""
    together = shared(encoder, fixed=fixed)
    futures = [together.submit(block) for block in blocks]
    encoder.go.set()
    return [future.result(60)[:, 0].tolist() for future in futures]


def test_fixed_batches_are_filled_across_blocks_and_only_the_last_is_padded() -> None:
    encoder = FakeEncoder()
    vectors = embed_blocks(encoder, photos(1, 2, 3, 4, 5), photos(6, 7), photos(8, 9), fixed=True)
    assert vectors == [[1, 2, 3, 4, 5], [6, 7], [8, 9]]
    assert encoder.batches == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 0, 0, 0]]


def test_batches_on_a_cpu_have_photos_of_one_block() -> None:
    encoder = FakeEncoder()
    vectors = embed_blocks(encoder, photos(1, 2, 3, 4, 5), photos(6, 7), fixed=False)
    assert vectors == [[1, 2, 3, 4, 5], [6, 7]]
    assert encoder.batches == [[1, 2, 3, 4], [5], [6, 7]]


def test_next_batch_of_a_gpu_is_started_before_one_is_awaited() -> None:
    encoder = FakeEncoder()
    embed_blocks(encoder, photos(*range(12)), fixed=True)
    assert encoder.events == ["start 0", "start 4", "await 0", "start 8", "await 4", "await 8"]


def test_error_reaches_the_blocks_of_its_batch_and_no_other() -> None:
    encoder = FakeEncoder(bad=6)
    together = shared(encoder, fixed=True)
    blocks = photos(1, 2, 3, 4), photos(5), photos(6, 7, 8, 9), photos(10, 11, 12)
    first, *failed, last = [together.submit(block) for block in blocks]
    encoder.go.set()
    for future in failed:
        with pytest.raises(OutOfMemory) as caught:
            future.result(60)
        assert str(caught.value) == (
            "embed: the encoder has too little memory (out of memory); lower embed.batch_size (now 4)"
        )
    assert first.result(60)[:, 0].tolist() == [1, 2, 3, 4]
    assert last.result(60)[:, 0].tolist() == [10, 11, 12]


def test_block_without_photos_needs_no_batch() -> None:
    encoder = FakeEncoder()
    assert shared(encoder, fixed=True).submit([]).result(0).shape == (0, 1)
    assert encoder.batches == []


def test_each_thread_of_a_cpu_computes_a_batch_on_one_core() -> None:
    class Meeting(FakeEncoder):
        def start_pixels(self, pixels: ndarray) -> PendingVectors:
            both_compute.wait(60)  # the other thread has a batch, too
            return super().start_pixels(pixels)

    both_compute = threading.Barrier(2)
    encoder = Meeting()
    encoder.go.set()
    vectors = shared(encoder, fixed=False, num_threads=2).submit(photos(*range(7))).result(60)
    assert vectors[:, 0].tolist() == [*range(7)]
    assert sorted(encoder.batches) == [[0, 1, 2, 3], [4, 5, 6]]
    assert encoder.num_threads == 1


def test_seconds_of_the_encoder_are_counted_once() -> None:
    encoder = FakeEncoder()
    encoder.go.set()
    together = shared(encoder, fixed=False)
    together.submit(photos(1, 2)).result(60)
    assert together.take_busy_s() > 0
    assert together.take_busy_s() == 0


def test_forward_gives_unit_vectors_of_all_batches_in_order() -> None:
    forward = Forward(lambda rows: torch.stack([rows[:, 0] * 3, rows[:, 0] * 4], 1), torch.device("cpu"))
    rows = np.array([[1.0], [-2.0], [5.0]])
    rows.flags.writeable = False  # as a view of Arrow's memory
    np.testing.assert_allclose(forward(rows, 2), [[0.6, 0.8], [-0.6, -0.8], [0.6, 0.8]], rtol=1e-6)
