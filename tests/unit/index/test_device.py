"""What computes on a device gives the files and neighbours of the CPU; a second copy of FAISS stands in for a GPU."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy import ndarray

from raysys.config.schema import IndexConfig
from raysys.errors import InputError
from raysys.index.device import CPU, Device, Gpu, IndexCopy, device_of, filled
from raysys.index.fill import fill_shards
from raysys.index.kinds import recipe_of, search_parameters, trained_index
from raysys.index.nearest import nearest
from raysys.index.neighbours import exact_neighbours
from raysys.index.passing import Passing
from raysys.index.shards import read_shard, write_shard
from raysys.index.source import read_source
from raysys.index.stored import StoredVectors
from tests.unit.index.embedding_sets import clustered_vectors, publish_embeddings

_faiss: Any = faiss
NUM, DIMENSIONS = 2000, 32
SECTION = IndexConfig(num_lists=32, nprobe=8, hnsw_m=8)


class OtherDevice(Device):
    """Copies of indexes in the memory of the CPU, which count their searches."""

    def __init__(self, *, builds_graphs: bool = False) -> None:
        self._builds_graphs = builds_graphs
        self.copies: list[Any] = []

    def copy_of(self, index: Any) -> Any:
        self.copies.append(_faiss.clone_index(index))
        return self.copies[-1]

    @property
    def builds_graphs(self) -> bool:
        return self._builds_graphs

    def graph_of(self, index: Any, vectors: ndarray) -> Any:
        graph = _faiss.IndexHNSWCagra(index.d, index.hnsw.nb_neighbors(0) // 2, index.metric_type)
        graph.add(vectors)
        return graph


def built(kind: str, device: Device) -> Any:
    vectors = clustered_vectors(NUM, DIMENSIONS)
    index = trained_index(recipe_of(SECTION, kind, NUM, DIMENSIONS), vectors, device=device)
    copy = faiss.deserialize_index(faiss.serialize_index(index))
    return filled(copy, [vectors[:700], vectors[700:]], device)


@pytest.mark.parametrize("kind", ["exact", "ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw", "hnsw_sq8"])
def test_files_are_those_of_the_cpu(kind: str) -> None:
    device = OtherDevice()
    found = faiss.serialize_index(built(kind, device))
    assert found.tobytes() == faiss.serialize_index(built(kind, CPU)).tobytes()
    # One clusters the sample, one finds the lists.
    assert [copy.ntotal for copy in device.copies] == ([32, 32] if kind.startswith("ivf") else [])


def test_pieces_of_work_on_a_device_write_the_files_of_the_cpu(tmp_path: Path) -> None:
    vectors = clustered_vectors(NUM, DIMENSIONS)
    source = read_source(publish_embeddings(tmp_path / "embeddings", vectors, num_files=3), 2)
    recipe = recipe_of(SECTION, "ivf_pq", NUM, DIMENSIONS)
    num_pieces = []

    def parallel(work: Any, pieces: Iterable[Any]) -> Iterable[Any]:
        pieces = [*pieces]
        num_pieces.append(len(pieces))
        return map(work, pieces)

    on_cpu, on_device = (
        fill_shards(source, recipe, vectors, str(tmp_path / name), parallel, device)
        for name, device in (("cpu", CPU), ("device", OtherDevice()))
    )
    assert on_cpu == on_device
    assert num_pieces == [2, 1, 2]  # only the CPU trains in this process


def test_quantizer_of_the_cpu_is_back_after_an_error() -> None:
    device = OtherDevice()
    vectors = clustered_vectors(NUM, DIMENSIONS)
    index = trained_index(recipe_of(SECTION, "ivf_pq", NUM, DIMENSIONS), vectors, device=device)
    before = faiss.serialize_index(index)
    with pytest.raises(ValueError, match="broken block"):
        filled(index, (_broken_block() for _ in "a"), device)
    assert faiss.serialize_index(index).tobytes() == before.tobytes()


def test_graph_of_a_device_is_an_hnsw_file_that_the_cpu_searches(tmp_path: Path) -> None:
    vectors = clustered_vectors(NUM, DIMENSIONS)
    index = built("hnsw", OtherDevice(builds_graphs=True))
    write_shard(index, tmp_path / "shard")
    opened = read_shard(tmp_path / "shard")
    assert isinstance(_faiss.downcast_index(opened), _faiss.IndexHNSWCagra)
    exact = exact_neighbours(vectors[:50], [(np.arange(NUM), vectors)], 10)
    passing = Passing.of_mask(np.arange(NUM) % 5 == 0)
    found = nearest(opened, StoredVectors.of(opened), {"ef_search": 64}, vectors[:50], 10)
    assert (found.rows[:, :1] == exact.rows[:, :1]).all()
    assert np.mean([len({*a} & {*b}) for a, b in zip(found.rows, exact.rows, strict=True)]) > 9
    assert (
        nearest(opened, StoredVectors.of(opened), {"ef_search": 64}, vectors[:50], 10, passing).rows % 5 == 0
    ).all()
    assert np.array_equal(opened.reconstruct(7), vectors[7])


@pytest.mark.parametrize("kind", ["exact", "ivf_sq8"])
def test_copy_searches_without_a_filter_and_the_original_with_one(kind: str) -> None:
    index = built(kind, CPU)
    queries = clustered_vectors(5, DIMENSIONS, seed=1)
    settings = recipe_of(SECTION, kind, NUM, DIMENSIONS).search
    copy = IndexCopy.of(index, OtherDevice())
    expected = nearest(index, StoredVectors.of(index), settings, queries, 10)
    found = nearest(index, StoredVectors.of(index), settings, queries, 10, copy=copy)
    assert np.array_equal(found.rows, expected.rows)
    copy.copied.reset()  # only the original has vectors now
    parameters = search_parameters(index, settings)
    assert (copy.search(queries, 10, parameters)[1] == -1).all()
    assert (copy.search(queries[:1], 2049, parameters)[1][:, :10] == expected.rows[:1]).all()
    passing = Passing.of_mask(np.arange(NUM) % 5 == 0)
    filtered = nearest(index, StoredVectors.of(index), settings, queries, 10, passing, copy=copy)
    assert np.array_equal(
        filtered.rows, nearest(index, StoredVectors.of(index), settings, queries, 10, passing).rows
    )


def test_gpu_is_refused_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    monkeypatch.setattr(faiss, "__version__", "1.15.1")
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    assert device_of("auto") is device_of("cpu") is CPU
    with pytest.raises(InputError) as caught:
        device_of("gpu")
    assert str(caught.value) == (
        "index.device: a GPU needs another wheel of FAISS, found faiss-cpu 1.15.1; pip uninstall faiss-cpu and "
        "pip install 'raysys[gpu]', or set index.device=auto"
    )
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    assert device_of("auto") is CPU
    with pytest.raises(
        InputError, match=r"serve\.search_on_gpu: .* found no NVIDIA GPU; .*or set serve\.sea"
    ):
        device_of("gpu", instead="serve.search_on_gpu=false")
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    assert isinstance(device_of("auto"), Gpu)
    assert device_of("cpu") is CPU
    in_a_task = pickle.dumps(device_of("gpu"))
    assert isinstance(pickle.loads(in_a_task), Gpu)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(InputError, match=r"index\.device: .* found no NVIDIA GPU"):
        pickle.loads(in_a_task)


def _broken_block() -> ndarray:
    raise ValueError("broken block")
