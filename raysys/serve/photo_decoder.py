"""Decodes photos in a fixed number of threads; a limited number of photos may wait for one."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from jaxtyping import UInt8
from numpy import ndarray

from raysys.encoder.preprocess import ImagePreprocessing, photo_pixels
from raysys.errors import ServiceUnavailable
from raysys.serve.deadline import require_time


class PhotoDecoder:
    """Up to `num_threads` photos are decoded at a time, and `queue_length` wait."""

    def __init__(self, num_threads: int, queue_length: int) -> None:
        self._threads = ThreadPoolExecutor(num_threads, "decode")
        self._places = threading.BoundedSemaphore(num_threads + queue_length)

    async def pixels(
        self, photo: bytes, preprocessing: ImagePreprocessing, deadline: float
    ) -> UInt8[ndarray, "size size 3"]:
        """As `photo_pixels`, unless `deadline` passes first.

        A photo that waits when its request is cancelled is not decoded.
        Raises: UnreadableImage, DeadlineExceeded, ServiceUnavailable if no more photos may wait.
        """

        def decode() -> ndarray:
            require_time(deadline)
            return photo_pixels(photo, preprocessing)

        if not self._places.acquire(blocking=False):
            raise ServiceUnavailable("too many photos wait to be decoded; try again")
        decoded = self._threads.submit(decode)
        decoded.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(decoded)
