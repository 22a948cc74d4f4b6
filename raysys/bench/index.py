"""`raysys index` and its search: recall, queries per second, latency, bytes a vector, build and open time.

The baseline is FAISS with the same factory string, trained and filled in one process and searched at the same
settings; it is the limit, too, because it finds rows and no items. autofaiss gets the same budget if there is
an environment with it. All search one query at a time on one thread.
"""

from __future__ import annotations

import functools
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.artifacts.embedding_set import read_embeddings, vectors_of
from raysys.bench.config import BenchRunConfig
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.cluster.task_map import connected_map
from raysys.columns import embedding_schema
from raysys.config.schema import IndexConfig
from raysys.errors import ClusterError
from raysys.index.build import publish_index
from raysys.index.kinds import recipe_of, search_parameters, trained_index
from raysys.index.neighbours import Neighbours, depth, exact_neighbours, merged, recall_per_query
from raysys.index.search import Searcher
from raysys.index.shards import read_shard, write_shard

RAYSYS, BASELINE, AUTOFAISS = "raysys Searcher", "FAISS, the same factory", "autofaiss, the same budget"
_K = 10
_ROWS_PER_FILE = 65_536
_SPECTRUM = 0.95  # variance of dimension i is i ** -0.95: a participation ratio of 21 in 128 dimensions
_CENTRES_PER_ROOT = 1.0  # centres of the mixture as a multiple of the root of the vectors
_BETWEEN = 0.5  # share of the variance between centres

_AUTOFAISS = """
import json, sys, time
from autofaiss import build_index
arguments = json.loads(sys.argv[1])
started = time.monotonic()
build_index(**arguments)
print(json.dumps({"seconds": time.monotonic() - started}))
"""


@dataclass(frozen=True)
class _Work:
    """What is searched for, and where the files are."""

    folder: Path
    num_vectors: int
    exact: Neighbours

    @property
    def queries(self) -> Float32[ndarray, "q d"]:
        return np.asarray(np.load(self.folder / "queries.npy"))


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """One case per number of vectors of `bench.index_vectors`; indexes are built before the first round."""
    for num_vectors in config.bench.index_vectors:
        place = folder / str(num_vectors)
        place.mkdir()
        work = _write_vectors(place, config, num_vectors)
        started = time.monotonic()
        spec = ArtifactSpec(str(place / "index"), IndexBundleManifest, {}, {})
        manifest = publish_index(spec, str(place / "embeddings"), config.index, connected_map(config.ray))
        build_s = time.monotonic() - started
        contenders: dict[str, Callable[[], Measurement]] = {
            RAYSYS: partial(search_with_raysys, work, build_s),
            BASELINE: partial(search_with_faiss, work, _build_with_faiss(place, manifest), manifest.search),
        }
        if config.bench.index_autofaiss_python is not None:
            autofaiss_s = _build_with_autofaiss(place, config, num_vectors)
            contenders[AUTOFAISS] = partial(search_with_autofaiss, work, autofaiss_s)
        properties = {"num_vectors": num_vectors, "dimensions": config.bench.index_dimensions}
        name = f"{num_vectors:,} vectors, {manifest.factory}"
        yield Case(name, "queries/s", contenders, BASELINE, BASELINE, properties)


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """What the items cost beside the search, for each size."""
    lines = []
    for result in results:
        ours, baseline = result.contenders[RAYSYS], result.contenders[BASELINE]
        lines.append(
            f"{result.case}: {1e6 / ours.rate.median:.0f} us a query with items, "
            f"{1e6 / baseline.rate.median:.0f} us in FAISS alone; recall@{_K} "
            f"{ours.metrics['recall@10'].median:.3f} and {baseline.metrics['recall@10'].median:.3f}"
        )
    return lines


def search_with_raysys(work: _Work, build_s: float) -> Measurement:
    """Search in the published bundle: neighbours with their items."""
    searcher, open_s = _opened_bundle(str(work.folder / "index"))

    def search(query: ndarray) -> Neighbours:
        neighbours = searcher.search(query, _K)[0]
        rows = [int(neighbour.item.item_id) for neighbour in neighbours]
        return Neighbours(np.array([[neighbour.score for neighbour in neighbours]]), np.array([rows]))

    files = sum(entry.bytes for name, entry in searcher.manifest.files.items() if name.endswith(".faiss"))
    return _measurement(work, search, {"build_s": build_s, "open_s": open_s, "bytes": files})


def search_with_faiss(work: _Work, build_s: float, settings: dict[str, int]) -> Measurement:
    """Search in one FAISS index: rows and scores."""
    path = work.folder / "faiss.index"
    index, open_s = _opened_index(path)
    parameters = search_parameters(index, settings)

    def search(query: ndarray) -> Neighbours:
        return Neighbours(*index.search(query, _K, params=parameters))

    return _measurement(work, search, {"build_s": build_s, "open_s": open_s, "bytes": path.stat().st_size})


def search_with_autofaiss(work: _Work, build_s: float) -> Measurement:
    """Search in the index that autofaiss wrote, with the settings that it chose."""
    path = work.folder / "autofaiss.index"
    index, open_s = _opened_index(path)

    def search(query: ndarray) -> Neighbours:
        return Neighbours(*index.search(query, _K))

    return _measurement(work, search, {"build_s": build_s, "open_s": open_s, "bytes": path.stat().st_size})


def draw_vectors(num: int, dimensions: int, num_centres: int, seed: int) -> Float32[ndarray, "n d"]:
    """Unit vectors of a mixture of Gaussians whose variances fall with the dimension."""
    scale = np.arange(1, dimensions + 1, dtype=np.float32) ** (-_SPECTRUM / 2)
    centres = np.random.default_rng(0).normal(size=(num_centres, dimensions)).astype(np.float32)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((num, dimensions), dtype=np.float32)
    vectors = _BETWEEN**0.5 * centres[rng.integers(num_centres, size=num)] + (1 - _BETWEEN) ** 0.5 * noise
    vectors *= scale
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _write_vectors(place: Path, config: BenchRunConfig, num_vectors: int) -> _Work:
    """An EmbeddingSet whose ids are row numbers, the queries, and their exact neighbours."""
    dimensions, num_centres = config.bench.index_dimensions, round(_CENTRES_PER_ROOT * num_vectors**0.5)
    queries = draw_vectors(config.bench.index_queries, dimensions, num_centres, seed=1)
    np.save(place / "queries.npy", queries)
    spec = ArtifactSpec(str(place / "embeddings"), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    exact = Neighbours.none(len(queries), depth(_K))
    for number, start in enumerate(range(0, num_vectors, _ROWS_PER_FILE)):
        rows = np.arange(start, min(start + _ROWS_PER_FILE, num_vectors))
        vectors = draw_vectors(len(rows), dimensions, num_centres, seed=2 + number)
        pq.write_table(_table(rows, vectors), place / "embeddings" / f"train-{number:05d}.parquet")
        exact = merged([exact, exact_neighbours(queries, [(rows, vectors)], depth(_K))], depth(_K))
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), num_vectors, 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="b" * 64, dimensions=dimensions))
    return _Work(place, num_vectors, exact)


def _table(rows: ndarray, vectors: ndarray) -> pa.Table:
    num = len(rows)
    ids = pa.array(rows).cast(pa.string())
    texts = [pa.array([text] * num) for text in ("title", "{}", "train", "x.tar")]
    places = [pa.array([0] * num, pa.int64()), pa.array([1] * num, pa.int64()), pa.array(["h"] * num)]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return pa.table([ids, *texts, *places, column], schema=embedding_schema(vectors.shape[1]))


def _build_with_faiss(place: Path, manifest: IndexBundleManifest) -> float:
    """Train and fill an index of the same factory string from one array; returns the seconds."""
    vectors = _all_vectors(place)
    started = time.monotonic()
    recipe = recipe_of(IndexConfig(), manifest.index_kind, len(vectors), manifest.dimensions)
    recipe = replace(recipe, factory=manifest.factory)
    index = trained_index(
        recipe, np.random.default_rng(0).permutation(vectors)[: recipe.num_training_vectors]
    )
    index.add(vectors)
    write_shard(index, place / "faiss.index")
    return time.monotonic() - started


def _all_vectors(place: Path) -> Float32[ndarray, "n d"]:
    return vectors_of(read_embeddings(str(place / "embeddings")))


def _build_with_autofaiss(place: Path, config: BenchRunConfig, num_vectors: int) -> float:
    """Let autofaiss choose and build an index; returns the seconds."""
    (place / "npy").mkdir()
    np.save(place / "npy" / "vectors.npy", _all_vectors(place))
    budget = config.index.budget
    num_bytes = budget.memory_bytes or (budget.bytes_per_vector or 1e4) * num_vectors
    arguments = {
        "embeddings": str(place / "npy"),
        "index_path": str(place / "autofaiss.index"),
        "index_infos_path": str(place / "autofaiss.json"),
        "max_index_query_time_ms": budget.latency_ms,
        "max_index_memory_usage": f"{num_bytes / 2**20:.0f}MB",
        "metric_type": "ip",
    }
    command = [str(config.bench.index_autofaiss_python), "-c", _AUTOFAISS, json.dumps(arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ClusterError(f"autofaiss: exit status {finished.returncode}: {finished.stderr[-300:]}")
    return float(json.loads(finished.stdout.strip().splitlines()[-1])["seconds"])


@functools.cache
def _opened_bundle(uri: str) -> tuple[Searcher, float]:
    started = time.monotonic()
    return Searcher(uri), time.monotonic() - started


@functools.cache
def _opened_index(path: Path) -> tuple[Any, float]:
    started = time.monotonic()
    return read_shard(path), time.monotonic() - started


def _measurement(
    work: _Work, search: Callable[[ndarray], Neighbours], metrics: dict[str, float]
) -> Measurement:
    """Search for every query once on one thread."""
    faiss.omp_set_num_threads(1)
    queries = work.queries
    search(queries[:1])
    seconds, rows = [], np.full((len(queries), _K), -1, np.int64)
    for number in range(len(queries)):
        started = time.perf_counter()
        found = search(queries[number : number + 1])
        seconds.append(time.perf_counter() - started)
        rows[number, : found.rows.shape[1]] = found.rows[0]
    recall = recall_per_query(work.exact, Neighbours(np.zeros(rows.shape, np.float32), rows), _K).mean()
    return Measurement(
        len(queries) / sum(seconds),
        {
            "recall@10": float(recall),
            "p50_ms": float(np.percentile(seconds, 50) * 1000),
            "p99_ms": float(np.percentile(seconds, 99) * 1000),
            "bytes/vector": metrics["bytes"] / work.num_vectors,
            "build_s": metrics["build_s"],
            "open_s": metrics["open_s"],
        },
    )
