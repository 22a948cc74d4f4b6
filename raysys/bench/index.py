"""`raysys index` and its search: recall, queries per second, latency, bytes a vector, build and open time.

The baseline is FAISS with the same factory string, trained and filled in one process and searched at the same
settings; it is the limit, too, because it finds rows and no items. raysys is measured with items and without.
autofaiss gets the same budget if there is an environment with it. With filters, the baseline is FAISS's own
selector at settings that find as much; the filter of a case is a frequent one, searched before time is
measured until it has its copy. All search one query at a time on one thread.
"""

from __future__ import annotations

import functools
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.artifacts.embedding_set import read_embeddings, read_part, vector_files, vectors_of
from raysys.bench.config import BenchRunConfig
from raysys.bench.index_data import BenchFilter, K, Work, write_work
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.cluster.task_map import connected_map
from raysys.errors import ClusterError
from raysys.index.build import publish_index
from raysys.index.copies import NUM_SEARCHES
from raysys.index.kinds import Recipe, raised, recipe_of, search_parameters, trained_index
from raysys.index.neighbours import Neighbours, recall_per_query
from raysys.index.passing import Passing
from raysys.index.search import Searcher
from raysys.index.shards import read_shard, write_shard
from raysys.tracking.logs import log

RAYSYS, ROWS = "raysys Searcher", "raysys Searcher, rows without items"
BASELINE, AUTOFAISS = "FAISS, the same factory", "autofaiss, the same budget"
SELECTOR = "FAISS, selector"
_TUNED_QUERIES = 200
_faiss: Any = faiss  # its type stubs lack classes of its Python wrapper

_AUTOFAISS = """
import json, sys, time
from autofaiss import build_index
arguments = json.loads(sys.argv[1])
started = time.monotonic()
build_index(**arguments)
print(json.dumps({"seconds": time.monotonic() - started}))
"""


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """For each number of `bench.index_vectors`, a case without a filter and one per `bench.index_shares`
    and `bench.index_region_shares`.

    The indexes are built before the first of them.
    """
    bench = config.bench
    for num_vectors in bench.index_vectors:
        place = folder / str(num_vectors)
        place.mkdir()
        work = write_work(
            place,
            num_vectors,
            bench.index_dimensions,
            bench.index_queries,
            bench.index_shares,
            bench.index_region_shares,
        )
        started = time.monotonic()
        spec = ArtifactSpec(str(place / "index"), IndexBundleManifest, {}, {})
        manifest = publish_index(spec, work.embeddings_uri, config.index, connected_map(config.ray))
        build_s = time.monotonic() - started
        recipe = recipe_of(config.index, manifest.index_kind, num_vectors, manifest.dimensions)
        recipe = replace(recipe, factory=manifest.factory, search=manifest.search)
        faiss_s = _build_with_faiss(work, recipe)
        contenders: dict[str, Callable[[], Measurement]] = {
            RAYSYS: partial(search_with_raysys, work, None, build_s),
            ROWS: partial(search_for_rows, work, None, build_s),
            BASELINE: partial(search_with_faiss, work, manifest.search, faiss_s),
        }
        if bench.index_autofaiss_python is not None:
            try:
                autofaiss_s = _build_with_autofaiss(work, config)
                contenders[AUTOFAISS] = partial(search_with_autofaiss, work, autofaiss_s)
            except ClusterError as error:  # the others took minutes to build
                log.warning("    bench  %s; it is not measured", error)
        properties = {"num_vectors": num_vectors, "dimensions": bench.index_dimensions}
        name = f"{num_vectors:,} vectors, {manifest.factory}"
        yield Case(name, "queries/s", contenders, BASELINE, BASELINE, properties)
        for one in work.kept:
            settings = _settings_with_recall(work, one, recipe)
            contenders = {
                RAYSYS: partial(search_with_raysys, work, one, build_s),
                ROWS: partial(search_for_rows, work, one, build_s),
                SELECTOR: partial(search_with_selector, work, one, settings, faiss_s),
            }
            filtered = {**properties, "share": one.share}
            yield Case(f"{name}, {one.text}", "queries/s", contenders, SELECTOR, SELECTOR, filtered)


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """The time and the recall of a query beside the baseline's, for each case."""
    lines = []
    for result in results:
        ours, baseline = result.contenders[RAYSYS], result.contenders[result.baseline]
        lines.append(
            f"{result.case}: {1e6 / ours.rate.median:.0f} us a query with items, "
            f"{1e6 / baseline.rate.median:.0f} us in {result.baseline}; recall@{K} "
            f"{ours.metrics['recall@10'].median:.3f} and {baseline.metrics['recall@10'].median:.3f}"
        )
    return lines


def search_with_raysys(work: Work, kept: BenchFilter | None, build_s: float) -> Measurement:
    """Search in the published bundle: neighbours with their items."""
    searcher, metrics = _bundle_and_metrics(work, build_s)
    return _measurement(work, kept, _search_of(searcher, kept), metrics)


def search_for_rows(work: Work, kept: BenchFilter | None, build_s: float) -> Measurement:
    """Search in the published bundle: rows and scores, as FAISS returns them."""
    searcher, metrics = _bundle_and_metrics(work, build_s)
    where = None if kept is None else kept.where
    return _measurement(work, kept, lambda query: searcher.nearest(query, K, where=where), metrics)


def search_with_faiss(work: Work, settings: Mapping[str, int], build_s: float) -> Measurement:
    """Search in one FAISS index: rows and scores."""
    path = work.folder / "faiss.index"
    index, open_s = _opened_index(path)
    search = _faiss_search(index, settings)
    metrics = {"build_s": build_s, "open_s": open_s, "bytes": path.stat().st_size}
    return _measurement(work, None, search, metrics)


def search_with_selector(
    work: Work, kept: BenchFilter, settings: Mapping[str, int], build_s: float
) -> Measurement:
    """Search in one FAISS index with a bitmap as its selector."""
    path = work.folder / "faiss.index"
    index, open_s = _opened_index(path)
    search = _faiss_search(index, settings, work.kept[kept])
    metrics = {"build_s": build_s, "open_s": open_s, "bytes": path.stat().st_size}
    return _measurement(work, kept, search, metrics)


def search_with_autofaiss(work: Work, build_s: float) -> Measurement:
    """Search in the index that autofaiss wrote, with the settings that it chose."""
    path = work.folder / "autofaiss.index"
    index, open_s = _opened_index(path)
    metrics = {"build_s": build_s, "open_s": open_s, "bytes": path.stat().st_size}
    return _measurement(work, None, lambda query: Neighbours(*index.search(query, K)), metrics)


def _bundle_and_metrics(work: Work, build_s: float) -> tuple[Searcher, dict[str, float]]:
    searcher, open_s = _opened_bundle(str(work.folder / "index"))
    files = sum(entry.bytes for name, entry in searcher.manifest.files.items() if name.endswith(".faiss"))
    return searcher, {"build_s": build_s, "open_s": open_s, "bytes": files}


def _search_of(searcher: Searcher, kept: BenchFilter | None) -> Callable[[ndarray], Neighbours]:
    where = None if kept is None else kept.where

    def search(query: ndarray) -> Neighbours:
        neighbours = searcher.search(query, K, where=where)[0]
        rows = [int(neighbour.item.item_id) for neighbour in neighbours]
        return Neighbours(np.array([[neighbour.score for neighbour in neighbours]]), np.array([rows]))

    return search


def _faiss_search(
    index: Any, settings: Mapping[str, int], passing: Passing | None = None
) -> Callable[[ndarray], Neighbours]:
    selector = None if passing is None else _faiss.IDSelectorBitmap(passing.bitmap)
    parameters = search_parameters(index, settings, selector)
    return lambda query: Neighbours(*index.search(query, K, params=parameters))


def _settings_with_recall(work: Work, kept: BenchFilter, recipe: Recipe) -> Mapping[str, int]:
    """The fastest settings with which FAISS's selector finds as much as the published bundle.

    If none up to 16 times those of the index does, the settings that find most.
    """
    searcher, _ = _opened_bundle(str(work.folder / "index"))
    index, _ = _opened_index(work.folder / "faiss.index")
    wanted = _recall_of(work, kept, _search_of(searcher, kept))
    best: Mapping[str, int] = {}
    highest = -1.0
    for step in raised(recipe):
        recall = _recall_of(work, kept, _faiss_search(index, step.search, work.kept[kept]))
        if recall > highest:
            best, highest = step.search, recall
        if recall >= wanted:
            break
    return best


def _recall_of(work: Work, kept: BenchFilter, search: Callable[[ndarray], Neighbours]) -> float:
    queries = work.queries[:_TUNED_QUERIES]
    rows = np.full((len(queries), K), -1, np.int64)
    for number in range(len(queries)):
        found = search(queries[number : number + 1]).rows[0]
        rows[number, : len(found)] = found
    exact = work.exact[kept]
    exact = Neighbours(exact.scores[: len(queries)], exact.rows[: len(queries)])
    return float(recall_per_query(exact, Neighbours(_no_scores(rows), rows), K).mean())


def _build_with_faiss(work: Work, recipe: Recipe) -> float:
    """Train and fill an index of the same factory string, file by file; returns the seconds."""
    started = time.monotonic()
    manifest = artifacts.open_artifact(work.embeddings_uri, EmbeddingSetManifest)
    names = vector_files(manifest)
    share = min(1.0, recipe.num_training_vectors / work.num_vectors)
    rng = np.random.default_rng(0)
    sample = [
        vectors[rng.random(len(vectors)) < share]
        for vectors in (_vectors(work, manifest, name) for name in names)
    ]
    index = trained_index(recipe, np.concatenate(sample))
    for name in names:
        index.add(_vectors(work, manifest, name))
    write_shard(index, work.folder / "faiss.index")
    return time.monotonic() - started


def _vectors(work: Work, manifest: EmbeddingSetManifest, name: str) -> Float32[ndarray, "n d"]:
    return vectors_of(read_part(work.embeddings_uri, manifest, name))


def _build_with_autofaiss(work: Work, config: BenchRunConfig) -> float:
    """Let autofaiss choose and build an index; returns the seconds."""
    place = work.folder
    (place / "npy").mkdir()
    np.save(place / "npy" / "vectors.npy", vectors_of(read_embeddings(work.embeddings_uri)))
    budget = config.index.budget
    num_bytes = budget.memory_bytes or (budget.bytes_per_vector or 1e4) * work.num_vectors
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
        last_line = finished.stderr.strip().rpartition("\n")[2][:300]
        raise ClusterError(f"autofaiss: exit status {finished.returncode}: {last_line}")
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
    work: Work, kept: BenchFilter | None, search: Callable[[ndarray], Neighbours], metrics: dict[str, float]
) -> Measurement:
    """Search for every query once on one thread, after as many searches as make a filter a frequent one."""
    faiss.omp_set_num_threads(1)
    queries = work.queries
    for number in range(NUM_SEARCHES + 1):
        search(queries[number % len(queries)][None])
    seconds, rows = [], np.full((len(queries), K), -1, np.int64)
    for number in range(len(queries)):
        started = time.perf_counter()
        found = search(queries[number : number + 1])
        seconds.append(time.perf_counter() - started)
        rows[number, : found.rows.shape[1]] = found.rows[0]
    recall = recall_per_query(work.exact[kept], Neighbours(_no_scores(rows), rows), K).mean()
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


def _no_scores(rows: ndarray) -> Float32[ndarray, "q k"]:
    return np.zeros(rows.shape, np.float32)
