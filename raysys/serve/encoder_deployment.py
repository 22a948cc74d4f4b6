"""The encoder as a Serve deployment; the inputs of concurrent calls are embedded together."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy import ndarray
from ray import serve

from raysys.artifacts.served import ServedPair
from raysys.cluster import nodes
from raysys.config.schema import ServeConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.serve.deadline import has_passed
from raysys.serve.generations import Generations
from raysys.serve.metrics import record

if TYPE_CHECKING:
    from raysys.encoder.siglip import SiglipEncoder


_THREADS_WITH_GPU = 4  # their batches are prepared while another one is computed
_SHORT_S = 0.05


@dataclass(frozen=True)
class EncoderInfo:
    """The properties of the encoder that the gateway needs."""

    space_id: str
    dimensions: int
    image: ImagePreprocessing


class Input(NamedTuple):
    """The pixels of a photo or a title, the encoder that embeds it, and the deadline of its request."""

    encoder: SiglipEncoder
    value: Any
    deadline: float


@serve.deployment(name="Encoder")
class EncoderDeployment:
    """Embeds preprocessed photos and titles as unit vectors, each with the encoder of a generation."""

    def __init__(
        self,
        initial: ServedPair,
        served_uri: str,
        section: ServeConfig,
    ) -> None:
        self._section = section
        # On a CPU one thread computes all batches: once several have, OpenMP lets its threads sleep within a
        # forward pass (9.5 instead of 5.5 ms for a photo, a small model on two cores).
        self._computing = ThreadPoolExecutor(_THREADS_WITH_GPU if section.use_gpu else 1, "encoder")
        self._generations = Generations(
            served_uri, initial, uri_of=lambda pair: pair.encoder_uri, open_version=self._open
        )
        self._generations.start()
        batched: Any
        for batched in (self._embed_pixels, self._embed_titles):
            batched.set_max_batch_size(section.max_batch_size)
            batched.set_batch_wait_timeout_s(section.batch_wait_ms / 1000)

    async def load(self, pair: ServedPair) -> None:
        """Load the encoder of a pair beside the others, which embed meanwhile. Raises: as `open_bundle`."""
        await asyncio.to_thread(self._generations.load, pair)

    async def keep(self, generations: Collection[int]) -> None:
        """Drop all other generations."""
        await asyncio.to_thread(self._generations.keep, generations)

    async def info(self, generation: int) -> EncoderInfo:
        """Space id, dimensions and photo preprocessing."""
        encoder = await self._generations.get(generation)
        return EncoderInfo(encoder.space_id, encoder.dimensions, encoder.image)

    async def embed_pixels(
        self, generation: int, photos: Sequence[ndarray], deadlines: Sequence[float]
    ) -> list[ndarray | None]:
        """The vectors of photos prepared by `photo_pixels`; None for one whose deadline has passed.

        Raises: GenerationGone.
        """
        encoder = await self._generations.get(generation)
        return await self._embed_pixels(inputs_of(encoder, photos, deadlines))

    async def embed_titles(
        self, generation: int, titles: Sequence[str], deadlines: Sequence[float]
    ) -> list[ndarray | None]:
        """The vectors of titles or search queries, as `embed_pixels`."""
        encoder = await self._generations.get(generation)
        return await self._embed_titles(inputs_of(encoder, titles, deadlines))

    @serve.batch
    async def _embed_pixels(self, calls: list[list[Input]]) -> list[list[ndarray | None]]:
        def embed(encoder: SiglipEncoder, photos: list[ndarray]) -> ndarray:
            return encoder.embed_pixels(np.stack(photos), self._section.max_batch_size)

        return await embed_calls(calls, embed, self._computing)

    @serve.batch
    async def _embed_titles(self, calls: list[list[Input]]) -> list[list[ndarray | None]]:
        def embed(encoder: SiglipEncoder, titles: list[str]) -> ndarray:
            return encoder.embed_titles(titles, self._section.max_batch_size)

        return await embed_calls(calls, embed, self._computing)

    def _open(self, uri: str) -> SiglipEncoder:
        from raysys.encoder.bundle import open_bundle  # torch takes seconds to import; only replicas need it

        section = self._section
        with ThreadPoolExecutor(1) as opening:  # this thread ends, and with it those that OpenMP makes for it
            opened = opening.submit(
                open_bundle, uri, device=section.device, precision=section.chosen_precision
            )
            if section.use_gpu:
                warm_up = partial(
                    opened.result().warm_up, section.max_batch_size, compiled=section.is_compiled
                )
                opening.submit(warm_up).result()
            else:
                self._computing.submit(self._warm_up_on_cpu, opened.result()).result()
            return opened.result()

    def _warm_up_on_cpu(self, encoder: SiglipEncoder) -> None:
        import torch

        torch.set_num_threads(1)
        encoder.warm_up(self._section.max_batch_size)
        blank, began = np.zeros((1, *encoder.image.shape), encoder.image.dtype), time.monotonic()
        encoder.embed_pixels(blank)
        photo_s = time.monotonic() - began
        torch.set_num_threads(num_threads(self._section, nodes.num_cores(nodes.this_node()), photo_s))
        encoder.embed_pixels(blank)


def num_threads(section: ServeConfig, cores: int, photo_s: float) -> int:
    """Threads of a replica on a CPU of a node with so many cores; one of them embeds a photo in `photo_s`.

    Threads wait for each other many times in a forward pass, so a small model is faster with one while other
    processes need the cores, too. All replicas may be on one node.
    """
    if section.encoder_threads is not None:
        return section.encoder_threads
    return max(1, cores // section.encoder_replicas) if photo_s > _SHORT_S else 1


def inputs_of(encoder: SiglipEncoder, values: Sequence[Any], deadlines: Sequence[float]) -> list[Input]:
    """The inputs of a call."""
    return [Input(encoder, value, deadline) for value, deadline in zip(values, deadlines, strict=True)]


async def embed_calls(
    calls: list[list[Input]], embed: Callable[[SiglipEncoder, list[Any]], ndarray], threads: Executor
) -> list[list[ndarray | None]]:
    """The vectors of the inputs of each call, all computed together: `embed_batch`."""
    inputs = list(itertools.chain.from_iterable(calls))
    record("raysys_encoder_batch", len(inputs))
    vectors = iter(await embed_batch(inputs, embed, threads))
    return [list(itertools.islice(vectors, len(call))) for call in calls]


async def embed_batch(
    inputs: list[Input], embed: Callable[[SiglipEncoder, list[Any]], ndarray], threads: Executor
) -> list[ndarray | None]:
    """A vector for each input by its encoder, None for those whose deadline has passed.

    During a switch, a batch may have inputs of two encoders.
    """
    vectors: list[ndarray | None] = [None] * len(inputs)
    in_time = [row for row, one in enumerate(inputs) if not has_passed(one.deadline)]
    for encoder in {id(inputs[row].encoder): inputs[row].encoder for row in in_time}.values():
        rows = [row for row in in_time if inputs[row].encoder is encoder]
        # The replica's event loop must stay free for health checks and the next batch.
        values = [inputs[row].value for row in rows]
        embedded = await asyncio.get_running_loop().run_in_executor(threads, embed, encoder, values)
        for row, vector in zip(rows, embedded, strict=True):
            vectors[row] = vector
    return vectors
