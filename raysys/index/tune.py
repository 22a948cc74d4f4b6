"""Choose the kind of an index from a budget, by measuring candidates on a sample of the data itself.

Which encoding wins depends on the spectrum of the vectors, so no rule of thumb decides. Candidates are built
in order of their memory; the first that reaches the recall within the latency is the cheapest. Memory and
latency are those of the complete catalogue, extrapolated from the sample.
"""

from __future__ import annotations

import bisect
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.artifacts import IndexCandidate
from raysys.config.schema import IndexConfig
from raysys.errors import InputError
from raysys.index.device import CPU, Device, filled
from raysys.index.kinds import (
    HNSW_KINDS,
    RERANKED_KINDS,
    Recipe,
    centroids_of,
    cost,
    empty_index,
    recipe_of,
    trained_index,
)
from raysys.index.measure import search_times_ms
from raysys.index.neighbours import Neighbours, depth, exact_neighbours, recall_per_query
from raysys.index.shards import Shard

log = logging.getLogger("raysys")
SAMPLE_VECTORS = 100_000
_QUERIES = 200
_K = 10
_EXACT_BELOW = 20_000  # comparing as many vectors of 128 dimensions takes about a millisecond
_NPROBES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_K_FACTORS = (4, 10, 32)
_EF_SEARCHES = (16, 32, 64, 128, 256, 512)
_FLOAT_BYTES, _LINK_BYTES = 4, 4


@dataclass(frozen=True)
class Choice:
    """The recipe for the complete catalogue, and the candidates that it was chosen from."""

    recipe: Recipe
    candidates: Sequence[IndexCandidate]


@dataclass(frozen=True)
class _Task:
    """What all candidates are measured with."""

    section: IndexConfig
    num_items: int
    base: Float32[ndarray, "n d"]
    queries: Float32[ndarray, "q d"]
    exact: Neighbours
    device: Device

    @property
    def recall(self) -> float:
        return self.section.promised_recall

    @property
    def bytes_per_vector(self) -> float:
        budget = self.section.budget
        if budget.memory_bytes is not None:
            return budget.memory_bytes / self.num_items
        return math.inf if budget.bytes_per_vector is None else budget.bytes_per_vector


def choose(
    section: IndexConfig, sample: Float32[ndarray, "n d"], num_items: int, device: Device = CPU
) -> Choice:
    """The cheapest index that meets `index.budget`; few items are searched exactly if the budget allows it.

    Raises: InputError with the nearest that can be met.
    """
    dimensions = sample.shape[1]
    task = _task(section, sample, num_items, device)
    exact = recipe_of(section, "exact", num_items, dimensions)
    if num_items < _EXACT_BELOW and dimensions * _FLOAT_BYTES <= task.bytes_per_vector:
        return Choice(exact, [])
    measured: list[IndexCandidate] = []
    centroids: ndarray | None = None
    for full in _recipes(section, num_items, dimensions):
        candidate, centroids = _measure(task, full, centroids)
        measured.append(candidate)
        log.info("    index  %s", describe(candidate))
        if _is_reached(task, candidate):
            if candidate.bytes_per_vector > task.bytes_per_vector:
                break  # all others need still more
            return Choice(replace(full, search=dict(candidate.search)), measured)
    raise InputError(_refusal(task, measured))


def describe(candidate: IndexCandidate) -> str:
    """A line of the table."""
    search = ", ".join(f"{name} {value}" for name, value in candidate.search.items())
    return (
        f"{candidate.factory:34} {search:24} {candidate.bytes_per_vector:7.1f} bytes/vector  recall@{_K} "
        f"{candidate.recall_at_10:.3f}  p50 {candidate.p50_ms:.2f} ms  p99 {candidate.p99_ms:.2f} ms"
    )


def _task(section: IndexConfig, sample: ndarray, num_items: int, device: Device) -> _Task:
    """The last vectors of a random order of the sample are the queries, and not in the indexes."""
    shuffled = np.random.default_rng(0).permutation(sample)
    num_queries = min(_QUERIES, len(sample) // 2)
    base, queries = shuffled[num_queries:][:SAMPLE_VECTORS], shuffled[:num_queries]
    exact = exact_neighbours(queries, [(np.arange(len(base)), base)], depth(_K), device)
    return _Task(section, num_items, base, queries, exact, device)


def _recipes(section: IndexConfig, num_items: int, dimensions: int) -> list[Recipe]:
    """The candidates for the complete catalogue, in order of their memory."""
    refines = [section.refine] if section.refine else ["sq4", "sq6", "sq8"]
    variants = [
        (kind, section.model_copy(update={"refine": refine})) for kind in RERANKED_KINDS for refine in refines
    ]
    variants += [(kind, section) for kind in ("ivf_sq8", "exact", "hnsw_sq8", "hnsw")]
    recipes = {
        recipe.factory: recipe
        for recipe in (recipe_of(variant, kind, num_items, dimensions) for kind, variant in variants)
    }
    return sorted(recipes.values(), key=lambda recipe: _estimated_bytes(recipe, dimensions))


def _estimated_bytes(recipe: Recipe, dimensions: int) -> float:
    """Bytes of a vector by its encodings, to order the candidates before any is built."""
    index: Any = empty_index(recipe, dimensions)
    if recipe.kind in HNSW_KINDS:
        storage: Any = faiss.downcast_index(index.storage)
        return float(storage.code_size + index.hnsw.nb_neighbors(0) * _LINK_BYTES)
    return float(index.sa_code_size())


def _measure(
    task: _Task, full: Recipe, centroids: Float32[ndarray, "lists d"] | None
) -> tuple[IndexCandidate, Float32[ndarray, "lists d"] | None]:
    """Build a candidate over the base of the sample and time its fastest settings with the recall.

    Its lists are as long as those of the complete index, so a search visits as many of them: with more items,
    the nearest are closer, and so are the centroids. Without settings that have the recall, those with the
    highest. The centroids of its lists are returned for the next candidate.
    """
    num, dimensions = task.base.shape
    num_lists = max(1, round(full.num_lists * num / task.num_items)) if full.num_lists else None
    variant = task.section.model_copy(update={"num_lists": num_lists, "refine": full.refine})
    recipe = recipe_of(variant, full.kind, num, dimensions)
    index = trained_index(recipe, task.base, centroids if recipe.num_lists else None, task.device)
    if recipe.num_lists and centroids is None:
        centroids = centroids_of(index)
    fixed_bytes = _file_bytes(index)
    index = filled(index, [task.base], task.device)
    num_bytes = (_file_bytes(index) - fixed_bytes) / num
    num_bytes += fixed_bytes * max(full.num_lists, 1) / max(recipe.num_lists, 1) / task.num_items
    if isinstance(index, faiss.IndexIVF):
        num_bytes += 8  # the place of each vector, to read it by row
    timed = []
    for search, recall in _worthwhile(task, index, recipe):
        scale = cost(replace(full, search=search), task.num_items) / cost(replace(recipe, search=search), num)
        times = search_times_ms(Shard(index, search), task.queries, _K) * max(scale, 1.0)
        p50, p99 = np.percentile(times, [50, 99])
        timed.append(
            IndexCandidate(
                kind=full.kind,
                factory=full.factory,
                search=search,
                bytes_per_vector=num_bytes,
                recall_at_10=recall,
                p50_ms=p50,
                p99_ms=p99,
            )
        )
    return min(timed, key=lambda candidate: candidate.p99_ms), centroids


def _worthwhile(task: _Task, index: Any, recipe: Recipe) -> list[tuple[Mapping[str, int], float]]:
    """Search settings and their recall: of each `k_factor` the fastest that has the recall.

    Without one, only the settings with the highest recall. A search that does more finds as much or more, so
    the fastest is found by bisection.
    """

    @functools.cache
    def recall_of(series: int, number: int) -> float:
        result = Shard(index, all_series[series][number]).search(task.queries, _K)
        return float(recall_per_query(task.exact, result, _K).mean())

    all_series = _searches(recipe)
    found: list[tuple[Mapping[str, int], float]] = []
    best: tuple[Mapping[str, int], float] = {}, -1.0
    for series, searches in enumerate(all_series):
        last = len(searches) - 1
        best = max(best, (searches[last], recall_of(series, last)), key=lambda pair: pair[1])
        if recall_of(series, last) >= task.recall:
            first = bisect.bisect_left(range(last), task.recall, key=partial(recall_of, series))
            found.append((searches[first], recall_of(series, first)))
    return found or [best]


def _searches(recipe: Recipe) -> list[list[dict[str, int]]]:
    """Series of settings, each in ascending order of the work; one for each `k_factor`."""
    if recipe.num_lists:
        nprobes = sorted({min(nprobe, recipe.num_lists) for nprobe in _NPROBES})
        searches = [{"nprobe": nprobe} for nprobe in nprobes]
        if "k_factor" in recipe.search:
            return [[{**search, "k_factor": factor} for search in searches] for factor in _K_FACTORS]
        return [searches]
    return [[{"ef_search": ef_search} for ef_search in _EF_SEARCHES] if recipe.search else [{}]]


def _is_reached(task: _Task, candidate: IndexCandidate) -> bool:
    return candidate.recall_at_10 >= task.recall and candidate.p99_ms <= task.section.budget.latency_ms


def _refusal(task: _Task, measured: Sequence[IndexCandidate]) -> str:
    """What was asked, and the nearest that can be had."""
    budget = task.section.budget
    asked = f"recall@{_K} {task.recall:g} within {budget.latency_ms:g} ms"
    if task.bytes_per_vector < math.inf:
        asked += f" and {task.bytes_per_vector:.4g} bytes a vector"
    reached = [candidate for candidate in measured if _is_reached(task, candidate)]
    in_memory = [candidate for candidate in measured if candidate.bytes_per_vector <= task.bytes_per_vector]
    if reached:
        least = min(reached, key=lambda candidate: candidate.bytes_per_vector)
        total = math.ceil(least.bytes_per_vector * task.num_items)
        remedy = (
            f"needs {least.bytes_per_vector:.1f} bytes a vector, {total:,} in all ({_short(least)}); "
            "raise index.budget.memory_bytes or bytes_per_vector"
        )
        if in_memory:
            best = max(in_memory, key=lambda candidate: candidate.recall_at_10)
            remedy += f", or lower recall_at_10: within the memory it is {_figures(best)} ({_short(best)})"
        return f"index.budget: {asked} cannot be met: it {remedy}"
    best = max(in_memory or measured, key=lambda candidate: (candidate.recall_at_10, -candidate.p99_ms))
    return (
        f"index.budget: {asked} cannot be met; the nearest is {_figures(best)} and "
        f"{best.bytes_per_vector:.1f} bytes a vector ({_short(best)}); lower recall_at_10 or raise latency_ms"
    )


def _figures(candidate: IndexCandidate) -> str:
    return f"{candidate.recall_at_10:.3f} with p99 {candidate.p99_ms:.2f} ms"


def _short(candidate: IndexCandidate) -> str:
    return ", ".join([candidate.factory, *(f"{name} {value}" for name, value in candidate.search.items())])


def _file_bytes(index: Any) -> int:
    return int(faiss.serialize_index(index).nbytes)
