"""Build the FAISS indexes of an EmbeddingSet, measure their recall and publish them as an IndexBundle.

The vectors pass by file by file: once for a sample (training, tuning, queries), once into each FAISS file,
and once for the exact neighbours of the queries. The files lie in a folder of their own until they are
published, so a build that fails leaves the bundle that is published as it was.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import faiss
import numpy as np
import pyarrow.parquet as pq
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, FileEntry, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData
from raysys.index import tune
from raysys.index.kinds import Recipe, raised, recipe_of, trained_index
from raysys.index.measure import (
    Latency,
    OpenShards,
    Truth,
    exact_truth,
    filtered_recalls,
    latency,
    recalls,
)
from raysys.index.queries import perturbed
from raysys.index.search import ITEMS_FILE, items_table, shard_name
from raysys.index.shards import Shards, read_shard, write_shard
from raysys.index.source import IndexSource, VectorFile, blocks, groups, read_source
from raysys.parallel import Parallel

log = logging.getLogger("raysys")
_FLOAT_BYTES = 4
_SHARD_BYTES = 2 << 30
_REMEDY = (
    "choose another index.kind, raise its parameters or index.budget.latency_ms, or lower index.min_recall"
)


@dataclass(frozen=True)
class _Measured:
    """An index with the search settings of `recipe`."""

    recipe: Recipe
    recall: dict[str, float]
    latency: Latency

    @property
    def lowest(self) -> tuple[str, float]:
        """The lowest recall and its name."""
        promised = {
            name: value
            for name, value in self.recall.items()
            if name.startswith("recall@") and not name.endswith(("_low", "_high"))
        }
        return min(promised.items(), key=lambda entry: entry[1])


def publish_index(
    spec: ArtifactSpec, embeddings_uri: str, section: IndexConfig, parallel: Parallel = map
) -> IndexBundleManifest:
    """Build the index of an EmbeddingSet and publish it with its measured recall.

    `parallel` fills several FAISS files; a single one is filled in this process.
    Raises: DamagedData if the EmbeddingSet is damaged or empty, if two of its rows have one item id, or if
    the recall is below `index.min_recall`; InputError for a budget that cannot be met.
    """
    started = time.monotonic()
    embeddings = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    num_shards = num_shards_of(section, embeddings.num_items, embeddings.dimensions)
    if num_shards == 1:
        parallel = map
    source = read_source(embeddings_uri, num_shards)
    sample, queries = _sample(source, section, embeddings.dimensions, parallel)
    recipe, candidates = _choose(section, sample, len(source))
    with _version_folder(spec.uri) as version:
        folder = storage.join(spec.uri, version)
        files = _fill(source, recipe, sample, folder, parallel)
        truth = exact_truth(source.files, queries, section.recall_k, parallel)
        measured = _with_promised_recall(spec.uri, recipe, section, folder, source, truth)
        with storage.writable_file(storage.join(folder, ITEMS_FILE)) as path:
            pq.write_table(items_table(source.items), path)
        files |= artifacts.describe_files(folder, only=[ITEMS_FILE])
        manifest = IndexBundleManifest(
            **artifacts.common_fields(spec, files, len(source), time.monotonic() - started),
            space_id=embeddings.space_id,
            dimensions=embeddings.dimensions,
            index_kind=recipe.kind,
            factory=recipe.factory,
            search=dict(measured.recipe.search),
            recall=measured.recall,
            latency_ms={"p50": measured.latency.p50_ms, "p99": measured.latency.p99_ms},
            candidates=list(candidates),
            last_change=0,
        )
        manifest = artifacts.publish_version(spec.uri, version, manifest)
    artifacts.delete_other_versions(spec.uri, IndexBundleManifest)
    return manifest


def num_shards_of(section: IndexConfig, num_items: int, dimensions: int) -> int:
    """The number of FAISS files."""
    num_bytes = num_items * dimensions * _FLOAT_BYTES
    return section.shards or max(1, math.ceil(num_bytes / _SHARD_BYTES))


def _sample(
    source: IndexSource, section: IndexConfig, dimensions: int, parallel: Parallel
) -> tuple[Float32[ndarray, "n d"], Float32[ndarray, "q d"]]:
    """Random vectors for training and tuning, and the queries that measure recall."""
    rng = np.random.default_rng(0)
    kind = "ivf_pq" if section.kind == "auto" else section.kind
    num = recipe_of(section, kind, len(source), dimensions).num_training_vectors
    num = min(len(source), max(num, tune.SAMPLE_VECTORS))
    sampled = np.sort(rng.choice(len(source), num, replace=False))
    held_out = source.held_out_rows()
    asked = np.sort(rng.permutation(held_out)[: section.recall_queries])
    picked = [*parallel(partial(_pick, np.union1d(sampled, asked)), groups(source.files))]
    rows = np.concatenate([rows for rows, _ in picked])
    vectors = np.concatenate([vectors for _, vectors in picked])
    order = np.argsort(rows)
    rows, vectors = rows[order], vectors[order]
    sample, chosen = (vectors[np.isin(rows, some)] for some in (sampled, asked))
    return sample, perturbed(chosen, sample[: tune.SAMPLE_VECTORS], rng)


def _pick(wanted: ndarray, files: Sequence[VectorFile]) -> tuple[ndarray, ndarray]:
    parts = [file.read_rows(wanted) for file in files]
    return np.concatenate([rows for rows, _ in parts]), np.concatenate([vectors for _, vectors in parts])


def _choose(
    section: IndexConfig, sample: ndarray, num_items: int
) -> tuple[Recipe, Sequence[artifacts.IndexCandidate]]:
    if section.kind != "auto":
        return recipe_of(section, section.kind, num_items, sample.shape[1]), ()
    choice = tune.choose(section, sample, num_items)
    log.info("    index  kind %s: %s", choice.recipe.kind, choice.recipe.factory)
    return choice.recipe, choice.candidates


@contextlib.contextmanager
def _version_folder(uri: str) -> Iterator[str]:
    """The name of a new folder below `uri`; it is deleted if the block fails."""
    artifacts.delete_other_versions(uri, IndexBundleManifest)  # of a build that was killed
    version = f"version-{uuid.uuid4().hex[:12]}"
    try:
        yield version
    except BaseException:
        storage.delete(storage.join(uri, version))
        if not storage.list_files(uri):
            storage.delete(uri)
        raise


def _fill(
    source: IndexSource, recipe: Recipe, sample: ndarray, folder: str, parallel: Parallel
) -> dict[str, FileEntry]:
    """Train once, and write every FAISS file on its own."""
    trained = faiss.serialize_index(trained_index(recipe, sample[: recipe.num_training_vectors]))
    ends = np.cumsum(source.shard_sizes).tolist()
    ranges = [*zip(range(len(ends)), [0, *ends], ends, strict=False)]
    return dict(parallel(partial(_fill_shard, source.files, trained, folder), ranges))


def _fill_shard(
    files: Sequence[VectorFile], trained: ndarray, folder: str, rows: tuple[int, int, int]
) -> tuple[str, FileEntry]:
    """Write the FAISS file of a range of rows: its number, its first row, and the row after its last."""
    number, first_row, end_row = rows
    index = faiss.deserialize_index(trained)
    for _, vectors in blocks(files, first_row, end_row):
        index.add(vectors)
    assert index.ntotal == end_row - first_row
    name = shard_name(number)
    with storage.writable_file(storage.join(folder, name)) as path:
        write_shard(index, path)
    return name, artifacts.describe_files(folder, only=[name])[name]


def _with_promised_recall(
    uri: str, recipe: Recipe, section: IndexConfig, folder: str, source: IndexSource, truth: Truth
) -> _Measured:
    """Raise the search settings until the recall is the promised one, as long as the latency allows it.

    Raises: DamagedData with the figures if that is not enough.
    """
    steps = raised(recipe)
    shards, measured = _measured(next(steps), folder, source, truth)
    too_slow: _Measured | None = None
    while measured.lowest[1] < section.promised_recall and too_slow is None:
        log.info("    index  %s", _figures(measured))
        if (step := next(steps, None)) is None:
            break
        more, raised_to = _measured(step, folder, source, truth)
        if raised_to.latency.p99_ms > section.budget.latency_ms:
            too_slow = raised_to
        else:
            shards, measured = more, raised_to
    recall = {**measured.recall, **filtered_recalls(shards, truth)}
    measured = replace(measured, recall=recall)
    log.info("    index  %s", _figures(measured))
    _require_recall(uri, measured, too_slow, section)
    return measured


def _measured(recipe: Recipe, folder: str, source: IndexSource, truth: Truth) -> tuple[OpenShards, _Measured]:
    shards = partial(_open_one_by_one, folder, len(source.shard_sizes), recipe.search)
    return shards, _Measured(recipe, recalls(shards, truth), latency(shards, truth))


def _open_one_by_one(folder: str, num_shards: int, settings: Mapping[str, int]) -> Iterator[Shards]:
    first_row = 0
    for number in range(num_shards):
        with storage.readable_file(storage.join(folder, shard_name(number))) as path:
            shards = Shards([read_shard(path)], settings, first_row)
        first_row += len(shards)
        yield shards


def _require_recall(uri: str, measured: _Measured, too_slow: _Measured | None, section: IndexConfig) -> None:
    name, lowest = measured.lowest
    if lowest >= section.promised_recall:
        return
    reason = ""
    if too_slow is not None:
        reason = f"; {_figures(too_slow)}, above index.budget.latency_ms {section.budget.latency_ms:g}"
    raise DamagedData(
        f"{uri}: {name} of the {measured.recipe.kind} index is {lowest:.3f}, below the promised "
        f"{section.promised_recall:g} ({_figures(measured)}{reason}); nothing is published; {_REMEDY}"
    )


def _figures(measured: _Measured) -> str:
    settings = [f"{name} {value}" for name, value in measured.recipe.search.items()]
    recall = [f"{name} {value:.3f}" for name, value in measured.recall.items() if name != "queries"]
    return ", ".join([measured.recipe.factory, *settings, *recall, f"p99 {measured.latency.p99_ms:.2f} ms"])
