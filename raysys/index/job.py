"""`raysys index`: an EmbeddingSet becomes an IndexBundle with its measured recall."""

from __future__ import annotations

import time
from collections.abc import Mapping

import faiss
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import EmbeddingSetManifest, IndexBundleManifest, Target
from raysys.config.schema import IndexConfig
from raysys.embeddings import read_embeddings, vectors_of
from raysys.errors import DamagedData
from raysys.index.build import build_index, measure_recall
from raysys.index.search import INDEX_FILE, ITEMS_FILE, items_table


def index(target: Target, embeddings_uri: str, section: IndexConfig) -> IndexBundleManifest:
    """Build and publish the index.

    Raises: DamagedData if its recall is below `index.min_recall`.
    """
    started = time.monotonic()
    embeddings = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    table = read_embeddings(embeddings_uri)
    vectors = vectors_of(table)
    built = build_index(vectors, section)
    measured = measure_recall(built, vectors, section)
    _require_recall(target.uri, measured, section)
    artifacts.begin(target)
    with storage.writable_file(storage.join(target.uri, INDEX_FILE)) as path:
        faiss.write_index(built, str(path))
    with storage.writable_file(storage.join(target.uri, ITEMS_FILE)) as path:
        pq.write_table(items_table(table), path)
    files = artifacts.describe_files(target.uri)
    manifest = IndexBundleManifest(
        **artifacts.common_fields(target, files, len(vectors), time.monotonic() - started),
        space_id=embeddings.space_id,
        dimensions=embeddings.dimensions,
        index_kind=section.kind,
        recall=measured,
        last_change=0,
    )
    return artifacts.publish(target.uri, manifest)


def _require_recall(uri: str, measured: Mapping[str, float], section: IndexConfig) -> None:
    name, worst = min(
        ((n, value) for n, value in measured.items() if n.startswith("recall@")), key=lambda pair: pair[1]
    )
    if worst < section.min_recall:
        raise DamagedData(
            f"{uri}: {name} of the {section.kind} index is {worst:.3f}, "
            f"below index.min_recall {section.min_recall}; raise index.hnsw_search_effort or index.hnsw_links"
        )
