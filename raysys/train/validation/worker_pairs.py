"""One worker's part of the pairs on which models are measured; the workers embed all pairs together."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Int64, UInt8
from numpy import ndarray
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from raysys import storage
from raysys.encoder.hub import load_tokenizer
from raysys.encoder.preprocess import photo_pixels
from raysys.encoder.text import caption_keys, to_tokens
from raysys.evaluate.pairs import PairSource
from raysys.evaluate.retrieval import PairEmbeddings
from raysys.train.job import TrainJob
from raysys.train.loss import gather_rows

_CHUNK_ROWS = 128  # if `train.micro_batch_size` is open; a pass without gradients needs little memory


class WorkerPairs:
    """One worker's part of the pairs of a source, read and decoded at its first use.

    All workers have equally many rows; those after the last pair are padding.
    """

    def __init__(self, source: PairSource, job: TrainJob, accelerator: Accelerator) -> None:
        self._source, self._job, self._accelerator = source, job, accelerator

    @torch.no_grad()
    def embed(
        self, towers: torch.nn.Module, should_stop: Callable[[], bool] | None = None
    ) -> PairEmbeddings | None:
        """The vectors of all pairs, in their order, on the CPU; equal on all workers. A collective call.

        `towers` is a `DualEncoder`, distributed or not. `should_stop` is called before every chunk and
        must return the same on all workers: if it is True, there is no result.
        """
        inputs, device = self.inputs, self._accelerator.device
        micro_batch_size = self._job.section.micro_batch_size
        chunk_rows = micro_batch_size if isinstance(micro_batch_size, int) else _CHUNK_ROWS
        photos, titles = [], []
        with _evaluation_mode(towers, is_compiled=self._job.section.compile):
            for start in range(0, len(inputs.pixels), chunk_rows):
                if should_stop is not None and should_stop():
                    return None
                chunk = slice(start, start + chunk_rows)
                pixels, tokens = (
                    torch.from_numpy(rows[chunk]).to(device) for rows in (inputs.pixels, inputs.tokens)
                )
                embedded = towers(pixels, tokens[:, None])
                photos.append(embedded.images)
                titles.append(embedded.captions[:, 0])
        return PairEmbeddings(
            self._gather(torch.cat(photos)), self._gather(torch.cat(titles)), inputs.title_keys
        )

    @functools.cached_property
    def inputs(self) -> WorkerInputs:
        """This worker's part."""
        num_rows = math.ceil(self._source.num_pairs / self._accelerator.num_processes)
        first, side = self._accelerator.process_index * num_rows, self._job.image.size_px
        pixels, titles = np.zeros((num_rows, side, side, 3), np.uint8), [""] * num_rows
        for row, (photo, title) in enumerate(self._source.read(first, first + num_rows)):
            pixels[row], titles[row] = photo_pixels(photo, self._job.image), title
        with storage.readable_folder(self._job.start_uri) as folder:
            tokens = to_tokens(load_tokenizer(folder), titles, self._job.text)
        keys = torch.from_numpy(caption_keys(titles, self._job.text)).to(self._accelerator.device)
        return WorkerInputs(pixels, tokens, self._gather(keys))

    def _gather(self, rows: Tensor) -> Tensor:
        """The rows of all workers without the padding."""
        return gather_rows(rows)[: self._source.num_pairs].cpu()


class WorkerInputs(NamedTuple):
    """A worker's photos and titles as the towers take them, and the keys of all titles."""

    pixels: UInt8[ndarray, "rows side side 3"]
    tokens: Int64[ndarray, "rows length"]
    title_keys: Int64[Tensor, " n"]  # of all pairs


@contextlib.contextmanager
def _evaluation_mode(towers: torch.nn.Module, *, is_compiled: bool) -> Iterator[None]:
    """Inside the block there is no dropout, and nothing is compiled: it would take longer than it saves."""
    modes = [(module, module.training) for module in towers.modules()]
    towers.eval()
    try:
        with torch.compiler.set_stance("force_eager") if is_compiled else contextlib.nullcontext():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
            if isinstance(module, FSDPModule):  # FSDP keeps some gathered weights for a backward pass
                module.reshard()
