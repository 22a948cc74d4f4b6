"""One encoder for the threads of an actor, each of which has a block: their photos become batches.

On a GPU all batches have the same number of photos and are filled across blocks, because code is compiled for
one size, and a small batch takes as long as a full one. Only what is left when no other block comes is
padded. On a CPU a batch has photos of one block, so that a vector does not depend on which blocks came
together, and each core computes a batch of its own: threads that share a batch wait for each other in busy
loops. Beside other work, two of them took three times the CPU time.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy import ndarray

from raysys.embed.options import EncoderOptions
from raysys.encoder.forward import PendingVectors
from raysys.encoder.image_encoder import open_image_encoder
from raysys.encoder.siglip import SiglipEncoder
from raysys.encoder.vision import VisionEncoder
from raysys.errors import OutOfMemory, out_of_memory_reason

_FILL_S = 0.1  # how long an incomplete batch waits for photos of another block


def open_encoder(source: str, options: EncoderOptions) -> SiglipEncoder | VisionEncoder:
    """The encoder at this address. Raises: as `open_image_encoder`."""
    return open_image_encoder(
        source, device=options.device, precision=options.precision, compiled=options.is_compiled
    )


class SharedEncoder:
    """Computes vectors for several threads at a time, in threads of its own."""

    def __init__(self, encoder: SiglipEncoder | VisionEncoder, options: EncoderOptions) -> None:
        self.image, self.dimensions, self.space_id = encoder.image, encoder.dimensions, encoder.space_id
        self._encoder, self._options = encoder, options
        self._num_threads = options.num_threads or 1
        one_core = functools.partial(torch.set_num_threads, 1) if options.num_threads else None
        self._threads = ThreadPoolExecutor(self._num_threads, initializer=one_core)
        self._waiting: deque[_Photo] = deque()
        self._changed = threading.Condition()
        self._busy_s = 0.0

    def submit(self, photos: Sequence[ndarray]) -> Future[ndarray]:
        """The future vectors of prepared photos, float32 [photos, dimensions]; its error is the encoder's."""
        work = _Work(photos, np.empty((len(photos), self.dimensions), np.float32), len(photos))
        if not photos:
            work.finished.set_result(work.vectors)
            return work.finished
        with self._changed:
            self._waiting.extend(_Photo(work, row) for row in range(len(photos)))
            self._changed.notify()
        num_batches = -(-len(photos) // self._options.batch_size)
        for _ in range(min(self._num_threads, num_batches)):
            self._threads.submit(self._compute_waiting)
        return work.finished

    def take_busy_s(self) -> float:
        """Seconds for which the encoder has computed since the last call, as a mean over its threads."""
        with self._changed:
            busy_s, self._busy_s = self._busy_s, 0.0
        return busy_s

    def _compute_waiting(self) -> None:
        """Compute until no photo waits; a GPU gets the next batch before the vectors of one are awaited."""
        started: deque[tuple[list[_Photo], PendingVectors]] = deque()
        num_ahead = 1 if self._options.has_fixed_batches else 0
        while (batch := self._take_batch(may_wait=not started)) or started:
            if batch:
                self._start(batch, started)
            if started and (len(started) > num_ahead or not batch):
                self._finish(*started.popleft())

    def _take_batch(self, *, may_wait: bool) -> list[_Photo]:
        """The photos of the next batch. An incomplete one of fixed size only with `may_wait`."""
        size, waiting = self._options.batch_size, self._waiting
        with self._changed:
            if self._options.has_fixed_batches:
                if may_wait and waiting:
                    self._changed.wait_for(lambda: len(waiting) >= size, _FILL_S)
                num = size if len(waiting) >= size else len(waiting) * may_wait
            else:
                of_block = itertools.takewhile(lambda photo: photo.work is waiting[0].work, waiting)
                num = len(list(itertools.islice(of_block, size)))
            return [waiting.popleft() for _ in range(num)]

    def _start(self, batch: list[_Photo], started: deque[tuple[list[_Photo], PendingVectors]]) -> None:
        try:
            pixels = np.stack([photo.work.photos[photo.row] for photo in batch])
            if self._options.has_fixed_batches and len(batch) < self._options.batch_size:
                padding = np.zeros((self._options.batch_size - len(batch), *pixels.shape[1:]), pixels.dtype)
                pixels = np.concatenate([pixels, padding])
            with self._counted_as_busy():
                pending = self._encoder.start_pixels(pixels)
            started.append((batch, pending))
        except Exception as error:
            self._fail(batch, error)

    def _finish(self, batch: list[_Photo], pending: PendingVectors) -> None:
        try:
            with self._counted_as_busy():
                vectors = pending()
        except Exception as error:
            self._fail(batch, error)
            return
        with self._changed:
            for photo, vector in zip(batch, vectors, strict=False):  # padding has no photo
                photo.work.set_vector(photo.row, vector)

    def _fail(self, batch: list[_Photo], error: Exception) -> None:
        """Pass the error on to the blocks of a batch, which never get all of their vectors."""
        if reason := out_of_memory_reason(error):
            remedy = f"lower embed.batch_size (now {self._options.batch_size})"
            error = OutOfMemory(f"embed: the encoder has too little memory ({reason}); {remedy}")
        with self._changed:
            for photo in batch:
                if not photo.work.finished.done():
                    photo.work.finished.set_exception(error)

    @contextlib.contextmanager
    def _counted_as_busy(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        with self._changed:
            self._busy_s += (time.monotonic() - began) / self._num_threads


@dataclass(eq=False)
class _Work:
    """The photos of a block, and the vectors computed so far."""

    photos: Sequence[ndarray]
    vectors: ndarray
    num_missing: int
    finished: Future[ndarray] = field(default_factory=Future)

    def set_vector(self, row: int, vector: ndarray) -> None:
        self.vectors[row] = vector
        self.num_missing -= 1
        if not self.num_missing:
            self.finished.set_result(self.vectors)


@dataclass(frozen=True)
class _Photo:
    work: _Work
    row: int
