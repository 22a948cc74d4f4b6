"""The recall of a built index against exact search, and the latency of its searches."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy import ndarray

from raysys.artifacts.embedding_set import vectors_of
from raysys.index.device import CPU, Device
from raysys.index.neighbours import (
    Neighbours,
    depth,
    exact_neighbours,
    merged,
    merged_all,
    recall_per_query,
)
from raysys.index.passing import Passing
from raysys.index.queries import wilson_interval
from raysys.index.shards import Shard, one_thread
from raysys.index.source import NO_ROW, SourceFile, blocks, groups
from raysys.parallel import Parallel

FILTER_SHARES = (0.1, 0.01, 0.001)
_MAX_TIMED, _MIN_TIMED, _TIMED_S = 200, 10, 4.0

OpenShards = Callable[[], Iterable[Shard]]
"""Opens the FAISS files of an index one after the other."""


@dataclass(frozen=True)
class Truth:
    """Queries and their exact neighbours, among all rows and among those that a filter keeps."""

    queries: Float32[ndarray, "q d"]
    k: int
    exact: Neighbours
    exact_among: Mapping[float, Neighbours]
    """By the share of the rows that the filter keeps; only where that is at least k rows."""


@dataclass(frozen=True)
class Latency:
    """Of single searches on one thread, in ms."""

    p50_ms: float
    p99_ms: float


def exact_truth(
    files: Sequence[SourceFile],
    queries: Float32[ndarray, "q d"],
    k: int,
    parallel: Parallel,
    device: Device = CPU,
) -> Truth:
    """Compare the queries with all vectors, one file at a time."""
    num_rows = sum(int((file.rows != NO_ROW).sum()) for file in files)
    shares = [share for share in FILTER_SHARES if share * num_rows >= k]
    k = min(k, num_rows)
    found = [Neighbours.none(len(queries), depth(k))] * (1 + len(shares))
    for parts in parallel(partial(_group_truth, queries, depth(k), shares, device), groups(files)):
        found = [merged(pair, depth(k)) for pair in zip(found, parts, strict=True)]
    return Truth(queries, k, found[0], dict(zip(shares, found[1:], strict=True)))


def recalls(shards: OpenShards, truth: Truth) -> dict[str, float]:
    """Recall@1 and recall@k with its interval; `queries` is their number."""
    k, num = truth.k, len(truth.queries)
    found = merged_all((part.search(truth.queries, k) for part in shards()), num, k)
    recall = float(recall_per_query(truth.exact, found, k).mean())
    low, high = wilson_interval(recall, num)
    return {
        "recall@1": float(recall_per_query(truth.exact, found, 1).mean()),
        f"recall@{k}": recall,
        f"recall@{k}_low": low,
        f"recall@{k}_high": high,
        "queries": num,
    }


def filtered_recalls(shards: OpenShards, truth: Truth) -> dict[str, float]:
    """Recall@k among random 10 %, 1 % and 0.1 % of the rows."""
    measured = {}
    for share, exact in truth.exact_among.items():
        parts = (part.search(truth.queries, truth.k, _passing(part, share)) for part in shards())
        found = merged_all(parts, len(truth.queries), truth.k)
        name = f"recall@{truth.k}_among_{share * 100:g}%"
        measured[name] = float(recall_per_query(exact, found, truth.k).mean())
    return measured


def latency(shards: OpenShards, truth: Truth) -> Latency:
    """Search for single queries in all FAISS files, one after the other."""
    times: ndarray | None = None
    for part in shards():
        here = search_times_ms(part, truth.queries, truth.k, len(times) if times is not None else None)
        times = here if times is None else times + here
    assert times is not None, "an index has a file"
    return latency_of(times)


def latency_of(times_ms: Float32[ndarray, " q"]) -> Latency:
    """The percentiles of single searches."""
    return Latency(float(np.percentile(times_ms, 50)), float(np.percentile(times_ms, 99)))


def search_times_ms(
    shard: Shard, queries: Float32[ndarray, "q d"], k: int, num: int | None = None
) -> Float32[ndarray, " q"]:
    """The time of each of the first `num` queries: the better of two tries, on one thread.

    Without `num`, as many as a few seconds allow, at most 200.
    """
    with one_thread():
        _timed_search(shard, queries[:1], k)  # the first one also reads the file
        if num is None:
            seconds = 2 * max(_timed_search(shard, queries[:1], k), 1e-6)
            num = int(min(max(_TIMED_S / seconds, _MIN_TIMED), _MAX_TIMED, len(queries)))
        tries = [
            [_timed_search(shard, queries[number : number + 1], k) for number in range(num)] for _ in "ab"
        ]
    return np.asarray(np.min(tries, axis=0) * 1000, np.float32)


def _passing(shard: Shard, share: float) -> Passing:
    """The rows of a file that pass a filter which knows nothing of the vectors."""
    return Passing.of_mask(_is_kept(shard.first_row + np.arange(len(shard)), share))


def _is_kept(rows: Int64[ndarray, " n"], share: float) -> Bool[ndarray, " n"]:
    # Multiplicative hashing (Knuth, vol. 3, 6.4): the same rows in every process, and no array of all rows.
    mixed = (rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return np.asarray(mixed < share * 2**24)


def _group_truth(
    queries: ndarray,
    num_neighbours: int,
    shares: Sequence[float],
    device: Device,
    files: Sequence[SourceFile],
) -> list[Neighbours]:
    """The neighbours among all rows of the files, then those among the rows that each filter keeps."""
    found = [Neighbours.none(len(queries), num_neighbours)] * (1 + len(shares))
    for rows, table in blocks(files):
        vectors = vectors_of(table)
        masks = [np.ones(len(rows), dtype=bool), *(_is_kept(rows, share) for share in shares)]
        parts = [
            exact_neighbours(queries, [(rows[mask], vectors[mask])], num_neighbours, device) for mask in masks
        ]
        found = [merged(pair, num_neighbours) for pair in zip(found, parts, strict=True)]
    return found


def _timed_search(shard: Shard, query: ndarray, k: int) -> float:
    started = time.perf_counter()
    shard.search(query, k)
    return time.perf_counter() - started
