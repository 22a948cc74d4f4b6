"""Where FAISS computes: on the CPU or on an NVIDIA GPU, with the same index files.

A GPU runs k-means, finds the list of every vector that is added to an IVF index, builds HNSW graphs if the
wheel has CAGRA, compares many queries with all vectors, and searches in a copy of an index. The CPU encodes
vectors, writes files and searches with filters.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np
from jaxtyping import Float32, Int64
from numpy import ndarray

from raysys.errors import REASON_LENGTH, InputError, RaysysError
from raysys.terminal import printable

_faiss: Any = faiss  # its type stubs lack the classes of GPUs
_MIN_QUERIES = 20  # with fewer, moving the vectors to the GPU probably takes longer than comparing them
_MAX_SELECTED = 2048  # neighbours or lists that the kernels of FAISS select
_MIN_GRAPH_VECTORS = 2000  # CAGRA needs more vectors than links; a CPU adds these within a second
_one_at_a_time = threading.RLock()  # the temporary memory of a GPU belongs to one search at a time


class Device:
    """FAISS on the CPU; the base class of `Gpu`."""

    def nearest(
        self, queries: Float32[ndarray, "q d"], vectors: Float32[ndarray, "n d"], k: int
    ) -> tuple[Float32[ndarray, "q k"], Int64[ndarray, "q k"]]:
        """Scores and places of the `k` vectors with the largest inner product, best first; k is at most n."""
        scores, places = _faiss.knn(queries, vectors, k, metric=_faiss.METRIC_INNER_PRODUCT)
        return scores, places

    def copy_of(self, index: Any) -> Any:
        """A copy of a `Flat` or IVF-SQ index on the device; None on the CPU, which needs none."""
        return None

    @property
    def builds_graphs(self) -> bool:
        """Whether `graph_of` is better than adding to an HNSW index."""
        return False

    def graph_of(self, index: Any, vectors: Float32[ndarray, "n d"]) -> Any:
        """The HNSW index of `vectors` that replaces the empty `index`, with as many links."""
        raise NotImplementedError  # the CPU adds to the index instead: `builds_graphs` is False

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """No other thread of this process uses the device in the block."""
        yield


class Gpu(Device):
    """FAISS on the first NVIDIA GPU that this process sees."""

    def __reduce__(self) -> tuple[Any, ...]:
        return device_of, ("gpu",)  # a task that has no GPU raises the error of the setting

    def nearest(
        self, queries: Float32[ndarray, "q d"], vectors: Float32[ndarray, "n d"], k: int
    ) -> tuple[Float32[ndarray, "q k"], Int64[ndarray, "q k"]]:
        if len(queries) < _MIN_QUERIES or not 0 < k <= _MAX_SELECTED:
            return super().nearest(queries, vectors, k)
        with self.claimed():
            scores, places = _faiss.knn_gpu(
                _resources(), queries, vectors, k, metric=_faiss.METRIC_INNER_PRODUCT, device=0
            )
        return scores, places

    def copy_of(self, index: Any) -> Any:
        with self.claimed():
            return _faiss.index_cpu_to_gpu(_resources(), 0, index)

    @property
    def builds_graphs(self) -> bool:
        return hasattr(_faiss, "GpuIndexCagra")  # only with cuVS

    def graph_of(self, index: Any, vectors: Float32[ndarray, "n d"]) -> Any:
        config = _faiss.GpuIndexCagraConfig()
        config.graph_degree = index.hnsw.nb_neighbors(0)
        config.intermediate_graph_degree = 2 * config.graph_degree
        with self.claimed():
            graph = _faiss.GpuIndexCagra(_resources(), index.d, index.metric_type, config)
            graph.train(vectors)
            built = _faiss.IndexHNSWCagra()
            graph.copyTo(built)
        return built

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Raises: RaysysError for an error of FAISS, such as too little memory."""
        with _one_at_a_time:
            try:
                yield
            except RuntimeError as error:
                raise RaysysError(
                    f"FAISS on the GPU failed ({printable(error, REASON_LENGTH)}); free memory of the GPU, "
                    "or compute without it: index.device=cpu, serve.search_on_gpu=false"
                ) from error


CPU = Device()


def device_of(setting: Literal["auto", "cpu", "gpu"], instead: str = "index.device=auto") -> Device:
    """The device of a setting; `auto` is a GPU if this process sees one. `instead` works without a GPU.

    Raises: InputError for `gpu` without a GPU, or with the FAISS wheel for CPUs.
    """
    has_gpu = has_gpu_wheel() and _faiss.get_num_gpus() > 0
    key = instead.partition("=")[0]
    if setting == "cpu" or (setting == "auto" and not has_gpu):
        return CPU
    if has_gpu:
        return Gpu()
    if not has_gpu_wheel():
        raise InputError(
            f"{key}: a GPU needs another wheel of FAISS, found faiss-cpu {_faiss.__version__}; "
            f"pip uninstall faiss-cpu and pip install 'raysys[gpu]', or set {instead}"
        )
    raise InputError(
        f"{key}: FAISS {_faiss.__version__} found no NVIDIA GPU; run on a machine where `nvidia-smi` "
        f"lists one, or set {instead}"
    )


def has_gpu_wheel() -> bool:
    """Whether the FAISS that is installed can use a GPU."""
    return hasattr(_faiss, "StandardGpuResources")


def train(index: Any, sample: Float32[ndarray, "n d"], device: Device) -> None:
    """Train an index; the k-means of its lists runs on the device."""
    ivf = _faiss.try_extract_index_ivf(index)
    with device.claimed():
        if ivf is not None:
            clusters = device.copy_of(_faiss.downcast_index(ivf.quantizer))
            ivf.clustering_index = clusters
        try:
            index.train(sample)
        finally:
            if ivf is not None:
                ivf.clustering_index = None


def filled(index: Any, blocks: Iterable[Float32[ndarray, "n d"]], device: Device) -> Any:
    """The trained index with all vectors; the device finds their lists, or builds the graph.

    The same index as on the CPU, but for the rounding of distances and for graphs.
    """
    if device.builds_graphs and isinstance(index, _faiss.IndexHNSWFlat):
        vectors = np.concatenate([*blocks])
        if len(vectors) >= _MIN_GRAPH_VECTORS:
            return device.graph_of(index, vectors)
        blocks = [vectors]
    with _lists_found_on(device, index):
        for block in blocks:
            index.add(block)
    return index


@dataclass(frozen=True)
class IndexCopy:
    """A copy of an index on a device; it searches there what the device can, the rest in the original."""

    original: Any
    copied: Any
    device: Device

    @classmethod
    def of(cls, index: Any, device: Device) -> IndexCopy:
        """Copy an index of a kind of `kinds.GPU_KINDS`."""
        return cls(index, device.copy_of(index), device)

    def search(
        self, queries: Float32[ndarray, "q d"], k: int, params: Any = None
    ) -> tuple[Float32[ndarray, "q k"], Int64[ndarray, "q k"]]:
        """As `search` of the original; `params` have no selector, which a GPU would ignore."""
        if max(k, getattr(params, "nprobe", 0)) > _MAX_SELECTED:
            scores, rows = self.original.search(queries, k, params=params)
        else:
            with self.device.claimed():
                scores, rows = self.copied.search(queries, k, params=params)
        return scores, rows


@contextlib.contextmanager
def _lists_found_on(device: Device, index: Any) -> Iterator[None]:
    """The coarse quantizer of an IVF index searches on the device in the block.

    FAISS also reads single centroids from it to encode residuals, which is slow from a GPU. IndexRefine
    searches in its first index and reads from its second one.
    """
    ivf = _faiss.try_extract_index_ivf(index)
    quantizer = None if ivf is None else _faiss.downcast_index(ivf.quantizer)
    with device.claimed():
        copy = None if quantizer is None else device.copy_of(quantizer)
        if copy is None:
            yield
            return
        both = _faiss.IndexRefine(copy, quantizer)
        ivf.quantizer = both
        try:
            yield
        finally:
            ivf.quantizer = quantizer  # which the index still owns


@functools.cache
def _resources() -> Any:
    return _faiss.StandardGpuResources()
