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
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.artifacts.embedding_set import vectors_of
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData
from raysys.index import tune
from raysys.index.changes import FILE as CHANGES_FILE
from raysys.index.changes import ChangedItems, ChangeSource, write_changes
from raysys.index.crossover import measure_crossover
from raysys.index.device import Device, Gpu, device_of
from raysys.index.fill import fill_shards, open_one_by_one
from raysys.index.kinds import Recipe, raised, recipe_of
from raysys.index.measure import (
    Latency,
    Truth,
    exact_truth,
    filtered_recalls,
    latency,
    recalls,
)
from raysys.index.queries import perturbed
from raysys.index.shards import Shard
from raysys.index.source import IndexSource, SourceFile, groups, read_source
from raysys.parallel import Parallel
from raysys.terminal import printable

log = logging.getLogger("raysys")
_FLOAT_BYTES = 4
_SHARD_BYTES = 2 << 30
_REMEDY = (
    "choose another index.kind, raise its parameters or index.budget.latency_ms, or lower index.min_recall"
)
_CROSSOVER_QUERIES = 20


@dataclass(frozen=True)
class _Measured:
    """An index with the search settings of `recipe`."""

    recipe: Recipe
    recall: dict[str, float]
    latency: Latency
    max_exact_rows: int = 0

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
    spec: ArtifactSpec,
    embeddings_uri: str,
    section: IndexConfig,
    parallel: Parallel = map,
    gpu_tasks: Parallel | None = None,
    changes: ChangeSource | None = None,
) -> IndexBundleManifest:
    """Build the index of an EmbeddingSet, with the `changes` of a log, and publish it with its recall.

    `parallel` fills several FAISS files on CPUs; this process fills a single one, and all of them if it has a
    GPU. Without one, `gpu_tasks` train, fill and compare with a GPU each, if there are any.
    Raises: DamagedData if the EmbeddingSet is damaged or empty, if two of its rows have one item id, or if
    the recall is below `index.min_recall`; InputError for a budget that cannot be met, and for
    `index.device: gpu` without a GPU.
    """
    started = time.monotonic()
    here = device_of("auto" if gpu_tasks is not None else section.device)
    embeddings = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    num_shards = num_shards_of(section, embeddings.num_items, embeddings.dimensions)
    if num_shards == 1:
        parallel = map
    kept = artifacts.versions_to_keep(spec.uri, IndexBundleManifest)
    with _version_folder(spec.uri, kept) as version:
        folder = storage.join(spec.uri, version)
        changed = _changed(changes, embeddings_uri, embeddings, folder)
        source = read_source(embeddings_uri, num_shards, changed)
        sample, queries = _sample(source, section, embeddings.dimensions, parallel, here)
        recipe, candidates = _choose(section, sample, len(source), here)
        device, parallel = _bulk(here, parallel, gpu_tasks)
        files = fill_shards(source, recipe, sample, folder, parallel, device)
        truth = exact_truth(source.files, queries, section.recall_k, parallel, device)
        shards = partial(open_one_by_one, folder, len(source.shard_sizes), device=here)
        measured = _with_promised_recall(spec.uri, recipe, section, shards, truth)
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
            last_change=0 if changes is None else changes.up_to,
            num_without_vector=0 if changed is None else changed.num_without_vector,
            max_exact_rows=measured.max_exact_rows,
        )
        storage.delete(storage.join(folder, CHANGES_FILE))
        artifacts.publish(folder, manifest)  # this version can still be opened after the next publication
        manifest = artifacts.publish_version(spec.uri, version, manifest)
    artifacts.delete_other_versions(spec.uri, IndexBundleManifest, keep=kept)
    return manifest


def _changed(
    changes: ChangeSource | None, uri: str, embeddings: EmbeddingSetManifest, folder: str
) -> ChangedItems | None:
    if changes is None:
        return None
    changed = write_changes(changes, uri, embeddings, folder)
    log.info(
        "    index  changes up to %d: %d items put, %d deleted",
        changes.up_to,
        changed.manifest.num_items,
        changed.num_deleted,
    )
    if changed.num_without_vector:
        log.warning(
            "index: %d items were put without a vector of this space, and are not in the index; "
            "run `raysys embed`, then `raysys index`",
            changed.num_without_vector,
        )
    for name, left_out in changed.left_out.items():
        log.warning(
            "index: attribute '%s' of %d items that were put has another type than in the catalogue or in an "
            "item that was put before, and is left out (the first is item '%s'); put these items again",
            printable(name, 80),
            left_out.count,
            printable(left_out.item_id, 80),
        )
    return changed


def num_shards_of(section: IndexConfig, num_items: int, dimensions: int) -> int:
    """The number of FAISS files."""
    num_bytes = num_items * dimensions * _FLOAT_BYTES
    return section.shards or max(1, math.ceil(num_bytes / _SHARD_BYTES))


def _sample(
    source: IndexSource, section: IndexConfig, dimensions: int, parallel: Parallel, device: Device
) -> tuple[Float32[ndarray, "n d"], Float32[ndarray, "q d"]]:
    """Random vectors for training and tuning, and the queries that measure recall."""
    rng = np.random.default_rng(0)
    kind = "ivf_pq" if section.kind == "auto" else section.kind
    num = recipe_of(section, kind, len(source), dimensions).num_training_vectors
    num = min(len(source), max(num, tune.SAMPLE_VECTORS))
    sampled = np.sort(rng.choice(len(source), num, replace=False))
    asked = np.sort(rng.permutation(source.held_out_rows)[: section.recall_queries])
    picked = [*parallel(partial(_pick, np.union1d(sampled, asked)), groups(source.files))]
    rows = np.concatenate([rows for rows, _ in picked])
    vectors = np.concatenate([vectors for _, vectors in picked])
    order = np.argsort(rows)
    rows, vectors = rows[order], vectors[order]
    sample, chosen = (vectors[np.isin(rows, some)] for some in (sampled, asked))
    sample = rng.permutation(sample)
    return sample, perturbed(chosen, sample[: tune.SAMPLE_VECTORS], rng, device)


def _pick(wanted: ndarray, files: Sequence[SourceFile]) -> tuple[ndarray, ndarray]:
    """Those of the rows `wanted` that the files have, with their vectors."""
    masks = [np.isin(file.rows, wanted) for file in files]
    rows = [file.rows[mask] for file, mask in zip(files, masks, strict=True)]
    vectors = [vectors_of(file.read(mask)) for file, mask in zip(files, masks, strict=True)]
    return np.concatenate(rows), np.concatenate(vectors)


def _choose(
    section: IndexConfig, sample: ndarray, num_items: int, device: Device
) -> tuple[Recipe, Sequence[artifacts.IndexCandidate]]:
    if section.kind != "auto":
        return recipe_of(section, section.kind, num_items, sample.shape[1]), ()
    choice = tune.choose(section, sample, num_items, device)
    log.info("    index  kind %s: %s", choice.recipe.kind, choice.recipe.factory)
    return choice.recipe, choice.candidates


def _bulk(here: Device, parallel: Parallel, gpu_tasks: Parallel | None) -> tuple[Device, Parallel]:
    """The device that trains, fills and compares with all vectors, and how it runs this work."""
    if isinstance(here, Gpu):
        log.info("    index  FAISS on the GPU of this process")
        return here, map
    if gpu_tasks is not None:
        log.info("    index  FAISS on GPUs of the cluster")
        return Gpu(), gpu_tasks
    return here, parallel


@contextlib.contextmanager
def _version_folder(uri: str, kept: Collection[str]) -> Iterator[str]:
    """The name of a new folder below `uri`; it is deleted if the block fails."""
    # Delete those of builds that were killed, and older ones.
    artifacts.delete_other_versions(uri, IndexBundleManifest, keep=kept)
    version = f"version-{uuid.uuid4().hex[:12]}"
    try:
        yield version
    except BaseException:
        storage.delete(storage.join(uri, version))
        if not storage.list_files(uri):
            storage.delete(uri)
        raise


def _with_promised_recall(
    uri: str, recipe: Recipe, section: IndexConfig, shards: Callable[..., Iterator[Shard]], truth: Truth
) -> _Measured:
    """Raise the search settings until the recall is the promised one, as long as the latency allows it.

    Raises: DamagedData with the figures if that is not enough.
    """
    steps = raised(recipe)
    measured = _measured(next(steps), shards, truth)
    too_slow: _Measured | None = None
    while measured.lowest[1] < section.promised_recall and too_slow is None:
        log.info("    index  %s", _figures(measured))
        if (step := next(steps, None)) is None:
            break
        raised_to = _measured(step, shards, truth)
        if raised_to.latency.p99_ms > section.budget.latency_ms:
            too_slow = raised_to
        else:
            measured = raised_to
    measured = _with_filters(measured, section, shards, truth)
    if measured.recipe != recipe:
        log.info("    index  raised to %s", _figures(measured))
    _require_recall(uri, measured, too_slow, section)
    return measured


def _measured(recipe: Recipe, shards: Callable[..., Iterator[Shard]], truth: Truth) -> _Measured:
    here = partial(shards, recipe.search)
    return _Measured(recipe, recalls(here, truth), latency(here, truth))


def _with_filters(
    measured: _Measured, section: IndexConfig, shards: Callable[..., Iterator[Shard]], truth: Truth
) -> _Measured:
    """The crossover to exact search, and the recall with filters that it leads to."""
    settings = measured.recipe.search
    first = next(shards(settings))  # the others are about as large, and have items like these
    queries = truth.queries[:_CROSSOVER_QUERIES]
    max_exact_rows = measure_crossover(first, queries, min_recall=section.promised_recall)
    filtered = filtered_recalls(partial(shards, settings, max_exact_rows), truth)
    return replace(measured, recall={**measured.recall, **filtered}, max_exact_rows=max_exact_rows)


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
